"""Common names, joining and merging of findings, through what a recipe says."""

import numpy as np
import pytest

import public_trees
from chestxray.data.findings import ABSENT, PRESENT, UNCERTAIN, UNKNOWN
from chestxray.data.sources import load_index
from chestxray.errors import DataError, InputError
from chestxray.recipe import Recipe


@pytest.fixture
def sets(tmp_path):
    """Two sets that know different findings, and one of classes, as KIND:ADDRESS."""
    for name in ("one/a.png", "one/b.png", "two/c.png", "two/d.png", "two/e.png", "three/f.png", "three/g.png"):
        public_trees.film(tmp_path / name)
    (tmp_path / "one/one.csv").write_text("path,Effusion,Mass,view\na.png,1,0,PA\nb.png,0,1,PA\n")
    (tmp_path / "two/two.csv").write_text(
        "path,Pleural effusion,Edema,Rare,view\nc.png,1,-1,,PA\nd.png,,1,0,L\ne.png,,,0,PA\n"
    )
    (tmp_path / "three/three.csv").write_text("path,label\nf.png,x\ng.png,y\n")
    return [f"manifest:{tmp_path}/{name}/{name}.csv" for name in ("one", "two", "three")]


@pytest.fixture
def loaded(sets, tmp_path):
    def inner(*which, every_class=True, **fields):
        data = [sets[number] for number in which]
        recipe = Recipe(data=data, data_option=("finding_columns=*",), **fields)
        return load_index(recipe, tmp_path / "cache", every_class=every_class)

    return inner


def test_what_a_set_does_not_label_is_not_known_there(loaded):
    index = loaded(0, 1)
    assert index.classes == ("Effusion", "Mass", "Edema", "Rare")
    assert index.states.tolist() == [
        [PRESENT, ABSENT, UNKNOWN, UNKNOWN],
        [ABSENT, PRESENT, UNKNOWN, UNKNOWN],
        [PRESENT, UNKNOWN, UNCERTAIN, UNKNOWN],
        [UNKNOWN, UNKNOWN, UNKNOWN, ABSENT],
    ]
    assert index.rows["source"].tolist() == ["one", "one", "two", "two"]
    assert index.states.dtype == np.int8
    assert "1 of 5 images were left out by their view (L 1); --view any keeps them." in index.notes
    assert "Uncertain labels, and what is done with them: Edema 1 (ignore)." in index.notes


def test_findings_are_picked_joined_and_dropped(loaded):
    picked = loaded(0, 1, classes=("Mass", "pleural effusion"), view=("any",))
    assert picked.classes == ("Mass", "pleural effusion")
    # The film of which neither is known is counted.
    assert len(picked) == 3
    assert any("2 of 5 images of one + two were left out because none of the findings" in n for n in picked.notes)
    joined = loaded(1, map=("Edema=Any", "Rare=Any", "Pleural effusion=Any"), view=("any",))
    assert joined.classes == ("Any",) and joined.states[:, 0].tolist() == [PRESENT, PRESENT, UNKNOWN][: len(joined)]
    assert loaded(1, drop=("Rare",)).classes == ("Pleural effusion", "Edema")
    with pytest.raises(InputError, match=r"drop names a class that is not in the data: 'Rar'\. Did you mean Rare"):
        loaded(1, drop=("Rar",))
    with pytest.raises(DataError, match="No finding Nothing in one"):
        loaded(0, classes=("Mass,Nothing",))


def test_the_choices_for_uncertain_findings_stand_in_the_index(loaded):
    index = loaded(1, uncertain=("edema=positive",))
    assert index.uncertain.of("Edema") == "positive" and index.uncertain.of("Rare") == "ignore"
    assert index.truth[0, 1] == 1
    with pytest.raises(InputError, match="uncertain names a finding that the data do not have: 'Mass'"):
        loaded(1, uncertain=("Mass=soft",))
    # A run's choices apply to a set that labels fewer findings.
    part = loaded(0, classes=("Mass", "Edema"), uncertain=("Edema=soft",), every_class=False)
    assert part.classes == ("Mass",)
    whole = part.with_classes(("Edema", "Mass"))
    assert whole.states.tolist() == [[UNKNOWN, ABSENT], [UNKNOWN, PRESENT]]
    assert "Findings that one does not label: Edema." in whole.notes


def test_external_data_know_what_they_know(sets, tmp_path):
    recipe = Recipe(data=sets[0], test_data=sets[1], data_option=("finding_columns=*",))
    index = load_index(recipe, tmp_path / "cache")
    assert index.classes == ("Effusion", "Mass")
    assert index.rows["external"].tolist() == [False, False, True]
    assert index.states[2].tolist() == [PRESENT, UNKNOWN]


def test_classes_and_findings_are_not_merged(sets, tmp_path):
    options = (f"{sets[0]}:finding_columns=*",)
    with pytest.raises(DataError, match=r"three has one class an image \(x, y\) and one has findings: they cannot"):
        load_index(Recipe(data=(sets[0], sets[2]), data_option=options), tmp_path / "cache")
    with pytest.raises(InputError, match="uncertain is for data with findings, and three has one class"):
        load_index(Recipe(data=sets[2], uncertain="soft"), tmp_path / "cache")
