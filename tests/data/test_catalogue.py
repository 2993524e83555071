"""The catalogue is complete, and reads as its sets are laid out."""

import re

import pytest

import public_trees
from chestxray import registry
from chestxray.data.catalogue import at, catalogue
from chestxray.data.label_mapping import alias_keys, key
from chestxray.data.sources import load_index
from chestxray.errors import InputError
from chestxray.recipe import Recipe

ENTRIES = catalogue().entries

#: What a tree of each set holds: (classes, images, official splits, patients).
TREES = {
    "kermany": (public_trees.kermany, ("normal", "pneumonia"), 12, {"train", "validation", "test"}, 11),
    "kermany-hf": (public_trees.kermany, ("normal", "pneumonia"), 12, {"train", "validation", "test"}, 11),
    "keremberke": (public_trees.roboflow, ("normal", "pneumonia"), 10, {"train", "validation", "test"}, 8),
    "covid-radiography": (
        public_trees.covid_radiography, ("covid19", "lung_opacity", "normal", "viral_pneumonia"), 12, {""}, 0,
    ),
    "four-class": (
        public_trees.four_class, ("covid19", "normal", "pneumonia", "tuberculosis"), 12,
        {"train", "validation", "test"}, 0,
    ),
    "covid-chestxray": (
        public_trees.covid_chestxray, ("bacterial_pneumonia", "covid19", "normal", "viral_pneumonia"), 6, {""}, 5,
    ),
    "covid-xray-10000": (public_trees.covid_xray_10000, ("covid19", "normal"), 6, {""}, 0),
    "covid19-xray-train-test": (public_trees.covid19_train_test, ("normal", "pneumonia"), 4, {"train", "test"}, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_complete(name):
    entry = ENTRIES[name]
    kind, _, address = entry.address.partition(":")
    assert registry.find(registry.SOURCES, kind)
    assert address
    assert all((entry.title, entry.licence, entry.citation, entry.homepage, entry.defects.endswith(".")))
    assert entry.megabytes > 0
    assert entry.images > 0
    common = catalogue().aliases if entry.task == "classes" else catalogue().findings
    known = alias_keys(common, entry.aliases)
    of_own = {key(label): label for label in entry.classes} if entry.task == "findings" else {}
    assert all((of_own | known)[key(label)] == label for label in entry.classes)
    if entry.patient_pattern:
        assert re.compile(entry.patient_pattern).groups


def test_no_spelling_stands_for_two_classes():
    for table in (catalogue().aliases, catalogue().findings):
        owners = {}
        for name, spellings in table.items():
            for spelling in (name, *spellings):
                assert owners.setdefault(key(spelling), name) == name


@pytest.mark.parametrize("name", TREES)
def test_a_copy_on_disk_is_read_as_the_set_is_laid_out(name, tmp_path):
    grow, classes, images, splits, patients = TREES[name]
    root = grow(tmp_path / "copy of it")
    index = load_index(Recipe(data=name, path=str(root)), tmp_path / "cache")
    assert index.classes == classes
    assert len(index) == images
    assert set(index.rows["split"]) == splits
    assert index.rows["patient"].replace("", None).nunique() == patients
    assert set(index.rows["source"]) == {name}
    assert (index.name, index.licence, index.citation) == (name, ENTRIES[name].licence, ENTRIES[name].citation)
    if ENTRIES[name].official_split:
        assert splits > {"train"}
        known = index.rows[index.rows["patient"] != ""]
        assert name == "keremberke" or (known.groupby("patient")["split"].nunique() == 1).all()


def test_a_copy_may_be_the_inner_folder(tmp_path):
    root = public_trees.kermany(tmp_path)
    index = load_index(Recipe(data="kermany", path=str(root / "chest_xray")), tmp_path / "cache")
    assert len(index) == 12


def test_an_early_flat_version_is_read_too(tmp_path):
    root = public_trees.covid_radiography(tmp_path, flat=True)
    index = load_index(Recipe(data="covid-radiography", path=str(root)), tmp_path / "cache")
    assert len(index) == 12
    assert "lung_mask" not in index.rows


def test_the_early_version_that_was_published_on_is_read_by_its_recipe(tmp_path):
    """Three classes under other names, and no lung opacities to drop."""
    for label in ("COVID-19", "NORMAL", "Viral Pneumonia"):
        for n in range(3):
            public_trees.film(tmp_path / "COVID-19 Radiography Database" / label / f"{label} ({n}).png")
    recipe = Recipe.read("seven-models").replace(path=str(tmp_path), drop=())
    assert load_index(recipe, tmp_path / "cache").counts().sum(axis=1).to_dict() == {
        "covid19": 3, "normal": 3, "viral_pneumonia": 3,
    }  # fmt: skip


def test_what_covid_chestxray_leaves_out_is_noted(tmp_path):
    root = public_trees.covid_chestxray(tmp_path)
    notes = " ".join(load_index(Recipe(data="covid-chestxray", path=str(root)), tmp_path / "cache").notes)
    assert "1 of 9 rows of metadata.csv were left out by where modality=X-ray" in notes
    assert "1 of 8 rows of metadata.csv have no class" in notes
    assert "1 images of covid-chestxray were left out because their class was dropped: ARDS" in notes
    with pytest.raises(InputError, match=r"no copy of covid-chestxray: there is no metadata\.csv"):
        load_index(Recipe(data="covid-chestxray", path=str(root / "images")), tmp_path / "cache")


def test_finer_classes_are_used_where_they_are_asked_for(tmp_path):
    root = str(public_trees.kermany(tmp_path))
    recipe = Recipe(data="kermany", path=root, classes="normal,bacterial_pneumonia,viral_pneumonia")
    index = load_index(recipe, tmp_path / "cache")
    assert index.rows["label"].value_counts().to_dict() == {
        "normal": 5, "viral_pneumonia": 4, "bacterial_pneumonia": 3,
    }  # fmt: skip
    joined = Recipe(data="kermany", path=root, map="viral_pneumonia=pneumonia")
    assert load_index(joined, tmp_path / "cache").classes == ("normal", "pneumonia")


def test_an_address_is_found_whatever_its_version():
    assert at("kaggle:paultimothymooney/chest-xray-pneumonia").name == "kermany"
    assert at("kaggle:paultimothymooney/chest-xray-pneumonia/versions/1").name == "kermany"
    assert at("kaggle:nobody/nothing") is None


@pytest.mark.real_data
def test_kermany_really(real_data, tmp_path):
    index = load_index(Recipe(data="kermany", path=str(real_data / "kermany")), tmp_path)
    counts = index.counts()
    assert counts.loc["normal"].to_dict() == {"train": 1341, "validation": 8, "test": 234}
    assert counts.loc["pneumonia"].to_dict() == {"train": 3875, "validation": 8, "test": 390}
    assert (index.rows["patient"] != "").all()
    assert (index.rows.groupby("patient")["split"].nunique() == 1).all()


@pytest.mark.real_data
def test_four_class_really(real_data, tmp_path):
    index = load_index(Recipe(data="four-class", path=str(real_data / "four-class")), tmp_path)
    assert index.classes == ("covid19", "normal", "tuberculosis", "viral_pneumonia")
    assert (index.counts()["train"] == 150).all()


@pytest.mark.real_data
def test_pneumoniamnist_really(real_data, tmp_path):
    index = load_index(Recipe(data="pneumoniamnist", path=str(real_data / "pneumoniamnist.npz")), tmp_path)
    assert index.counts()["test"].to_dict() == {"normal": 234, "pneumonia": 390}


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.on_disk_only])
def test_a_set_that_must_be_applied_for_says_where(name, tmp_path):
    with pytest.raises(InputError, match=r"from a copy on disk only\. Apply for it at https://") as caught:
        load_index(Recipe(data=name), tmp_path)
    assert ENTRIES[name].access in str(caught.value) and "--path DIR" in str(caught.value)


def test_nih_is_read_from_a_copy_with_its_lists_and_common_names(tmp_path):
    for name in ("images_001/images/a.png", "images_002/images/b.png"):
        public_trees.film(tmp_path / name)
    (tmp_path / "Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Patient ID,View Position\na.png,Pleural_Thickening,1,PA\nb.png,No Finding,2,AP\n"
    )
    (tmp_path / "train_val_list.txt").write_text("a.png\n")
    (tmp_path / "test_list.txt").write_text("b.png\n")
    index = load_index(Recipe(data="nih", path=str(tmp_path)), tmp_path / "cache")
    assert index.classes == ENTRIES["nih"].classes and index.name == "nih"
    assert index.rows[["label", "split", "source"]].values.tolist() == [
        ["Pleural Thickening", "train", "nih"], ["No Finding", "test", "nih"],
    ]  # fmt: skip
