import pytest

from chestxray.errors import DataError
from chestxray.index import COLUMNS, Index


def records():
    return [
        {"path": "/b.png", "label": "sick", "patient": "7", "split": "train", "age": "30"},
        {"path": "/a.png", "label": "well"},
        {"path": "/c.png", "label": "well"},
    ]


def test_rows_are_sorted_and_filled():
    index = Index.from_records(records(), name="set")
    assert index.rows["path"].tolist() == ["/a.png", "/b.png", "/c.png"]
    assert index.rows["source"].tolist() == ["set"] * 3
    assert tuple(index.rows.columns) == (*COLUMNS, "age")
    assert index.classes == ("sick", "well")


def test_images_of_unknown_patients_are_clusters_of_their_own():
    assert Index.from_records(records(), name="set").clusters().nunique() == 3


def test_parquet_keeps_everything(tmp_path):
    index = Index.from_records(records(), name="set", classes=("well", "sick"), licence="CC0", citation="x")
    index.write(tmp_path / "index.parquet")
    again = Index.read(tmp_path / "index.parquet")
    assert (again.classes, again.name, again.licence, again.citation) == (("well", "sick"), "set", "CC0", "x")
    assert again.rows.equals(index.rows)


@pytest.mark.parametrize(
    ("given", "classes", "words"),
    [
        ([], None, "No images"),
        (records(), ("well",), "Received: sick"),
        ([{"path": "/a", "label": "x", "split": "holdout"}], None, "Received: holdout"),
    ],
)
def test_bad_records_are_refused(given, classes, words):
    with pytest.raises(DataError, match=words):
        Index.from_records(given, name="set", classes=classes)
