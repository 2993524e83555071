import dataclasses

import pytest

from chestxray.errors import InputError
from chestxray.recipe import Recipe, parse_image_size


def test_toml_repeats_every_field(tmp_path):
    recipe = Recipe(model="m", data=("folder:a", "folder:b"), image_size=(96, 128), epochs=3, positive="x")
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.read(path) == recipe


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": -1}, ["epochs", "at least 0", "-1"]),
        ({"batch_size": 0}, ["batch_size", "at least 1", "0"]),
        ({"validation_share": 0.9}, ["validation_share", "from 0.01 to 0.5", "0.9"]),
        ({"split": "by-eye"}, ["split", "official", "by-eye"]),
        ({"image_size": "12by9"}, ["image_size", "HEIGHTxWIDTH", "12by9"]),
        ({"image_size": (0, 5)}, ["image_size"]),
        ({"epochs": 1.5}, ["epochs", "int", "1.5"]),
        ({"epochs": True}, ["epochs", "int"]),
        ({"learning_rate": "fast"}, ["learning_rate", "float", "fast"]),
        ({"learning_rate": float("nan")}, ["learning_rate", "nan"]),
        ({"data": (1,)}, ["data", "strings"]),
        ({"epochs": 0, "head_epochs": 0}, ["nothing would be trained"]),
        ({"epoch": 3}, ["Unknown recipe field", "epochs"]),
    ],
)
def test_values_out_of_range_are_named(changes, words):
    with pytest.raises(InputError) as error:
        Recipe().replace(**changes)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean demonstration"):
        Recipe.read("demonstraton")


def test_a_file_that_is_no_toml_is_one_line(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("model = [", encoding="utf-8")
    with pytest.raises(InputError, match="not valid TOML"):
        Recipe.read(path)


@pytest.mark.parametrize(
    ("value", "size"), [(96, (96, 96)), ("96", (96, 96)), ("96x128", (96, 128)), ([96, 128], (96, 128))]
)
def test_image_size_is_height_by_width(value, size):
    assert parse_image_size(value) == size


def test_every_field_says_what_it_is():
    assert all(field.metadata["help"].endswith(".") for field in dataclasses.fields(Recipe))
