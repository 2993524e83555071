"""Tables that say of each image which of several findings it shows."""

import gzip
import json

import pandas as pd
import pytest

import public_trees
from chestxray.data.findings import ABSENT, PRESENT, UNCERTAIN, UNKNOWN
from chestxray.data.sources.label_layouts.nih import FINDINGS
from chestxray.data.sources.manifest import load
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions


@pytest.fixture
def read(tmp_path):
    """A function that writes a table beside images, as deep as named, and reads it as a manifest."""

    def inner(content, name="list.csv", files=("a.png", "deep/er/b.png", "c.png"), patient_pattern=None, **extra):
        for file in files:
            public_trees.film(tmp_path / file)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        options = SourceOptions(cache=tmp_path, extra=extra, patient_pattern=patient_pattern)
        return load(str(tmp_path / name), options)

    return inner


def states(index):
    """The states of each finding, by the name of the file without suffix."""
    names = [path.rpartition("/")[2].partition(".")[0] for path in index.rows["path"]]
    return {
        name: dict(zip(index.classes, row, strict=True)) for name, row in zip(names, index.states.tolist(), strict=True)
    }


NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    "a.png,Mass|Effusion,0,1,57,M,PA\n"
    "b.png,No Finding,1,1,58,M,AP\n"
    "c.png,Hernia|No Finding,0,2,31,F,PA\n"
)


def test_nih_joins_findings_and_no_finding_is_the_absence_of_all(read, tmp_path):
    index = read(NIH, layout="nih")
    found = states(index)
    assert index.task == "findings" and index.classes == FINDINGS
    assert {name for name, state in found["a"].items() if state == PRESENT} == {"Mass", "Effusion"}
    assert set(found["b"].values()) == {ABSENT}
    assert found["c"]["Hernia"] == PRESENT
    rows = index.rows.set_index(index.rows["path"].str[-5:])
    assert rows.loc["a.png", ["patient", "sex", "age", "view"]].tolist() == ["1", "M", "57", "PA"]
    assert rows.loc["b.png", "path"] == str(tmp_path / "deep/er/b.png")
    assert rows["contradiction"].to_dict() == {"a.png": "", "b.png": "", "c.png": "No Finding and Hernia"}
    assert index.notes == ("1 of 3 rows of list.csv say No Finding beside a finding; the finding counts.",)
    assert "follow-up_#" not in rows


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", NIH.encode("utf-8-sig")),
        ("list.csv", NIH.replace("\n", "\r\n").encode()),
        ("list.csv", NIH.replace(",", ";").encode()),
        ("list.tsv", NIH.replace(",", "\t").encode()),
        ("list.csv.gz", gzip.compress(NIH.encode(), mtime=0)),
    ],
    ids=["byte order mark", "Windows", "semicolons", "tabs", "gzip"],
)
def test_a_table_may_be_written_in_any_variant(read, name, content):
    assert states(read(content, name, layout="nih")) == states(read(NIH, layout="nih"))


@pytest.mark.parametrize("kind", ["parquet", "xlsx"])
def test_a_table_may_be_parquet_or_excel(read, tmp_path, kind):
    pytest.importorskip("openpyxl" if kind == "xlsx" else "pyarrow", reason="an extra is not installed")
    rows = [line.split(",") for line in NIH.splitlines()]
    table = pd.DataFrame(rows[1:], columns=rows[0]).astype({"Patient ID": int, "Patient Age": float})
    file = tmp_path / f"made.{kind}"
    table.to_parquet(file) if kind == "parquet" else table.to_excel(file, index=False)
    index = read(file.read_bytes(), f"list.{kind}", layout="nih")
    assert states(index) == states(read(NIH, layout="nih"))
    assert index.rows["age"].tolist() == ["57", "31", "58"]


