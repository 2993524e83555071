"""Tables with a row an image."""

import pytest

import public_trees
from chestxray.data.sources.manifest import load
from chestxray.errors import DataError, InputError
from chestxray.evaluation.evaluate import abnormal
from chestxray.evaluation.subgroups import groups
from chestxray.plugin import SourceOptions


@pytest.fixture
def read(tmp_path):
    """A function that writes a table beside two films and reads it as a manifest."""
    for name in ("a.png", "b.png", "inner/c.JPG"):
        public_trees.film(tmp_path / name)

    def inner(text, name="list.csv", patient_pattern=None, label_pattern=None, by=(), **extra):
        (tmp_path / name).write_text(text, encoding="utf-8")
        options = SourceOptions(
            cache=tmp_path, extra=extra, patient_pattern=patient_pattern, label_pattern=label_pattern, by=by
        )
        return load(str(tmp_path / name), options)

    return inner


def test_usual_headings_are_found_in_any_case(read, tmp_path):
    index = read("Patient ID,Finding Labels,Image Index,Split\n7,x,a.png,Training\n8,y,b.png,VAL\n")
    row = index.rows.iloc[0]
    assert (row["path"], row["label"], row["patient"], row["split"]) == (str(tmp_path / "a.png"), "x", "7", "train")
    assert index.rows["split"].tolist() == ["train", "validation"]
    assert index.name == "list"


@pytest.mark.parametrize("heading", ["Image_Path", "imagePath", "FILE NAME", "File-Name"])
def test_a_heading_is_found_whatever_its_spaces_and_underscores(read, heading):
    index = read(f"{heading},Finding_Labels,PatientID\na.png,x,7\nb.png,y,8\n")
    assert index.classes == ("x", "y")
    assert index.rows["patient"].tolist() == ["7", "8"]


def test_headings_can_be_named(read):
    text = "id,file,where,what,dx\n1,no.png,a.png,x,n\n2,no.png,b.png,y,m\n"
    index = read(text, path_column="where", label_column="DX", patient_column="id")
    assert index.classes == ("m", "n")
    assert index.rows["patient"].tolist() == ["1", "2"]
    with pytest.raises(InputError, match=r"has no column 'dxx' \(label_column\).*Did you mean dx.*Its headings"):
        read(text, label_column="dxx")


def test_a_path_without_suffix_is_the_file_of_that_name(read, tmp_path):
    index = read("path,label\na,x\nc,y\n", root=".").rows
    assert index["path"].tolist() == [str(tmp_path / "a.png"), str(tmp_path / "c")]
    index = read("path,label\ninner/c,y\na,x\n").rows
    assert str(tmp_path / "inner" / "c.JPG") in index["path"].tolist()


def test_rows_without_a_class_are_counted_and_left_out(read):
    index = read("path,label\na.png,x\nb.png, \n")
    assert len(index) == 1
    assert index.notes == ("1 of 2 rows of list.csv have no class and were left out.",)


def test_where_chooses_rows_and_says_so(read):
    text = "path,label,modality,view\na.png,x,X-ray,PA\nb.png,y,CT,PA\ninner/c.JPG,y,x-ray,L\n"
    index = read(text, where="modality=X-ray; view=PA|AP")
    assert index.rows["label"].tolist() == ["x"]
    assert len(index.notes) == 2
    with pytest.raises(DataError, match=r"No row of .* has modality=MR.*Found: CT, X-ray"):
        read(text, where="modality=MR")
    with pytest.raises(InputError, match="where must be COLUMN=VALUE"):
        read(text, where="modality")


def test_what_may_identify_a_patient_is_not_kept(read):
    text = "path,label,sex,view,notes,birthday\na.png,x,M,PA,fell ill in Rome,1970-01-01\n"
    assert list(read(text).rows.columns) == ["path", "label", "patient", "split", "source", "sex", "view"]
    assert "notes" in read(text, keep="notes").rows
    with pytest.raises(InputError, match="keep is for further columns"):
        read(text, keep="label")


