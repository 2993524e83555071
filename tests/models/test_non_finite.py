"""NaN and infinity, wherever they come from, are told with the first layer that has them."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from chestxray.errors import ExportError, NonFiniteError, TrainingError, WeightsError
from chestxray.explanation.inference_graph import OnePass
from chestxray.export import verification
from chestxray.models import forward, non_finite
from chestxray.models.assembly import build
from chestxray.recipe import Recipe
from chestxray.training import fit
from made import make_index, tiny_build

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 16, 16), dtype=np.uint8)
RECIPE = Recipe(model="tiny", weights="none", epochs=2, batch_size=4, patience=0)


def spoil(model, layer, value=np.nan, number=-1):
    """Set the first element of a variable of a layer, the bias unless its number is given."""
    variable = model.get_layer(layer).variables[number]
    array = np.array(variable)
    array.flat[0] = value
    variable.assign(array)


def overflowing(tiny):
    """A network in half precision whose last convolution gives more than float16 holds, but for a black image.

    (Of an earlier one nothing would be seen on a CPU: where TensorFlow fuses a convolution with ReLU, NaN becomes 0.)
    """
    built = build(tiny, 2, (16, 16), mixed_precision=True)
    for layer in map(built.model.get_layer, ("first", "last")):
        layer.kernel.assign(np.full(layer.kernel.shape, {"first": 1.0, "last": 6e4}[layer.name]))
    return built


def data():
    return PIXELS, make_index(["a", "b"] * 12, splits=["train"] * 16 + ["validation"] * 8)


def test_the_first_layer_of_the_graph_is_named_not_the_first_that_is_asked(tiny):
    model = build(tiny, 2, (16, 16)).model
    batch = PIXELS[:2, ..., None].astype(np.float32)
    assert non_finite.first_layer(model, batch) == non_finite.first_weights(model) == ""
    spoil(model, "logits")
    spoil(model, "norm", number=0)
    said = "the weights of layer norm (gamma)"
    assert non_finite.first_layer(model, batch) == non_finite.first_weights(model) == said
    assert non_finite.first_layer(model, np.full((2, 16, 16, 1), np.inf)) == "what it is given"


def test_an_output_comes_before_the_weights_of_later_layers(tiny):
    model = overflowing(tiny).model
    spoil(model, "logits")
    assert non_finite.first_weights(model) == "the weights of layer logits (bias)"
    batch = PIXELS[:2, ..., None].astype(np.float32)
    assert non_finite.first_layer(model, batch) == "the output of layer last (in float16)"


def test_of_several_batches_the_first_that_is_not_finite_counts(tiny):
    model = overflowing(tiny).model
    seen = []

    def batches():
        for value in (0.0, 255.0, 255.0):
            seen.append(value)
            yield np.full((2, 16, 16, 1), value, np.float32)

    assert non_finite.first_of(model, batches()) == "the output of layer last (in float16)"
    assert seen == [0.0, 255.0]
    assert non_finite.first_of(model, [np.zeros((2, 16, 16, 1), np.float32)]) == ""


def test_a_prediction_names_image_and_layer(tiny):
    model = overflowing(tiny).model
    pixels = PIXELS.copy()
    pixels[:6] = 0
    names = [f"{number}.png" for number in range(24)]
    given = forward.outputs(forward.Forward(model), pixels, np.arange(1, 24), 2, names=names)
    with pytest.raises(
        NonFiniteError, match=r"for 1 of 2 images .* 6\.png; .* the output of layer last \(in float16\)"
    ):
        list(given)
    (finite,) = forward.outputs(forward.Forward(model), pixels, np.arange(6))
    assert np.isfinite(finite[0]).all()


def train(built, folder, recipe=RECIPE):
    return fit.train(built, *data(), recipe, folder, tf.distribute.get_strategy())


def test_training_names_the_layer_whose_weights_explode(tiny, tmp_path):
    recipe = RECIPE.replace(optimizer="sgd", learning_rate=1e30, schedule="constant")
    with pytest.raises(
        TrainingError, match=r"is no longer finite in epoch 1 .*: the weights of layer first \(kernel\)\."
    ):
        train(build(tiny, 2, (16, 16)), tmp_path, recipe)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_training_names_the_layer_that_overflows_where_all_weights_are_finite(tiny, tmp_path, split):
    built = overflowing(tiny)
    pixels, index = data()
    pixels = np.where((index.rows["split"] == split).to_numpy()[:, None, None], pixels, 0).astype(np.uint8)
    loss = {"train": "loss", "validation": "val_loss"}[split]
    # Without a learning rate the weights stay as they are.
    recipe = RECIPE.replace(learning_rate=0.0, weight_decay=0.0, schedule="constant", augment="none")
    with pytest.raises(TrainingError, match=rf"The {loss} is no longer .*: the output of layer last \(in float16\)\."):
        fit.train(built, pixels, index, recipe, tmp_path, tf.distribute.get_strategy())


def test_frozen_layers_name_their_own(tiny, tmp_path):
    built = build(dataclasses.replace(tiny, finetune_from="last"), 2, (16, 16))
    spoil(built.model, "first")
    recipe = RECIPE.replace(weights="random", augment="none")
    (tmp_path / "cache").mkdir()
    with pytest.raises(NonFiniteError, match=r"frozen layers .* the weights of layer first \(bias\)"):
        fit.train(built, *data(), recipe, tmp_path, tf.distribute.get_strategy(), tmp_path / "cache")


def test_a_heat_map_names_the_layer(tiny):
    model = build(tiny, 2, (16, 16)).model
    spoil(model, "logits")
    with pytest.raises(NonFiniteError, match=r"A heat map .* the weights of layer logits \(bias\)"):
        OnePass(model, "last")(PIXELS[:3, ..., None])


def test_a_heat_map_whose_gradient_alone_is_not_finite_says_so(tiny):
    model = build(tiny, 2, (16, 16)).model
    # The evidence is the sum over six channels, each up to float32's largest number.
    model.get_layer("last").bias.assign(np.full(6, 1e30))
    model.get_layer("logits").kernel.assign(np.full((6, 2), 1e30) * np.array([[1.0, -1.0]] * 3 + [[-1.0, 1.0]] * 3))
    with pytest.raises(NonFiniteError, match="A heat map"):
        OnePass(model, "last")(PIXELS[:3, ..., None])


class Spoilt:
    """A run to export whose model has a bias of NaN."""

    form = "keras"
    layer = "last"

    def __init__(self, model):
        self.model = model


def test_an_export_names_the_layer_of_its_model(tiny):
    model = build(tiny, 2, (16, 16)).model
    given = {"probabilities": np.array([[np.nan, 0.5]])}
    with pytest.raises(ExportError, match=r"probabilities.*all layers of the graph are finite"):
        verification._require_finite(Spoilt(model), PIXELS[:2, ..., None], given)
    spoil(model, "first")
    with pytest.raises(ExportError, match=r"the weights of layer first \(bias\)"):
        verification._require_finite(Spoilt(model), PIXELS[:2, ..., None], given)


def test_weights_of_a_plugin_that_are_not_finite_are_refused(tiny):
    def spoilt(scaled, weights):
        features = tiny_build(scaled, weights)
        if weights == "published":
            spoil(keras.Model(keras.utils.get_source_inputs(features), features), "norm", number=2)
        return features

    plugin = dataclasses.replace(tiny, build=spoilt, weights=("published",))
    assert build(plugin, 2, (16, 16)).model.count_params()
    with pytest.raises(WeightsError, match=r"'published' of tiny .* the weights of layer norm \(moving_mean\)"):
        build(plugin, 2, (16, 16), name="tiny", weights="published")
