"""`cx.load_data`: data looked at as a run sees them."""

import dataclasses
import typing

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

import chestxray as cx
from chestxray import recipe as recipes
from chestxray.api import fields
from chestxray.errors import InputError, LeakError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    for label, grey in (("NORMAL", 60), ("PNEUMONIA", 160)):
        (place / label).mkdir()
        for i in range(24):
            film = np.clip(rng.normal(grey, 30, (40, 32)), 0, 255).astype(np.uint8)
            Image.fromarray(film).save(place / label / f"{label[0]}{i // 2:02}_{i}.png")
    return place


@pytest.fixture
def films(folder):
    return cx.load_data(f"folder:{folder}", patient_pattern=r"(\w\d+)_", image_size=16)


def test_rows_are_those_of_the_source(films, folder):
    assert len(films) == len(films.rows) == 48
    assert films.classes == ("NORMAL", "PNEUMONIA")
    assert films.rows["patient"].nunique() == 24
    assert set(films.rows["path"]) == {str(path) for path in folder.glob("*/*.png")}
    assert films.counts().loc["NORMAL"].to_dict() == {"no split": 24}
    page = films._repr_html_()
    assert "48 images of 24 patients" in page and "<td>24</td>" in page


def test_a_picture_of_it(films):
    figure = films.show(3)
    assert isinstance(figure, Figure)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["NORMAL", "PNEUMONIA"]
    assert sum(len(ax.images) for ax in figure.axes) == 6
    assert figure._repr_png_().startswith(b"\x89PNG")
    (ax,) = films.show(1, label="PNEUMONIA").axes
    brightest = np.asarray(ax.images[0].get_array()).mean()
    assert 140 < brightest < 180
    assert len(films.show(50, label="NORMAL").axes) == 24, "as many as there are"
    tested = films.split().rows
    assert len(films.show(50, label="NORMAL", split="test").axes) == len(
        tested[(tested["split"] == "test") & (tested["label"] == "NORMAL")]
    )


def test_what_cannot_be_read_is_shown_by_another(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(4):
            Image.fromarray(np.full((20, 20), 40 * i, np.uint8)).save(tmp_path / label / f"{i}.png")
    (tmp_path / "a" / "0.png").write_text("no film")
    data = cx.load_data(f"folder:{tmp_path}", image_size=8)
    assert sum(len(ax.images) for ax in data.show(2).axes) == 4
    for path in (tmp_path / "b").iterdir():
        path.write_text("no film")
    with pytest.raises(InputError, match="No image of b can be read"):
        data.show(label="b")


def test_leaks_are_told_by_the_audit_and_stop_the_split(folder, tmp_path):
    for i, path in enumerate(sorted(folder.glob("*/*.png"))):
        place = tmp_path / ("train", "test")[i % 4 == 0] / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    copied = next((tmp_path / "train" / "NORMAL").iterdir())
    (tmp_path / "test" / "NORMAL" / "again.png").write_bytes(copied.read_bytes())
    found = cx.load_data(f"folder:{tmp_path}", image_size=16)
    audit = found.audit()
    assert audit.leaks and audit.on_leak == "stop"
    assert (len(audit.copies_across_splits), len(audit.copies_across_splits[0])) == (1, 2)
    assert audit.to_frame()["severity"].iloc[0] == "critical"
    files = audit.files_to_frame()
    assert set(files.loc[files["finding"] == "copies across splits", "path"]) == set(audit.copies_across_splits[0])
    assert "copies across splits" in audit._repr_html_()
    with pytest.raises(LeakError, match="The splits leak"):
        found.split()
    dropped = cx.load_data(f"folder:{tmp_path}", image_size=16, on_leak="drop")
    rows = dropped.split().rows
    assert (
        rows.loc[rows["audit"].str.startswith("dropped"), "path"].tolist()
        == [path for path, _ in dropped.audit().dropped]
        == [str(copied)]
    )


def test_several_sets_have_a_table_of_sources(films, folder):
    both = cx.load_data([f"folder:{folder}", "phantom:images=8,size=32,classes=NORMAL+PNEUMONIA"], image_size=16)
    assert "Images by class and source" in both._repr_html_()
    assert "Images by class and source" not in films._repr_html_() == films.index._repr_html_()


def test_what_a_class_or_a_set_is_called_is_not_run_in_a_notebook(tmp_path):
    for label in ("<img src=x onerror=alert(1)>", "b"):
        (tmp_path / "<b>set" / label).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((9, 9), 40 * i, np.uint8)).save(tmp_path / "<b>set" / label / f"{i}.png")
    data = cx.load_data(f"folder:{tmp_path / '<b>set'}", image_size=8)
    page = data._repr_html_()
    assert "<img" not in page and "<b>set" not in page
    assert "&lt;img src=x" in page


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"patient_patern": "x"}, "'patient_patern' is no field of a recipe's data.*patient_pattern"),
        ({"epochs": 3}, "'epochs' is no field of a recipe's data"),
        ({"image_size": "wide"}, "image_size must be N or HEIGHTxWIDTH"),
        ({"data": []}, "data must name at least one"),
        ({"data": 7}, "data must be a list of strings. Received: 7"),
        ({"data": "nothing-known"}, "nothing-known"),
        ({"test_share": 3}, "test_share must be from 0.01 to 0.8"),
    ],
)
def test_a_mistake_is_told_in_a_line(folder, given, told):
    with pytest.raises(InputError, match=told) as caught:
        cx.load_data(**({"data": f"folder:{folder}"} | given))
    assert "\n" not in str(caught.value)


def test_mistakes_of_what_to_show(films, tmp_path):
    for given, told in (
        ({"n": 0}, "n must be a whole number from 1 to 50. Received: 0"),
        ({"n": 2.5}, "Received: 2.5"),
        ({"label": "NORMA"}, "Unknown label 'NORMA'"),
        ({"split": "valid"}, "Unknown split 'valid'.*Allowed: train, validation, test"),
    ):
        with pytest.raises(InputError, match=told):
            films.show(**given)
    with pytest.raises(InputError, match="No folder"):
        cx.load_data(f"folder:{tmp_path / 'nowhere'}")


def test_keywords_are_the_fields_of_a_recipe():
    names = [field.name for field in dataclasses.fields(recipes.Recipe)]
    assert sorted(typing.get_type_hints(fields.RecipeFields)) == sorted(names)
    own, hints = typing.get_type_hints(recipes.Recipe), typing.get_type_hints(fields.RecipeFields)
    loose = {"image_size"} | {name for name, kind in own.items() if typing.get_origin(kind) is tuple}
    assert {name: hints[name] for name in names if name not in loose} == {
        name: own[name] for name in names if name not in loose
    }
    assert fields.OF_DATA[0] == "test_data" and "model" not in fields.OF_DATA


def test_it_is_frozen(films):
    with pytest.raises(dataclasses.FrozenInstanceError):
        films.index = None
    assert isinstance(films.rows, pd.DataFrame)