def test_a_column_that_results_are_told_by_is_kept_without_being_named_again(read):
    text = (
        "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,Follow-up #,Note\n"
        "a.png,x,7,058Y, M ,0,ill\nb.png,y,8,413,F,1,\n"
    )
    columns = ["path", "label", "patient", "split", "source"]
    rows = read(text).rows
    assert list(rows) == [*columns, "sex", "age"]
    assert rows["sex"].tolist() == ["M", "F"]
    index = read(text, by=("age", "follow_up", "Patient ID", "dose"))
    assert list(index.rows) == [*columns, "sex", "age", "follow-up_#"]
    assert groups(index, "Patient Age").tolist() == ["40 to 64", "out of range"]
    assert groups(index, "Follow-up").tolist() == ["0", "1"]
    # Asked for by name they are kept beside what is told by.
    assert list(read(text, by=("age",), keep="Patient_Gender").rows) == [*columns, "sex", "age"]


def test_a_column_of_numbers_called_fold_is_no_official_split(read):
    text = "path,label,fold\na.png,x,0\nb.png,y,4\n"
    index = read(text)
    assert set(index.rows["split"]) == {""}
    assert index.notes == (
        "The column fold of list.csv holds numbers and no names of splits: it was not read as an official split.",
    )
    with pytest.raises(DataError, match=r"unknown splits in its column fold.*Received: 0, 4"):
        read(text, split_column="fold")
    assert set(read(text.replace("0", "train").replace("4", "test")).rows["split"]) == {"train", "test"}
    assert set(read("path,label,split\na.png,x,early\n", split_column="").rows["split"]) == {""}


CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,No Finding,Cardiomegaly,Pleural Effusion\n"
    "a.png,Male,61,Frontal,,1.0,-1.0\nb.png,Female,20,Frontal,1.0,0.0,\ninner/c.JPG,Male,90,Lateral,,-1.0,0.0\n"
)


def test_findings_in_columns_are_recognised(read):
    names = "No Finding, Cardiomegaly, Pleural Effusion"
    with pytest.raises(InputError, match=f"no column of the class but 3 of findings .*: {names}.*label_column=HEADING"):
        read(CHEXPERT)
    with pytest.raises(InputError, match=r"1 of 3 rows of list\.csv are -1, uncertain, in Cardiomegaly.*=drop"):
        read(CHEXPERT, label_column="cardiomegaly")
    index = read(CHEXPERT, label_column="Cardiomegaly", uncertain="drop")
    assert index.rows["label"].tolist() == ["Cardiomegaly", "no Cardiomegaly"]
    assert index.notes == (
        "1 of 3 rows of list.csv are uncertain (-1) in Cardiomegaly and were left out.",
        "The classes are Cardiomegaly (1 in its column of list.csv) and no Cardiomegaly (0).",
    )
    for meaning, label in (("positive", "Cardiomegaly"), ("negative", "no Cardiomegaly")):
        rows = read(CHEXPERT, label_column="Cardiomegaly", uncertain=meaning).rows
        assert rows["label"].tolist() == ["Cardiomegaly", "no Cardiomegaly", label]
    # An empty cell is a finding that nobody mentioned.
    index = read(CHEXPERT, label_column="Pleural Effusion", uncertain="positive")
    assert index.notes[0] == "1 of 3 rows of list.csv have no class and were left out."
    assert index.classes == ("Pleural Effusion", "no Pleural Effusion")
    assert index.classes[abnormal(index.classes)] == "Pleural Effusion"
    with pytest.raises(InputError, match=r"uncertain must be positive, negative or drop\. Received: 'yes'"):
        read(CHEXPERT, label_column="Cardiomegaly", uncertain="yes")
    with pytest.raises(InputError, match="uncertain is for a class column of 1, 0 and -1"):
        read(CHEXPERT, label_column="No Finding", uncertain="drop")


def test_numbers_in_a_column_of_the_class_stay_classes(read):
    assert read("path,label\na.png,0\nb.png,1\n").classes == ("0", "1")
    assert read("path,target\na.png,-1\nb.png,1\n").classes == ("-1", "1")
    three = "path,label\na.png,0\nb.png,1\ninner/c.JPG,-1\n"
    with pytest.raises(InputError, match="are -1, uncertain, in the class"):
        read(three)
    assert read(three, uncertain="negative").rows["label"].tolist() == ["0", "1", "0"]


