"""Tables with a row an image."""

import pytest

import public_trees
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions
from chestxray.sources.manifest import load


@pytest.fixture
def read(tmp_path):
    """A function that writes a table beside two films and reads it as a manifest."""
    for name in ("a.png", "b.png", "inner/c.JPG"):
        public_trees.film(tmp_path / name)

    def inner(text, name="list.csv", patient_pattern=None, label_pattern=None, **extra):
        (tmp_path / name).write_text(text, encoding="utf-8")
        options = SourceOptions(
            cache=tmp_path, extra=extra, patient_pattern=patient_pattern, label_pattern=label_pattern
        )
        return load(str(tmp_path / name), options)

    return inner


def test_usual_headings_are_found_in_any_case(read, tmp_path):
    index = read("Patient ID,Finding Labels,Image Index,Split\n7,x,a.png,Training\n8,y,b.png,VAL\n")
    row = index.rows.iloc[0]
    assert (row["path"], row["label"], row["patient"], row["split"]) == (str(tmp_path / "a.png"), "x", "7", "train")
    assert index.rows["split"].tolist() == ["train", "validation"]
    assert index.name == "list"


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
