import dataclasses
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from chestxray import recipe_files
from chestxray.cli.main import group
from chestxray.errors import InputError
from chestxray.recipe import Recipe

SHIPPED = recipe_files.shipped()
PUBLISHED = [name for name in SHIPPED if name != "demonstration" and not name.endswith("-honest")]
#: What a twin may change: how rows are split, what leaks become of, what stands beside the score.
OF_TWINS = {"split", "on_leak", "keep_validation", "controls"}
#: The one system that was tested on what it was trained on: its twin is not.
OTHER_TEST = {"resnet200d-covid": {"test_data", "drop"}}
DOCS = Path(__file__).parents[1]
#: What the authors give, in both places that quote it: the recipe's comment and the table of the reproductions.
FIGURES = {
    "seven-models": (".9126", ".9425", ".7468", ".9449", ".8726", ".9716", ".8872"),
    "resnet18-keremberke": (".95", ".9759"),
    "resnet200d-covid": (".9910", ".9802", "15,153", "15,439"),
    "mobilenetv3-four-class": (".92",),
    "vgg16-kermany": ("135,309,890", "1,049,346", "no test figure"),
}


def invoke(*arguments):
    result = CliRunner().invoke(group, list(map(str, arguments)))
    if isinstance(result.exception, InputError):
        return str(result.exception)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_five_published_systems_are_there():
    assert PUBLISHED == [
        "mobilenetv3-four-class",
        "resnet18-keremberke",
        "resnet200d-covid",
        "seven-models",
        "vgg16-kermany",
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_valid_and_says_what_it_is(name):
    assert isinstance(Recipe.read(name), Recipe)
    assert len(recipe_files.comment(SHIPPED[name]).splitlines()) > 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_comment_tells_what_was_published_kept_and_mended(name):
    comment = recipe_files.comment(SHIPPED[name])
    assert all(f"\n{word}" in comment for word in ("Published: ", "Kept: ", "Ours, ", "Mended: "))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_twin_has_the_same_model_and_training(name):
    (plain, models), (honest, same) = ((Recipe.read(n), recipe_files.read(n)[1]) for n in (name, f"{name}-honest"))
    changed = {f.name for f in dataclasses.fields(Recipe) if getattr(plain, f.name) != getattr(honest, f.name)}
    assert models == same
    assert changed <= OF_TWINS | OTHER_TEST.get(name, set())
    assert (plain.controls, honest.controls, honest.on_leak) == (False, True, "drop")
    assert honest.split in ("grouped", "official")
    assert not honest.keep_validation
    assert {"split", "keep_validation"} & changed


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_are_the_same_wherever_they_stand(name):
    assert set(FIGURES) == set(PUBLISHED)
    texts = {
        "recipe": " ".join(recipe_files.comment(SHIPPED[name]).split()),
        "docs": (DOCS / "docs" / "reproductions.md").read_text(encoding="utf-8"),
    }
    for place, text in texts.items():
        missing = [figure for figure in FIGURES[name] if figure.lower() not in text.lower()]
        assert not missing, f"{place} does not give {missing}"
        assert "not known to us" not in text


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "demonstration"])
def test_the_reproductions_say_which_options_a_recipe_uses(name):
    lines = (DOCS / "docs" / "reproductions.md").read_text(encoding="utf-8").splitlines()
    (told,) = [line.split(" | ")[1] for line in lines if line.startswith(f"| `{name}` | ")]
    named = set(re.findall(r"`(\w+)`", told))
    twin = tomllib.loads(SHIPPED[name].read_text(encoding="utf-8"))
    if name in PUBLISHED:
        assert named == set(twin)
    else:
        plain = tomllib.loads(SHIPPED[name.removesuffix("-honest")].read_text(encoding="utf-8"))
        assert named == {key for key in twin if plain.get(key) != twin[key]}


def test_one_published_system_is_tested_on_what_it_was_trained_on():
    plain, twin = Recipe.read("resnet200d-covid"), Recipe.read("resnet200d-covid-honest")
    assert set(plain.data) & set(plain.test_data) == {"covid-radiography"}
    assert not set(twin.data) & set(twin.test_data)
    assert (plain.on_leak, plain.fold, len(plain.classes)) == ("ignore", 0, 3)


def test_recipes_are_listed_and_printed():
    listed = invoke("recipes")
    assert all(name in listed for name in SHIPPED)
    assert invoke("recipes", "vgg16-kermany") == SHIPPED["vgg16-kermany"].read_text(encoding="utf-8")


def test_a_recipe_of_several_models_is_compared_or_one_is_chosen():
    said = invoke("run", "--recipe", "seven-models")
    assert "chestxray compare --recipe seven-models" in said
    assert "--model: shallow_fc, deep_fc" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('models = ["a"]', "list of two architectures or more"),
        ('models = "a"', "list of two"),
        ('model = "a"\nmodels = ["a", "b"]', "both model and models"),
        ("models = [1, 2]", "list of two"),
    ],
)
def test_models_that_are_none(tmp_path, text, words):
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        Recipe.read(path)


def test_options_go_before_the_recipe():
    from chestxray.cli.options import recipe_from

    recipe, _ = recipe_from("vgg16-kermany", {"batch_size": 4, "augment": None, "controls": True, "by": ()})
    assert (recipe.batch_size, recipe.augment, recipe.controls, recipe.data) == (4, "crop", True, ("kermany",))
    assert recipe_from("seven-models", {"drop": ("",)})[0].drop == (), "an empty value empties a list"
