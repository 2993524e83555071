"""Folders of classes, with the traps of the public sets."""

import os

import pytest

import public_trees
from chestxray.data.sources.folder import load
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions


@pytest.fixture
def options(tmp_path):
    def make(**given):
        return SourceOptions(cache=tmp_path / "cache", **given)

    return make


def test_split_folders_of_any_usual_name_become_splits(tmp_path, options):
    for name in ("Train", "VALID", "testing"):
        public_trees.film(tmp_path / name / "a" / "1.png")
        public_trees.film(tmp_path / name / "b" / "1.png")
    index = load(str(tmp_path), options())
    assert set(index.rows["split"]) == {"train", "validation", "test"}
    assert index.classes == ("a", "b")


def test_a_nested_copy_is_left_out_by_name_and_a_shadow_always(tmp_path, options):
    root = public_trees.kermany(tmp_path) / "chest_xray"
    with pytest.raises(DataError, match=r"is in no split.*skip=NAME"):
        load(str(root), options())
    index = load(str(root), options(skip=("chest_xray",)))
    assert len(index) == 12
    assert index.notes == ("1 files below chest_xray are no images by their suffix and were passed over: 1 .db.",)
    assert len(load(str(root), options(extra={"skip": "nothing, chest_xray"}))) == 12
    # By path below the folder as well as by name.
    assert len(load(str(root), options(skip=("chest_xray", "train/NORMAL")))) == 9


def test_masks_are_no_rows_but_lung_masks(tmp_path, options):
    root = public_trees.covid_radiography(tmp_path) / "COVID-19_Radiography_Dataset"
    index = load(str(root), options())
    assert len(index) == 12
    assert not index.rows["path"].str.contains("/masks/").any()
    assert (index.rows["lung_mask"] == index.rows["path"].str.replace("/images/", "/masks/")).all()


def test_names_in_other_alphabets_with_spaces_and_any_case(tmp_path, options):
    index = load(str(public_trees.four_class(tmp_path)), options())
    assert len(index) == 12
    assert index.rows["path"].str.endswith("person 1 virüs 肺.PNG").sum() == 3


def test_links_in_a_circle_end(tmp_path, options):
    assert len(load(str(public_trees.circle(tmp_path)), options())) == 2


def test_a_folder_that_is_met_again_is_noted(tmp_path, options):
    for name in ("a/1.png", "b/1.png"):
        public_trees.film(tmp_path / name)
    (tmp_path / "b" / "more").symlink_to(tmp_path / "a")
    index = load(str(tmp_path), options())
    assert len(index) == 2
    assert any("1 folders" in note and "were not read again: b/more." in note for note in index.notes)


def test_images_in_formats_that_are_not_read_are_named(tmp_path, options):
    for name in ("a/1.png", "b/1.png", "b/2.jfif"):
        public_trees.film(tmp_path / name.replace("jfif", "jpg")).rename(tmp_path / name)
    for name in ("a/2.gif", "b/3.WEBP", "b/notes.txt"):
        (tmp_path / name).write_bytes(b"GIF89a")
    index = load(str(tmp_path), options())
    assert len(index) == 3
    assert index.notes == (
        f"1 files below {tmp_path.name} are no images by their suffix and were passed over: 1 .txt.",
        f"2 images below {tmp_path.name} are in formats that are not read and were left out: a/2.gif, b/3.WEBP.",
    )


