import json

import numpy as np
import pytest

from chestxray.data.audit import audit, settle
from chestxray.errors import LeakError
from chestxray.report.figures.pairs import write_contact_sheets
from made import make_index


@pytest.fixture
def leaking():
    """Rows 0 and 4 are copies across splits, 1 and 2 copies within one; patient P straddles the splits."""
    return make_index(
        ["a", "b", "b", "a", "a", "b", "a"],
        patients=["1", "P", "2", "3", "4", "P", "5"],
        splits=["train", "train", "train", "validation", "test", "test", "train"],
        hashes=["x", "y", "y", "u", "x", "v", "w"],
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
    assert "same patient     P (2 images in train, test)" in str(error.value)


def test_drop_takes_rows_out_of_training_and_never_out_of_the_test(leaking):
    index, found = settle(leaking, audit(leaking), "drop")
    assert index.rows["split"].tolist() == ["", "", "train", "validation", "test", "test", "train"]
    assert "same pixels as /x/00004.png" in index.rows["audit"][0]
    assert "patient P is in test" in index.rows["audit"][1]
    assert [path for path, _ in found.dropped] == ["/x/00000.png", "/x/00001.png"]
    assert not audit(index).leaks


@pytest.mark.parametrize(
    ("splits", "hashes", "words"),
    [
        (["train", "train", "train", "validation", "test"], "xyzux", None),
        (["train", "train", "train", "validation", "test"], "xyxux", "no training images of class a"),
        (["train", "train", "validation", "validation", "test"], "xyzuz", "no validation images of class a"),
        (["train", "train", "validation", "", "test"], "xyzuz", "no validation images of class a"),
        (
            ["train", "validation", "train", "validation", "test"],
            "xxxxx",
            "no training images of class a, no val.* b",
        ),
    ],
    ids=["enough is left", "training", "validation", "all of validation", "both"],
)
def test_drop_leaves_images_of_every_class_or_stops(splits, hashes, words):
    index = make_index(["a", "b", "a", "b", "a"], splits=splits, hashes=list(hashes))
    if words is None:
        assert settle(index, audit(index), "drop")[1].dropped
        return
    with pytest.raises(LeakError, match=rf"images that leak \(\d\) leaves? {words}\. Allowed: --split grouped"):
        settle(index, audit(index), "drop")
    settle(index, audit(index), "ignore")


def test_a_validation_that_leaks_left_small_is_said():
    index = make_index(
        ["a", "b"] * 60,
        splits=["train"] * 30 + ["validation"] * 60 + ["test"] * 30,
        hashes=[f"h{i if i < 90 else i - 31}" for i in range(120)],
    )
    assert audit(index).small_validation == ()
    _, found = settle(index, audit(index), "drop")
    assert len(found.dropped) == 30
    assert found.small_validation[0].startswith("30 validation images")


@pytest.mark.parametrize("split", ["auto", "official", "random", "stratified"])
def test_a_split_by_patient_is_offered_where_it_mends_the_leak(leaking, split):
    with pytest.raises(
        LeakError, match=r"Allowed: --split grouped \(draw all splits anew, by patient and with copies tog"
    ):
        settle(leaking, audit(leaking), "stop", split)


def test_a_split_by_patient_is_not_offered_where_it_mends_nothing(leaking):
    for split in ("grouped", "source"):
        with pytest.raises(LeakError, match="Allowed: --on-leak drop"):
            settle(leaking, audit(leaking), "stop", split)
    # The copy is in a test that was given, where no split of the other images mends it.
    given = leaking.replace(leaking.rows.assign(external=[False] * 4 + [True] * 2 + [False], patient=""))
    with pytest.raises(LeakError, match="Allowed: --on-leak drop"):
        settle(given, audit(given), "stop")
    both = given.replace(given.rows.assign(patient=["1", "", "", "1", "", "", "5"]))
    with pytest.raises(LeakError, match=r"--split grouped .*; what leaks into the data to test on stays"):
        settle(both, audit(both), "stop")


def test_ignore_changes_nothing_but_is_recorded(leaking):
    index, found = settle(leaking, audit(leaking), "ignore")
    assert index.rows["split"].tolist() == leaking.rows["split"].tolist()
    record = found.to_json()
    assert record["on_leak"] == "ignore"
    assert len(record["exact_duplicates"]["across_splits"]) == 1
    assert len(record["exact_duplicates"]["groups"]) == 2


def test_one_patient_number_in_two_sources_is_said():
    index = make_index(["a", "b", "a"], patients=["1", "1", "2"], splits=["train", "test", "test"])
    rows = index.rows.assign(source=["here", "there", "there"])
    (said,) = audit(index.replace(rows)).notes
    assert said.startswith("Patient identifiers that several sets have, on both sides of a split: 1, such as 1.")
    assert not audit(index.replace(rows.assign(drawn=True))).notes
    assert not audit(index.replace(rows.assign(split="train"))).notes


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


@pytest.fixture
def near():
    """Rows 0 and 5 show one film, and so do 1 and 2; row 3 is an exact copy of row 0."""
    index = make_index(
        ["a", "b", "a", "a", "b", "a"],
        splits=["train", "train", "train", "train", "validation", "test"],
        hashes=["x", "y", "z", "x", "u", "v"],
    )
    groups = ["near-0", "near-1", "near-1", "near-0", "", "near-0"]
    alike = [0.95, 0.9, 0.9, 0.95, np.nan, 0.95]
    return index.replace(index.rows.assign(near_group=groups, near_correlation=alike))


def test_near_copies_across_splits_are_leaks(near):
    found = audit(near)
    path = near.rows["path"]
    assert found.near == ((path[0], path[3], path[5]), (path[1], path[2]))
    assert found.near_across_splits == ((path[0], path[3], path[5]),)
    assert found.correlations == (0.95, 0.9)
    assert not found.duplicates_across_splits
    assert found.leaks
    with pytest.raises(LeakError, match=r"same radiograph  /x/00000\.png ~ /x/00003\.png ~ /x/00005\.png"):
        settle(near, found, "stop")


def test_near_copies_are_dropped_from_training(near):
    index, found = settle(near, audit(near), "drop")
    assert index.rows["split"].tolist() == ["", "train", "train", "", "validation", "test"]
    assert {reason for _, reason in found.dropped} == {"dropped: same radiograph as /x/00005.png"}
    assert not audit(index).leaks


def test_films_that_are_nearly_one_are_named_and_left_alone(near):
    path = near.rows["path"]
    alike, values = ["", path[5], "", "", path[2], path[1]], [np.nan, 0.8, np.nan, np.nan, 0.76, 0.8]
    index = near.replace(near.rows.assign(near_group="", look_alike=alike, look_alike_correlation=values))
    found = audit(index.replace(index.rows.assign(pixel_hash=list("abcdef"), file_hash=list("abcdef"))))
    assert found.look_alikes == (
        {"paths": [path[1], path[5]], "correlation": 0.8, "across_splits": True},
        {"paths": [path[4], path[2]], "correlation": 0.76, "across_splits": True},
    )
    assert not found.leaks
    assert found.severity == "warning"
    assert [(finding.kind, finding.count) for finding in found.findings if "look" in finding.kind] == [
        ("look-alikes across splits", 2),
        ("look-alikes", 2),
    ]
    assert found.to_json()["near_duplicates"]["look_alikes"][0]["paths"] == ["/x/00001.png", "/x/00005.png"]


def test_copies_with_different_labels(near, leaking):
    (conflict,) = audit(near).conflicting
    assert conflict == {"kind": "near", "labels": {"/x/00001.png": "b", "/x/00002.png": "a"}}
    rows = leaking.rows.assign(label=["a", "b", "a", "a", "a", "b", "a"])
    (conflict,) = audit(leaking.replace(rows)).conflicting
    assert conflict == {"kind": "exact", "labels": {"/x/00001.png": "b", "/x/00002.png": "a"}}


def test_small_validation_is_said():
    index = make_index(["a", "b"] * 60, splits=["train"] * 40 + ["validation"] * 60 + ["test"] * 20)
    assert audit(index).small_validation == ()
    few = index.replace(index.rows.assign(split=["train"] * 90 + ["validation"] * 10 + ["test"] * 20))
    count, classes = audit(few).small_validation
    assert count.startswith("10 validation images, fewer than 50")
    assert "a (5), b (5)" in classes


def test_findings_come_gravest_first_and_the_json_is_whole(near):
    found = audit(near)
    order = [finding.severity for finding in found.findings]
    assert order == sorted(order, key=("critical", "warning", "note").index)
    assert found.severity == "critical"
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert record["near_duplicates"]["across_splits"] == [["/x/00000.png", "/x/00003.png", "/x/00005.png"]]
    assert record["near_duplicates"]["searched"] is True
    assert "another child" in record["near_duplicates"]["false_alarms"]
    for item in record["confounds"]:
        assert {"name", "association", "p", "flagged", "sentence"} <= set(item)
    clean = audit(make_index(["a", "b"]))
    assert clean.severity is None
    assert clean.to_json()["near_duplicates"]["searched"] is False


def test_contact_sheets_are_drawn_of_what_there_is(near, tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 20), dtype=np.uint8)
    drawn = write_contact_sheets(audit(near), near, pixels, tmp_path / "a")
    assert [path.name for path in drawn] == ["exact_duplicates.png", "near_duplicates.png"]
    heights = []
    for path in drawn:
        with Image.open(path) as image:
            heights.append(image.height)
    assert heights[1] > 1.5 * heights[0]
    clean = make_index(["a", "b"])
    assert write_contact_sheets(audit(clean), clean, pixels[:2], tmp_path / "b") == []


def test_a_class_that_is_not_tested_is_said():
    splits = ["train", "validation", "train", "test"] * 3
    assert audit(make_index(["a", "b", "c", "a"] * 3, splits=splits)).notes == (
        "No test images of class b, c: no figure speaks of it, and means are over the other classes.",
    )
    assert audit(make_index(["a", "b"] * 2, splits=["train", "train", "test", "test"])).notes == ()
    assert audit(make_index(["a", "b"])).notes == ()