def test_nih_boxes_are_kept_beside_the_rows(read, tmp_path):
    (tmp_path / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Infiltrate,225.08,547.019,86.7,79\na.png,Mass,1,2,3,4,,,\n"
    )
    boxes = read(NIH, layout="nih").rows["boxes"].map(lambda text: json.loads(text) if text else [])
    assert boxes[0] == [
        {"finding": "Infiltration", "x": 225.08, "y": 547.02, "width": 86.7, "height": 79.0, "of": [1024, 1024]},
        {"finding": "Mass", "x": 1.0, "y": 2.0, "width": 3.0, "height": 4.0, "of": [1024, 1024]},
    ]
    assert boxes[1] == boxes[2] == []


CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Edema,Support Devices\n"
    "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,1.0\n"
    "CheXpert-v1.0-small/train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,1.0,,,\n"
    "CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,Male,40,Frontal,PA,,0.0,-1.0,\n"
)
CHEXPERT_FILES = [f"copy/{line.split(',')[0].partition('/')[2]}" for line in CHEXPERT.splitlines()[1:]]


def test_chexpert_has_a_column_a_finding_and_a_blank_is_not_known(read):
    index = read(CHEXPERT, files=CHEXPERT_FILES, layout="chexpert")
    assert index.classes == ("Cardiomegaly", "Edema", "Support Devices")
    assert index.states.tolist() == [
        # No Finding: what is blank is absent, except devices, which its rule does not look at.
        [ABSENT, ABSENT, PRESENT],
        [ABSENT, ABSENT, UNKNOWN],
        [ABSENT, UNCERTAIN, UNKNOWN],
    ]
    assert index.rows["patient"].tolist() == ["patient00001", "patient00001", "patient00002"]
    assert index.rows["view"].tolist() == ["AP", "LATERAL", "PA"]
    assert "contradiction" not in index.rows and set(index.rows["split"]) == {""}


def test_blanks_may_count_as_absent(read):
    index = read(CHEXPERT, files=CHEXPERT_FILES, layout="chexpert", blank="absent")
    assert index.states[2].tolist() == [ABSENT, UNCERTAIN, ABSENT]
    assert "2 empty cells of list.csv count as absent (blank=absent)." in index.notes


def test_chexpert_with_both_its_tables_has_their_split(read, tmp_path):
    second = CHEXPERT.replace("/train/", "/valid/")
    (tmp_path / "valid.csv").write_text(second)
    files = [*CHEXPERT_FILES, *(name.replace("/train/", "/valid/") for name in CHEXPERT_FILES)]
    index = read(CHEXPERT, files=files, layout="chexpert", also="valid.csv")
    assert index.rows["split"].value_counts().to_dict() == {"train": 3, "validation": 3}


def test_mimic_labels_studies_and_its_other_tables_name_their_images(read, tmp_path):
    metadata = "dicom_id,subject_id,study_id,ViewPosition\naa,10,50,PA\nbb,10,50,LATERAL\ncc,20,60,AP\ndd,30,70,AP\n"
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(gzip.compress(metadata.encode()))
    (tmp_path / "mimic-cxr-2.0.0-split.csv").write_text(
        "dicom_id,study_id,subject_id,split\naa,50,10,train\nbb,50,10,train\ncc,60,20,validate\n"
    )
    files = ["files/p10/p10/s50/aa.jpg", "elsewhere/bb.jpg", "files/p20/p20/s60/cc.jpg"]
    index = read(
        "subject_id,study_id,Edema,Fracture,No Finding\n10,50,1.0,-1.0,\n20,60,,,1.0\n",
        files=files, name="mimic-cxr-2.0.0-chexpert.csv", layout="mimic",
    )  # fmt: skip
    assert states(index) == {
        "aa": {"Edema": PRESENT, "Fracture": UNCERTAIN},
        "bb": {"Edema": PRESENT, "Fracture": UNCERTAIN},
        "cc": {"Edema": ABSENT, "Fracture": ABSENT},
    }
    rows = index.rows.set_index(index.rows["path"].str[-6:])
    assert rows.loc["bb.jpg", ["patient", "view", "split"]].tolist() == ["10", "LATERAL", "train"]
    assert rows.loc["cc.jpg", "split"] == "validation"
    assert "1 of 4 images of the table of metadata are of studies that" in index.notes[0]


