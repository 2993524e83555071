import pytest

from chestxray.data.data_changes import require_same
from chestxray.errors import DataError
from made import make_index

BEGAN = make_index(["a", "b"] * 5, patients=[str(i // 2) for i in range(10)])


def changed(**columns):
    return BEGAN.replace(BEGAN.rows.assign(**columns))


def with_row(column, place, value):
    return changed(**{column: [value if i == place else old for i, old in enumerate(BEGAN.rows[column])]})


@pytest.mark.parametrize(
    "now",
    [
        BEGAN,
        BEGAN.replace(BEGAN.rows.iloc[::-1]),
        changed(split="test"),
        # Written anew with the same pixels; an older version's hash of the pixels.
        changed(file_hash="other"),
        changed(pixel_hash="other"),
        BEGAN.replace(BEGAN.rows.drop(columns=["file_hash", "pixel_hash"])),
    ],
    ids=["itself", "another order", "its split", "other bytes", "another hash", "not decoded"],
)
def test_what_has_not_changed_passes(now):
    require_same(BEGAN, now, "nothing")


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (BEGAN.replace(BEGAN.rows[:9]), r"1 image is gone \(/x/00009\.png\)\. Allowed: that\.$"),
        (make_index(["a", "b"] * 7), r"4 images are new \(/x/00010\.png, /x/00011\.png, /x/00012\.png, \.\.\.\)"),
        (with_row("label", 3, "a"), r"1 image is of another label \(/x/00003\.png\)"),
        (with_row("patient", 4, ""), "1 image is of another patient"),
        (changed(source="elsewhere"), "10 images are of another source"),
        (changed(file_hash="other", pixel_hash=["y", *BEGAN.rows["pixel_hash"][1:]]), "1 image is of other pixels"),
    ],
    ids=["gone", "new", "label", "patient", "source", "pixels"],
)
def test_what_has_changed_is_counted_and_named(now, words):
    with pytest.raises(DataError, match=words) as caught:
        require_same(BEGAN, now, "that")
    assert "since 10 images of them were split" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_changes_are_told_at_once():
    rows = with_row("label", 3, "a").rows[1:]
    with pytest.raises(DataError, match=r"1 image is gone \(.*\); 1 image is of another label"):
        require_same(BEGAN, BEGAN.replace(rows), "that")
