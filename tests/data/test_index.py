import pytest

from chestxray.data.index import COLUMNS, Index, Patients
from chestxray.errors import DataError


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


def test_patients_are_those_that_are_named():
    rows = Index.from_records(records(), name="set").rows
    assert Patients.of(rows) == Patients(1, 2)
    assert str(Patients.of(rows)) == "1 patient and, for 2 images, unknown ones"
    # One number in two sources is two patients.
    assert Patients.of(rows.assign(patient=["7", "7", ""], source=["here", "there", "here"])).known == 2
    nobody = Patients.of(rows.assign(patient=""))
    assert (nobody, str(nobody)) == (Patients(None, 3), "unknown patients")
    assert Patients.from_json({"rows": 3, **nobody.to_json()}) == nobody
    assert str(Patients(1200, 1)) == "1,200 patients and, for 1 image, unknown ones"


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
