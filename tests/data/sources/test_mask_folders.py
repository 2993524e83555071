"""Masks that lie in a folder of their own."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chestxray.data.sources import load_index
from chestxray.data.sources.mask_folders import absolute, with_masks
from chestxray.errors import ChestXrayError, DataError, InputError
from chestxray.recipe import Recipe

CLASSES = ("sick", "well")


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(path)
    return path


def rows(*paths, **columns):
    return pd.DataFrame({"path": [str(path) for path in paths]} | columns)


def test_masks_have_their_images_names_at_any_depth(tmp_path):
    first, second = image(tmp_path / "masks" / "a.png"), image(tmp_path / "masks" / "deeper" / "b.PNG")
    (tmp_path / "masks" / "notes.txt").write_text("not a mask")
    found = with_masks(rows("/x/b.jpeg", "/x/c.jpeg", "/y/a.dcm"), CLASSES, [str(tmp_path / "masks")])
    assert found["mask"].tolist() == [str(second), "", str(first)]


def test_masks_of_lungs_and_of_one_class_have_columns_of_their_own(tmp_path):
    lungs, sick = image(tmp_path / "l" / "a.png"), image(tmp_path / "s" / "a.png")
    given = [f"lungs={lungs.parent}", f"sick={sick.parent}"]
    found = with_masks(rows("/x/a.jpeg", "/x/b.jpeg", lung_mask=["/old.png", None]), CLASSES, given)
    assert found["lung_mask"].tolist() == [str(lungs), ""] and found["mask:sick"].tolist() == [str(sick), ""]
    assert "mask" not in found


def test_a_folder_whose_name_has_the_sign_is_a_folder(tmp_path):
    mask = image(tmp_path / "lungs=2" / "a.png")
    assert with_masks(rows("/x/a.jpeg"), CLASSES, [str(mask.parent)])["mask"].tolist() == [str(mask)]


@pytest.mark.parametrize(
    ("paths", "given", "error", "said"),
    [
        (["/x/a.jpeg"], "{0}/none", InputError, "masks must name a folder of PNG files"),
        (["/x/a.jpeg"], "", InputError, "masks must name a folder of PNG files.*Received: ''"),
        (["/x/a.jpeg"], "lungs=", InputError, "masks must name a folder of PNG files.*Received: 'lungs='"),
        (["/x/a.jpeg"], "={0}/m", InputError, "masks must name a folder of PNG files.*Received: '=/"),
        (["/x/a.jpeg"], "heart={0}/m", InputError, "must be of lungs or of a class of the data.*'heart'"),
        (["/x/c.jpeg"], "{0}/m", InputError, "No file of --masks has the name of an image.*c.png"),
        (["/x/a.jpeg", "/y/a.jpeg"], "{0}/m", DataError, "Several images have the name of the mask"),
        (["/x/a.jpeg"], "{0}/twice", DataError, "Two masks have the same name"),
    ],
)
def test_what_names_no_mask_is_said_in_a_line(tmp_path, monkeypatch, paths, given, error, said):
    image(tmp_path / "m" / "a.png")
    image(tmp_path / "twice" / "1" / "a.png")
    image(tmp_path / "twice" / "2" / "a.png")
    monkeypatch.chdir(tmp_path / "m")  # where no folder is named, it is not meant
    with pytest.raises(error, match=said) as raised:
        with_masks(rows(*paths), CLASSES, [absolute(given.format(tmp_path))])
    assert "\n" not in str(raised.value)


def test_a_recipe_gives_its_data_masks(tmp_path, monkeypatch):
    for name in CLASSES:
        image(tmp_path / "films" / name / f"{name}.png")
    mask = image(tmp_path / "outlines" / "sick.png")
    monkeypatch.chdir(tmp_path)
    index = load_index(Recipe(data=("folder:films",), masks=("outlines",)), tmp_path / "cache")
    assert dict(zip(index.rows["label"], index.rows["mask"], strict=True)) == {"sick": str(mask), "well": ""}
    with pytest.raises(ChestXrayError, match="checks of heat maps"):
        Recipe(data=("folder:films",), masks=("outlines",), map_checks="none")
