"""What the command line says of data, where addresses and folders have signs of their own in them."""

import os

import pytest

import public_trees
from chestxray.data.sources import absolute, load_index, parse
from chestxray.errors import InputError
from chestxray.recipe import Recipe


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a set of the catalogue, a folder of classes and a table in it."""
    public_trees.kermany(tmp_path / "x=1" / "set")
    for name in ("films:2/a/1.png", "films:2/b/1.png", "films/1.png", "films/2.png"):
        public_trees.film(tmp_path / name)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "list.csv").write_text("path,label\n1.png,a\n2.png,b\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("named", ["", "kermany="])
@pytest.mark.parametrize("whole", [True, False])
def test_a_copy_may_have_an_equals_sign_in_its_path(here, named, whole):
    folder = here / "x=1" / "set"
    recipe = Recipe(data="kermany", path=f"{named}{folder if whole else 'x=1/set'}")
    assert absolute(recipe).path == (f"{named}{folder}",)
    assert len(load_index(recipe, here / "cache")) == len(load_index(absolute(recipe), here / "cache")) == 12


def test_a_copy_of_one_of_several_sets(here):
    public_trees.four_class(here / "y=2")
    recipe = Recipe(data=("kermany", "four-class"), path=("kermany=x=1/set", "four-class=y=2"))
    assert absolute(recipe).path == (f"kermany={here / 'x=1' / 'set'}", f"four-class={here / 'y=2'}")
    assert len(load_index(recipe, here / "cache")) == 24
    with pytest.raises(InputError, match=r"path must say which set.*\(kermany, four-class\)\. Received: .*x=1"):
        load_index(recipe.replace(path=("x=1/set",)), here / "cache")


@pytest.mark.parametrize(
    "text", [r"C:\films", "c:/films", "films:2", "./films:2", "/data/films:2", r"\\server\films:2", "tables/list.csv"]
)
def test_a_path_is_no_kind_of_data(here, text):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"data must say how to read it. For {text!r}: folder:{text}, manifest:{text}")


def test_other_addresses(here):
    assert parse(r"folder:C:\films").address == r"C:\films"
    assert load_index(Recipe(data="folder:films:2"), here).classes == ("a", "b")
    with pytest.raises(InputError, match="not fetched from a web address"):
        parse("https://example.org/films.zip")
    for text in ("phantom", "phantom:", "folder:", "folder:nowhere", "hf:films", "tfds:films", "kaggle:films"):
        expected = f"hf:{here / 'films'}" if text == "hf:films" else text
        assert absolute(Recipe(data=text)).data == (expected,)
    with pytest.raises(InputError, match="No folder '~nobody-of-this-name'"):
        load_index(Recipe(data="folder:~nobody-of-this-name"), here)
    with pytest.raises(InputError, match="Unknown data"):
        parse("x" * 300)


def test_options_go_with_a_set_whose_path_becomes_absolute(here):
    recipe = Recipe(data="folder:films:2", data_option="folder:films:2:skip=b")
    assert absolute(recipe).data_option == (f"folder:{here / 'films:2'}:skip=b",)
    assert load_index(recipe, here).classes == load_index(absolute(recipe), here).classes == ("a",)
    # Of two addresses the longer one is meant.
    public_trees.film(here / "films" / "a" / "1.png")
    (here / "films" / "1.png").unlink()
    (here / "films" / "2.png").unlink()
    both = Recipe(data=("folder:films", "folder:films:2"), data_option="folder:films:2:skip=b")
    assert load_index(both, here).rows["source"].value_counts().to_dict() == {"films": 1, "films:2": 1}


def test_root_is_relative_to_the_current_folder_as_every_path_is(here, monkeypatch):
    recipe = Recipe(data="manifest:tables/list.csv", data_option="root=films")
    assert load_index(recipe, here).rows["path"].tolist() == [str(here / "films" / name) for name in ("1.png", "2.png")]
    made = absolute(recipe)
    assert made.data_option == (f"root={here / 'films'}",)
    # The recipe is repeated from elsewhere.
    monkeypatch.chdir(os.sep)
    assert len(load_index(made, here)) == 2
    monkeypatch.chdir(here / "tables")
    assert len(load_index(Recipe(data="manifest:list.csv", data_option="root=../films"), here)) == 2
    # What lies beside the manifest and not here is no silent way out, but it is named.
    monkeypatch.chdir(here)
    (here / "tables" / "inner").mkdir()
    with pytest.raises(InputError, match=r"No folder .*inner \(root.*beside the manifest: .*root=.*tables/inner"):
        load_index(recipe.replace(data_option=("root=inner",)), here)


def test_the_root_that_the_catalogue_knows_is_within_the_set(here):
    root = public_trees.covid_chestxray(here / "covid")
    index = load_index(Recipe(data="covid-chestxray", path=str(root)), here / "cache")
    assert index.rows["path"].str.contains("/images/").all()


def test_a_folder_of_prepared_sets_is_relative_to_the_current_folder(here):
    recipe = Recipe(data="tfds:pneumonia_mnist", data_option="data_dir=films")
    assert absolute(recipe).data_option == (f"data_dir={here / 'films'}",)
