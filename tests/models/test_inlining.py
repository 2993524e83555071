"""A model that is inlined computes what it did, layer by layer, in one flat graph."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from chestxray.errors import PluginError
from chestxray.models.assembly import build, freeze
from chestxray.plugin import inline
from made import tiny_plugin

SHAPE = (16, 16, 3)
IMAGES = np.random.default_rng(0).uniform(0, 1, (4, *SHAPE)).astype(np.float32)


def branch():
    entry = keras.Input((16, 16, 4))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, padding="same")(entry))
    inner = keras.Sequential([layers.Conv2D(4, 1), layers.Activation("tanh")], name="inner")
    return keras.Model(entry, [inner(x), x], name="branch")


def stranger():
    """Nested models, layers of several inputs, a shared ReLU, keras.ops, names like ours."""
    entry = keras.Input(SHAPE)
    relu = layers.ReLU(name="act")
    x = relu(layers.Conv2D(4, 3, padding="same", name="probabilities", trainable=False)(entry))
    one, other = branch()(x, training=False)
    x = relu(layers.Add(name="sum")([one, other, x * 0.5]))
    x = layers.Concatenate()([x, keras.ops.mean(x, axis=-1, keepdims=True)])
    model = keras.Model(entry, layers.Conv2D(5, 3)(x))
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.1, 1, np.shape(w)).astype(np.float32) for w in model.get_weights()])
    return model


def inlined(model, **options):
    entry = keras.Input(SHAPE, name="pixels")
    return keras.Model(entry, inline(model, entry, **options))


def test_the_output_is_the_models_with_its_weights():
    model = stranger()
    flat = inlined(model)
    np.testing.assert_allclose(flat(IMAGES), model(IMAGES), rtol=1e-5)
    assert not [layer for layer in flat.layers if isinstance(layer, keras.Model)]
    assert all(len(operation._inbound_nodes) == 1 for operation in flat.operations)
    assert flat.count_params() == model.count_params()


def test_in_training_too_the_output_is_the_models():
    model = stranger()
    np.testing.assert_allclose(inlined(model)(IMAGES, training=True), model(IMAGES, training=True), rtol=1e-4)


def test_the_copies_are_trained_and_the_model_is_not():
    model = stranger()
    before = [np.asarray(w) for w in model.get_weights()]
    flat = inlined(model)
    flat.compile("sgd", "mse")
    flat.fit(IMAGES, np.zeros((4, 14, 14, 5), np.float32), epochs=1, verbose=0)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    assert not all((a == b).all() for a, b in zip(before, flat.get_weights(), strict=True))


def test_the_names_are_the_same_in_every_build_and_none_is_ours():
    first, second = inlined(stranger()), inlined(stranger())
    names = [layer.name for layer in first.layers][1:]
    assert names == [layer.name for layer in second.layers][1:]
    assert {"sum", "norm", "act", "act_1", "inlined_probabilities", "inlined_conv2d_2"} <= set(names)
    assert "probabilities" not in names and not first.get_layer("inlined_probabilities").trainable


def test_two_models_in_one_build_have_names_by_their_prefix():
    entry = keras.Input(SHAPE)
    model = stranger()
    both = keras.Model(entry, layers.Add()([inline(model, entry, prefix="a_"), inline(model, entry, prefix="b_")]))
    np.testing.assert_allclose(both(IMAGES), 2 * model(IMAGES), rtol=1e-5)
    assert {"a_sum", "b_sum"} <= {layer.name for layer in both.layers}


def test_a_plugin_of_it_is_frozen_saved_and_loaded(tmp_path):
    model = stranger()
    plugin = dataclasses.replace(
        tiny_plugin(), build=lambda scaled, weights: inline(model, scaled), cam_layer="sum", finetune_from="norm"
    )
    built = build(plugin, 2, (16, 16))
    freeze(built, "finetune")
    assert built.model.get_layer("norm").trainable and not built.model.get_layer("inlined_probabilities").trainable
    built.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(again(IMAGES[..., :1]), built.model(IMAGES[..., :1]), rtol=1e-5)


def test_a_model_of_several_inputs_takes_as_many_tensors():
    one, other = keras.Input(SHAPE), keras.Input(SHAPE)
    model = keras.Model([one, other], layers.Subtract()([one, other]))
    entry = keras.Input(SHAPE)
    flat = keras.Model(entry, inline(model, [entry, layers.Rescaling(0.25)(entry)]))
    np.testing.assert_allclose(flat(IMAGES), IMAGES * 0.75, rtol=1e-6)


def shared():
    entry = keras.Input(SHAPE)
    convolution = layers.Conv2D(3, 1, name="twice")
    return keras.Model(entry, convolution(convolution(entry)))


def twice_nested():
    entry = keras.Input(SHAPE)
    inner = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(3, 1, name="within")])
    return keras.Model(entry, inner(inner(entry)))


class Subclassed(keras.Model):
    def call(self, x):
        return x


class Overridden(type(stranger())):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs) * 2


def overridden():
    entry = keras.Input(SHAPE)
    return Overridden(entry, layers.ReLU()(entry))


def around(layer):
    entry = keras.Input(SHAPE)
    return keras.Model(entry, layer(entry), name="around")


REFUSED = {
    "shared": (shared, "layer twice: it is applied 2 times with the same weights"),
    "nested twice": (twice_nested, "layer within: it is applied 2 times"),
    "lambda": (lambda: around(layers.Lambda(lambda x: x, name="code")), "layer code: a Lambda is code"),
    "subclassed inside": (lambda: around(Subclassed(name="own")), r"model own \(Subclassed\): it is not functional"),
    "subclassed": (Subclassed, "functional keras.Model.* Received: Subclassed"),
    "overridden": (overridden, "Received: Overridden"),
    "not built": (lambda: keras.Sequential([layers.ReLU()]), "Received: Sequential"),
    "no model": (lambda: "resnet", "Received: str"),
    "size": (
        lambda: keras.Sequential([keras.Input((32, 32, 3)), layers.ReLU()]),
        r"takes \(batch, 32, 32, 3\). Received: \(batch, 16, 16, 3\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_copied_is_refused_in_one_line(name):
    make, message = REFUSED[name]
    with pytest.raises(PluginError, match=message) as caught:
        inline(make(), keras.Input(SHAPE))
    assert "\n" not in str(caught.value)
