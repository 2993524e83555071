"""Data that published weights were trained on are recognised, also under another name or other labels."""

import pytest

from chestxray.data.catalogue import catalogue
from chestxray.data.sources.known_sets import seen_before
from chestxray.recipe import Recipe


@pytest.mark.parametrize(
    ("recipe", "trained_on", "named"),
    [
        (Recipe(data=("nih",)), ("chexpert", "nih"), "nih"),
        (Recipe(data=("rsna",)), ("nih",), "rsna (films of nih)"),
        (Recipe(data=("nih",)), ("rsna",), "nih"),
        (Recipe(data=("siim",)), ("padchest", "rsna"), "siim (films of nih)"),
        (Recipe(data=("kaggle:nih-chest-xrays/data",)), ("nih",), "nih"),
        (Recipe(data=("manifest:a.csv",), data_option=("layout=chexpert",)), ("chexpert",), "chexpert"),
        (Recipe(data=("folder:here",), test_data=("padchest",)), ("openi", "padchest"), "padchest"),
        (Recipe(data=("nih", "vindr")), ("vindr", "nih"), "nih and vindr"),
    ],
)
def test_films_that_the_weights_have_seen_are_named(recipe, trained_on, named):
    sentence = seen_before(recipe, trained_on)
    assert sentence.startswith(f"This encoder was trained on {named}, which are among these data")
    assert ", ".join(trained_on) in sentence


@pytest.mark.parametrize(
    ("recipe", "trained_on"),
    [
        (Recipe(data=("nih",)), ()),
        (Recipe(data=("nih",)), ("chexpert", "openi")),
        (Recipe(data=("folder:nih",)), ("nih",)),
        (Recipe(data=("manifest:a.csv",), data_option=("layout=chexpert",)), ("nih",)),
        (Recipe(data=("manifest:a.csv",)), ("kermany",)),
    ],
)
def test_others_are_not(recipe, trained_on):
    assert seen_before(recipe, trained_on) == ""


def test_the_films_of_a_set_are_of_one_that_has_its_own():
    entries = catalogue().entries
    for entry in entries.values():
        assert not entry.films_of or entries[entry.films_of].films_of == "", entry.name
