import pytest

from chestxray.audit import audit, settle
from chestxray.errors import LeakError
from made import make_index


@pytest.fixture
def leaking():
    """Rows 0 and 4 are copies across splits, 1 and 2 copies within one; patient P is astride."""
    return make_index(
        ["a", "b", "b", "a", "a", "b"],
        patients=["1", "P", "2", "3", "4", "P"],
        splits=["train", "train", "train", "validation", "test", "test"],
        hashes=["x", "y", "y", "u", "x", "v"],
    )


def test_findings(leaking):
    found = audit(leaking)
    path = leaking.rows["path"]
    assert set(found.duplicates) == {(path[0], path[4]), (path[1], path[2])}
    assert found.duplicates_across_splits == ((path[0], path[4]),)
    assert found.patients_across_splits == (
        {"patient": "P", "source": "made", "splits": ["train", "test"], "images": 2},
    )
    assert found.leaks


def test_stop_shows_a_table(leaking):
    with pytest.raises(LeakError) as error:
        settle(leaking, audit(leaking), "stop")
    assert "--on-leak drop" in str(error.value)
    assert "/x/00000.png = /x/00004.png" in str(error.value)
    assert "same patient  P (2 images in train, test)" in str(error.value)


def test_drop_takes_rows_out_of_training_and_never_out_of_the_test(leaking):
    index, found = settle(leaking, audit(leaking), "drop")
    assert index.rows["split"].tolist() == ["", "", "train", "validation", "test", "test"]
    assert "same pixels as /x/00004.png" in index.rows["audit"][0]
    assert "patient P is in test" in index.rows["audit"][1]
    assert [path for path, _ in found.dropped] == ["/x/00000.png", "/x/00001.png"]
    assert not audit(index).leaks


def test_ignore_changes_nothing_but_is_recorded(leaking):
    index, found = settle(leaking, audit(leaking), "ignore")
    assert index.rows["split"].tolist() == leaking.rows["split"].tolist()
    record = found.to_json()
    assert record["on_leak"] == "ignore"
    assert len(record["exact_duplicates"]["across_splits"]) == 1
    assert len(record["exact_duplicates"]["groups"]) == 2


def test_one_patient_number_in_two_sources_is_two_patients():
    index = make_index(["a", "a"], patients=["1", "1"], splits=["train", "test"])
    index = index.replace(index.rows.assign(source=["here", "there"]))
    assert not audit(index).leaks


def test_unreadable_rows_are_reported_and_marked():
    index = make_index(["a", "a"], splits=["train", ""])
    index = index.replace(index.rows.assign(unreadable=["", "truncated"]))
    marked, found = settle(index, audit(index), "stop")
    assert found.unreadable == (("/x/00001.png", "truncated"),)
    assert marked.rows["audit"].tolist() == ["", "unreadable: truncated"]
