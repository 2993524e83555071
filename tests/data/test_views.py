"""Choosing images by their view."""

import pytest

from chestxray.data.index import Index
from chestxray.data.views import chosen
from chestxray.errors import DataError, InputError


def index_of(*views, sources=None):
    records = [{"path": f"/{i}.png", "label": "x", "view": view} for i, view in enumerate(views)]
    if sources:
        records = [record | {"source": source} for record, source in zip(records, sources, strict=True)]
    return Index.from_records(records, name="made")


def views(index, *asked):
    return chosen(index, asked).rows["view"].tolist()


EACH = ("PA", "AP Supine", "L", "LL", "lateral", "Axial", "")


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ((), ["PA", "AP Supine", "Axial", ""]),
        (("PA",), ["PA"]),
        (("PA,ap",), ["PA", "AP Supine"]),
        (("frontal",), ["PA", "AP Supine"]),
        (("Lateral",), ["L", "LL", "lateral"]),
        (("ap_supine", "Axial"), ["AP Supine", "Axial"]),
        (("any",), list(EACH)),
    ],
)
def test_views_are_chosen_by_meaning_and_by_spelling(asked, kept):
    assert views(index_of(*EACH), *asked) == kept


def test_what_is_left_out_is_counted():
    (note,) = chosen(index_of(*EACH), ()).notes
    assert note.startswith("3 of 7 images were left out by their view (") and "LL 1" in note and "--view any" in note
    assert chosen(index_of("PA", "AP"), ()).notes == ()


def test_a_source_without_views_is_kept_whole():
    index = chosen(index_of("PA", "LATERAL", "", sources=["one", "one", "two"]), ("PA",))
    assert index.rows["source"].tolist() == ["one", "two"]
    assert "two: the view of no image is known, and all 1 were kept." in index.notes


def test_a_view_that_no_image_has_is_an_error():
    with pytest.raises(InputError, match=r"view that the data do not have: 'oblique'\. Found: AP, PA"):
        views(index_of("PA", "AP"), "oblique")
    with pytest.raises(DataError, match="No image of made is left"):
        views(index_of("PA", "AP"), "lateral")
    plain = Index.from_records([{"path": "/a.png", "label": "x"}], name="plain")
    assert chosen(plain, ()) is plain
    with pytest.raises(InputError, match="plain has no column of the view"):
        chosen(plain, ("PA",))
