import dataclasses

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
    assert changed <= OF_TWINS
    assert (plain.controls, honest.controls, honest.on_leak) == (False, True, "drop")
    assert honest.split in ("grouped", "official")
    assert not honest.keep_validation
    assert {"split", "keep_validation"} & changed


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