def test_folders_that_cannot_be_listed_are_named_and_counted(tmp_path, options):
    for name in ("a/1.png", "b/1.png"):
        public_trees.film(tmp_path / name)
    public_trees.too_deep(tmp_path / "a")
    (note,) = load(str(tmp_path), options()).notes
    assert note.startswith("1 folders cannot be listed, and nothing in them was read: a/ddd")
    assert note.endswith("(File name too long).")
    # Where nothing of a class can be listed, the class would be missing.
    (tmp_path / "c").mkdir()
    public_trees.too_deep(tmp_path / "c")
    with pytest.raises(DataError, match=r"File name too long.*nothing else of its class.*'skip=c'"):
        load(str(tmp_path), options())
    assert load(str(tmp_path), options(extra={"skip": "c"})).classes == ("a", "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_folders_that_are_forbidden_are_named(tmp_path, options):
    for name in ("a/1.png", "a/closed/2.png", "b/images/1.png", "b/masks/1.png"):
        public_trees.film(tmp_path / name)
    closed = [tmp_path / "a" / "closed", tmp_path / "b" / "masks"]
    for folder in closed:
        folder.chmod(0)
    try:
        index = load(str(tmp_path), options())
    finally:
        for folder in closed:
            folder.chmod(0o755)
    assert len(index) == 2
    assert index.notes == (
        "2 folders cannot be listed, and nothing in them was read: a/closed (Permission denied), "
        "b/masks (Permission denied).",
    )


def test_a_link_to_images_elsewhere_is_followed(tmp_path, options):
    public_trees.film(tmp_path / "elsewhere" / "1.png")
    public_trees.film(tmp_path / "xrays" / "b" / "1.png")
    (tmp_path / "xrays" / "a").symlink_to(tmp_path / "elsewhere")
    assert load(str(tmp_path / "xrays"), options()).classes == ("a", "b")


def test_the_patient_pattern_sees_the_path_below_the_folder(tmp_path, options):
    public_trees.kermany(tmp_path)
    pattern = r"^(test/)?(?:.*/)?(person\d+|(?:NORMAL2-)?IM-\d+)"
    index = load(str(tmp_path / "chest_xray"), options(skip=("chest_xray",), patient_pattern=pattern))
    patients = set(index.rows["patient"])
    # The same number is another child in the test folder, and in the second series of normal films.
    assert {"person1", "test/-person1", "IM-0117", "NORMAL2-IM-0117"} <= patients
    straddling = index.rows.groupby("patient")["split"].nunique()
    assert (straddling == 1).all()


@pytest.mark.parametrize(
    ("pattern", "classes"),
    [(r"_([01])\.", ("0", "1")), (r"(?P<normal>_0\.)|(?P<tuberculosis>_1\.)", ("normal", "tuberculosis"))],
)
def test_the_class_can_be_in_the_name(tmp_path, options, pattern, classes):
    for name in ("images/MCUCXR_0001_0.png", "images/MCUCXR_0002_1.PNG", "masks/MCUCXR_0001_0.png"):
        public_trees.film(tmp_path / name)
    index = load(str(tmp_path), options(label_pattern=pattern))
    assert index.classes == classes
    assert index.rows["lung_mask"].tolist() == [str(tmp_path / "masks" / "MCUCXR_0001_0.png"), ""]


def test_a_label_pattern_that_does_not_fit_names_the_file(tmp_path, options):
    public_trees.film(tmp_path / "odd.png")
    with pytest.raises(DataError, match=r"finds no class in 'odd\.png'"):
        load(str(tmp_path), options(label_pattern=r"_([01])\."))


def test_what_cannot_be_used_is_said_in_one_line(tmp_path, options):
    public_trees.film(tmp_path / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png lies outside any class folder.*--label-pattern"):
        load(str(tmp_path), options())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="No images under"):
        load(str(tmp_path / "empty"), options())
    with pytest.raises(InputError, match="No folder ''"):
        load("", options())
    with pytest.raises(InputError, match="No folder"):
        load("~nobody-of-this-name/films", options())
    with pytest.raises(InputError, match="No folder"):
        load(str(tmp_path / ("x" * 300)), options())
    with pytest.raises(InputError, match="is no regular expression"):
        load(str(tmp_path), options(patient_pattern="("))
    with pytest.raises(InputError, match="must have a group"):
        load(str(tmp_path), options(label_pattern="x"))