def test_other_tables_are_read_by_the_names_of_their_columns(read):
    text = "file,what\na.png,x; y\nb.png,normal\nc.png,\n"
    found = states(read(text, findings_column="what", separator=";"))
    assert found == {
        "a": {"x": PRESENT, "y": PRESENT}, "b": {"x": ABSENT, "y": ABSENT}, "c": {"x": UNKNOWN, "y": UNKNOWN},
    }  # fmt: skip
    text = "file,x,y,n\na.png,1,-1,5\nb.png,0.0,,6\n"
    expected = {"a": {"x": PRESENT, "y": UNCERTAIN}, "b": {"x": ABSENT, "y": UNKNOWN}}
    assert states(read(text, finding_columns="X, y")) == states(read(text, finding_columns="*")) == expected


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"layout": "nhi"}, r"Unknown layout 'nhi'\. Did you mean nih\?"),
        ({"layout": "nih", "findings_column": "Finding Labels"}, "layout and findings_column each say"),
        ({"layout": "nih", "uncertain": "drop"}, "say --uncertain ignore"),
        ({"layout": "nih", "label_column": "x"}, "label_column are for tables of classes"),
        ({"layout": "chexpert"}, "not of this layout: it has none of CheXpert's columns"),
        ({"finding_columns": "Patient Age"}, "allowed are 1 .*Received: '57'"),
        ({"finding_columns": "what"}, r"has no column 'what' \(finding_columns\)"),
        ({"layout": "nih", "missing": "x"}, "missing must be drop"),
        ({"layout": "nih", "split_lists": "nowhere"}, "No list of a split in 'nowhere'"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(read, extra, message):
    with pytest.raises((DataError, InputError), match=message) as caught:
        read(NIH, **extra)
    assert "\n" not in str(caught.value)


def test_official_lists_beside_the_table_are_the_split(read, tmp_path):
    (tmp_path / "train_val_list.txt").write_text("a.png\r\nc.png\r\n")
    (tmp_path / "test_list.txt").write_text("b.png")
    assert read(NIH, layout="nih").rows["split"].tolist() == ["train", "train", "test"]
    assert set(read(NIH, layout="nih", split_lists="none").rows["split"]) == {""}
    (tmp_path / "test_list.txt").write_text("")
    with pytest.raises(DataError, match=r"1 of 3 rows of .* are in none of the lists test_list\.txt, train_val"):
        read(NIH, layout="nih")
    (tmp_path / "test_list.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match=r"test_list\.txt cannot be read as a list of file names"):
        read(NIH, layout="nih")


def test_rows_without_their_file_are_unreadable_or_left_out(read, tmp_path):
    index = read(NIH, files=["a.png"], layout="nih")
    assert str(tmp_path / "b.png") in index.rows["path"].tolist()
    index = read(NIH, files=["a.png"], layout="nih", missing="drop")
    assert len(index) == 1 and "2 of 3 rows of list.csv were left out because their file is not there" in index.notes[0]


def test_a_file_that_two_rows_name_is_an_error(read):
    with pytest.raises(DataError, match=r"1 rows of .* name a file a second time, such as"):
        read(NIH + "elsewhere/b.png,Mass,0,3,40,M,PA\n", layout="nih")


@pytest.mark.real_data
def test_nih_really(real_data, tmp_path):
    folder = real_data / "nih-1000"
    index = load(str(folder / "Data_Entry_of_these.csv"), SourceOptions(cache=tmp_path, extra={"layout": "nih"}))
    present = dict(zip(index.classes, (index.states == PRESENT).sum(axis=0).tolist(), strict=True))
    assert (len(index), index.rows["patient"].nunique(), index.classes) == (1000, 264, FINDINGS)
    assert present["Effusion"] == 170 and present["Hernia"] == 9
    assert (index.rows["label"] == "No Finding").sum() == 499
    assert (index.rows["boxes"] != "").sum() == 9
    extra = {"layout": "nih", "missing": "drop"}
    whole = load(str(folder / "Data_Entry_2017_v2020.csv.gz"), SourceOptions(cache=tmp_path, extra=extra))
    assert (whole.states == index.states).all()
