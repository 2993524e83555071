"""Layouts of public sets with a row a reader, a box or an outline, or a list of labels."""

import json

import pytest

import public_trees
from chestxray.data.findings import ABSENT, PRESENT, UNCERTAIN, UNKNOWN
from chestxray.data.sources.label_layouts.outlined import OTHER, around
from chestxray.data.sources.manifest import load
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions


@pytest.fixture
def read(tmp_path):
    """A function that writes a table beside the images a, b and c, and reads it as a manifest."""
    for name in ("a", "b", "c"):
        public_trees.film(tmp_path / "images" / f"{name}.png")

    def inner(text, name="list.csv", **extra):
        (tmp_path / name).write_text(text)
        return load(str(tmp_path / name), SourceOptions(cache=tmp_path, extra=extra))

    return inner


def boxes(index):
    return [json.loads(text) if text else [] for text in index.rows["boxes"]]


VINDR = (
    "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
    "a,Nodule/Mass,8,R1,10,20,30,60\na,Nodule/Mass,8,R1,50,50,60,60\na,Nodule/Mass,8,R2,11,21,31,61\n"
    "a,Cardiomegaly,3,R3,1,2,3,4\nb,No finding,14,R1,,,,\nb,No finding,14,R2,,,,\nb,Cardiomegaly,3,R3,1,1,2,2\n"
    "c,Cardiomegaly,3,R1,1,1,2,2\nc,No finding,14,R2,,,,\n"
)


def test_vindr_goes_by_the_majority_of_readers_or_by_any(read):
    index = read(VINDR, layout="vindr")
    assert index.classes == ("Cardiomegaly", "Nodule/Mass")
    # Two of three; one of three; and one of two, which is no majority either way.
    assert index.states.tolist() == [[ABSENT, PRESENT], [ABSENT, ABSENT], [UNCERTAIN, ABSENT]]
    assert "3 of 3 images have several readers" in index.notes[0]
    assert read(VINDR, layout="vindr", readers="any").states.tolist() == [[1, 1], [1, 0], [1, 0]]
    first = {"finding": "Nodule/Mass", "x": 10.0, "y": 20.0, "width": 20.0, "height": 40.0, "of": None}
    assert boxes(index)[0][0] == first and [len(some) for some in boxes(index)] == [4, 1, 1]
    with pytest.raises(InputError, match="readers must be majority or any"):
        read(VINDR, layout="vindr", readers="all")


def test_vindr_as_physionet_has_it_gives_the_same(read, tmp_path):
    (tmp_path / "annotations_train.csv").write_text(VINDR)
    text = (
        "image_id,rad_id,Cardiomegaly,Nodule/Mass,No finding\na,R1,0,1,0\na,R2,0,1,0\na,R3,1,0,0\n"
        "b,R1,0,0,1\nb,R2,0,0,1\nb,R3,1,0,0\nc,R1,1,0,0\nc,R2,0,0,1\n"
    )
    index, other = read(text, "image_labels_train.csv", layout="vindr"), read(VINDR, layout="vindr")
    assert index.classes == other.classes and (index.states == other.states).all()
    assert boxes(index) == boxes(other)


def test_rsna_has_boxes_and_three_classes(read, tmp_path):
    text = "patientId,x,y,width,height,Target\na,264,152,213,379,1\na,562,152,256,453,1\nb,,,,,0\nc,,,,,0\n"
    index = read(text, layout="rsna")
    assert index.classes == ("Lung Opacity",) and index.states[:, 0].tolist() == [PRESENT, ABSENT, ABSENT]
    assert boxes(index)[0][1] == {
        "finding": "Lung Opacity", "x": 562.0, "y": 152.0, "width": 256.0, "height": 453.0, "of": [1024, 1024],
    }  # fmt: skip
    assert set(index.rows["patient"]) == {""}
    (tmp_path / "stage_2_detailed_class_info.csv").write_text(
        "patientId,class\na,Lung Opacity\na,Lung Opacity\nb,No Lung Opacity / Not Normal\nc,Normal\n"
    )
    index = read(text, layout="rsna")
    assert index.classes == ("Lung Opacity", OTHER) and index.states[:, 1].tolist() == [UNKNOWN, PRESENT, ABSENT]


def test_siim_has_run_lengths(read):
    # Columns 3 and 4 from row 5, 10 pixels each, and 2 pixels further right.
    runs = f"{3 * 1024 + 5} 10 {1024 - 10} 10 {1024 * 5} 2"
    index = read(f"ImageId, EncodedPixels\na, {runs}\nb, -1\na,0 4\n", layout="siim")
    assert index.classes == ("Pneumothorax",) and index.states[:, 0].tolist() == [PRESENT, ABSENT]
    assert boxes(index)[0][0] == {
        "finding": "Pneumothorax", "x": 3.0, "y": 5.0, "width": 7.0, "height": 12.0, "of": [1024, 1024],
    }  # fmt: skip
    assert len(boxes(index)[0]) == 2
    # Over the end of a column.
    assert around("8 5", (10, 10)) == (0, 0, 2, 10)
    for wrong in ("1 2 3", "a b", "99 2"):
        with pytest.raises(DataError, match="Run lengths must"):
            around(wrong, (10, 10))


def test_tbx11k_has_kinds_of_tuberculosis(read):
    head = "fname,image_height,image_width,source,bbox,target,tb_type,image_type\n"
    box = "\"{'xmin': 41.1, 'ymin': 142.6, 'width': 39.7, 'height': 28.5}\""
    index = read(
        head + f"a.png,512,512,train,{box},tb,latent_tb,tb\na.png,512,512,train,{box},tb,active_tb,tb\n"
        "b.png,512,512,train,none,no_tb,none,sick_but_no_tb\nc.png,512,512,val,none,no_tb,none,healthy\n",
        layout="tbx11k",
    )
    assert index.classes == ("Tuberculosis", "Active Tuberculosis", "Latent Tuberculosis", OTHER)
    assert index.states.tolist() == [[1, 1, 1, UNKNOWN], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert [one["finding"] for one in boxes(index)[0]] == ["Latent Tuberculosis", "Active Tuberculosis"]
    assert boxes(index)[0][0]["of"] == [512, 512]


def test_padchest_lists_labels_and_a_kind_is_its_finding_too(read):
    index = read(
        "ImageID,StudyDate_DICOM,PatientID,PatientBirth,PatientSex_DICOM,Projection,Labels\n"
        "a.png,20140915,P1,1954,F,PA,\"['loculated pleural effusion', ' nodule', '']\"\n"
        "b.png,20140915,P1,1954.0,F,L,\"['normal']\"\n"
        "c.png,20150101,P2,,M,PA,\"['exclude', 'nodule']\"\n",
        layout="padchest",
    )
    assert index.classes == ("loculated pleural effusion", "nodule", "pleural effusion")
    assert index.states.tolist() == [[1, 1, 1], [0, 0, 0], [UNKNOWN] * 3]
    assert index.rows["age"].tolist() == ["60", "60", ""]
    assert index.rows[["patient", "sex", "view"]].iloc[1].tolist() == ["P1", "F", "L"]


def test_an_option_of_another_layout_is_an_error(read):
    with pytest.raises(InputError, match=r"The option readers is for vindr\. Received with it: rsna"):
        read("patientId,x,y,width,height,Target\n", layout="rsna", readers="any")
    with pytest.raises(InputError, match="readers is for tables of findings: say how they are read with layout"):
        read("path,label\na,x\nb,y\n", readers="any")