def test_headings_with_signs_in_them(read):
    text = "path,label,a=b\na.png,x,1=2\nb.png,y,3\n"
    assert read(text, where="a=b=1=2").rows["label"].tolist() == ["x"]


def test_names_that_are_too_long_are_no_tracebacks(read, tmp_path):
    long = "x" * 300
    index = read(f"path,label\na.png,x\n{long}.png,y\n{long}/b,y\n")
    assert len(index) == 3
    with pytest.raises(DataError, match="None of the 1 files"):
        read(f"path,label\n{long}.png,y\n")
    with pytest.raises(InputError, match="No folder"):
        read("path,label\na.png,x\n", root=long)
    with pytest.raises(InputError, match=r"No manifest .*\(File name too long\)"):
        load(str(tmp_path / long), SourceOptions(cache=tmp_path))


def test_the_patient_pattern_is_searched_in_the_patient_column_else_in_the_path(read):
    text = "path,label,patientid\na.png,x,P-12a\nb.png,y,P-12b\n"
    assert set(read(text, patient_pattern=r"(P-\d+)").rows["patient"]) == {"P-12"}
    assert set(read("path,label\na.png,x\n", patient_pattern=r"(\w)\.").rows["patient"]) == {"a"}


def test_the_class_can_be_in_the_path(read):
    assert read("path\na.png\nb.png\n", label_pattern="([ab])").classes == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no table"),
        ("path,label\n", "has no rows"),
        ("path,label\na.png,x,1,2\nb.png,y,3,4\n", "is no table"),
        ("path,label\n,x\n", "1 rows of .* have no path"),
        ("path,label\na.png,x\na.png,y\n", r"name a file a second time, such as .*a\.png"),
        ("path,label\na.png,\n", "No row of .* has a class"),
        ("path,label,split\na.png,x,early\n", "unknown splits.*Received: early"),
        ("path,label,split\na.png,x,train\nb.png,x,\n", "1 of 2 rows of .* have no split"),
        ("path,label\nz.png,x\n", r"None of the 1 files of .* exists.*root=DIR"),
    ],
)
def test_a_table_that_is_wrong_is_said_in_one_line(read, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_a_missing_column_lists_the_headings(read):
    with pytest.raises(InputError, match=r"no column of the label.*label_column=HEADING.*Its headings: path, dx"):
        read("path,dx\na.png,x\n")


def test_tabs_a_byte_order_mark_and_latin_1(tmp_path, read):
    assert len(read("path\tlabel\na.png\tx\n", name="list.tsv")) == 1
    assert len(read("\ufeffpath,label\na.png,x\n")) == 1
    (tmp_path / "old.csv").write_bytes("path,label,notes\na.png,x,39 °C\n".encode("latin-1"))
    index = load(str(tmp_path / "old.csv"), SourceOptions(cache=tmp_path))
    assert index.notes == ("old.csv is not UTF-8 and was read as Latin-1.",)


def test_masks_are_relative_to_the_same_folder(read, tmp_path):
    index = read("path,label,lung_mask\na.png,x,m/a.png\nb.png,y,\n")
    assert index.rows["lung_mask"].tolist() == [str(tmp_path / "m" / "a.png"), ""]


@pytest.mark.real_data
def test_figure1(real_data):
    extra = {"path_column": "patientid", "root": "images"}
    file = real_data / "figure1-covid" / "metadata.csv"
    options = SourceOptions(cache=real_data, patient_pattern=r"(COVID-\d+)", extra=extra)
    index = load(str(file), options)
    assert len(index) == 40
    assert "15 of 55 rows of metadata.csv have no class and were left out." in index.notes
    assert index.rows["patient"].nunique() == 36
    assert index.rows["label"].value_counts().to_dict() == {"COVID-19": 35, "No finding": 3, "Pneumonia": 2}
