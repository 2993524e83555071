import dataclasses
import random

import keras
import numpy as np
import pytest

from chestxray.explanation.sanity.random_weights import RandomWeights
from chestxray.models import assembly
from chestxray.plugin import ModelPlugin


def mobile(scaled, weights):
    return keras.applications.MobileNetV2(input_tensor=scaled, include_top=False, weights=None, alpha=0.35).output


MOBILE = ModelPlugin(build=mobile, scale=keras.layers.Rescaling(1 / 127.5, offset=-1), image_size=(32, 32))


@pytest.fixture(params=["tiny", "mobilenetv2"])
def model(request, tiny):
    """A network whose weights are none that an initialiser would give."""
    plugin = tiny if request.param == "tiny" else MOBILE
    made = assembly.build(plugin, 3, plugin.image_size).model
    rng = np.random.default_rng(0)
    for layer in made.layers:
        if layer.trainable:
            layer.set_weights([w + rng.uniform(0.1, 0.2, w.shape) for w in layer.get_weights()])
    return made


def weights(model):
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def changed(one, other):
    return {name for name in one if not all(map(np.array_equal, one[name], other[name]))}


def test_layers_get_random_weights_from_the_top_and_the_model_keeps_its_own(model):
    before, state = weights(model), random.getstate()
    copy = RandomWeights(model, seed=0)
    assert changed(weights(copy.model), before) == set()
    assert copy.groups[0] == ("logits",)
    learnt = {layer.name for layer in model.layers if layer.trainable_weights}
    assert {name for group in copy.groups for name in group} == learnt
    assert sum(len(group) for group in copy.groups) == len(learnt)
    copy.randomise([0, 1])
    assert changed(weights(copy.model), before) == {*copy.groups[0], *copy.groups[1]}
    copy.randomise([2])
    assert changed(weights(copy.model), before) == set(copy.groups[2])
    copy.randomise(range(len(copy.groups)))
    assert changed(weights(copy.model), before) == learnt
    first = weights(copy.model)
    copy.draw(1)
    copy.randomise(range(len(copy.groups)))
    kernels = {name for name in learnt if any(w.ndim > 1 for w in before[name])}
    assert changed(weights(copy.model), first) == kernels
    pixels = np.random.default_rng(1).integers(0, 256, (2, *model.input_shape[1:])).astype("float32")
    assert np.isfinite(copy.model(pixels)).all()
    assert changed(weights(model), before) == set() and random.getstate() == state


def test_the_weights_are_those_of_each_layers_own_initialiser(tiny):
    model = assembly.build(tiny, 2, (16, 16)).model
    model.get_layer("norm").set_weights([np.full(4, 7.0)] * 4)
    copy = RandomWeights(model, seed=3)
    copy.randomise(range(len(copy.groups)))
    given = weights(copy.model)
    assert [w[0] for w in given["norm"]] == [1, 0, 0, 1]
    kernel, bias = given["last"]
    limit = (6 / (9 * 4 + 9 * 6)) ** 0.5  # Glorot and Bengio 2010
    assert 0.9 * limit < np.abs(kernel).max() <= limit and not bias.any()


def test_the_seed_fixes_the_weights_and_an_untrained_network_does_not_meet_its_own(tiny):
    model = assembly.build(tiny, 2, (16, 16), seed=5).model
    drawn = []
    for seed in (5, 5, 6):
        copy = RandomWeights(model, seed)
        assert [group[0] for group in copy.groups] == ["logits", "last", "first"]
        copy.randomise(range(3))
        drawn.append(weights(copy.model))
    assert changed(drawn[0], drawn[1]) == set()
    assert changed(drawn[0], drawn[2]) == {"logits", "last", "first"}


def test_half_precision_and_fixed_layers_stay(tiny):
    grey = dataclasses.replace(tiny, channels=1)
    model = assembly.build(grey, 2, (16, 16), channels=3, mixed_precision=True).model
    copy = RandomWeights(model, seed=0)
    assert copy.model.get_layer("last").compute_dtype == "float16"
    assert "colour_to_grey" not in {name for group in copy.groups for name in group}


class _Unregistered(keras.losses.Loss):
    """A loss that Keras cannot make again from its configuration, such as one for findings that are not known."""

    def call(self, truth, said):
        return keras.ops.mean(keras.ops.abs(truth - said), axis=-1)


def test_a_compiled_model_is_copied_without_its_loss(tiny):
    model = assembly.build(tiny, 2, (16, 16)).model
    model.compile("adam", _Unregistered())
    copy = RandomWeights(model, seed=0)
    assert not copy.model.compiled
    assert changed(weights(copy.model), weights(model)) == set()


def test_a_network_with_an_input_that_has_no_name_is_copied():
    given = keras.Input((8, 8, 1))
    model = keras.Model(given, keras.layers.Dense(2)(keras.layers.Flatten()(given)))
    copy = RandomWeights(model, seed=0)
    copy.randomise([0])
    assert changed(weights(copy.model), weights(model)) == {model.layers[-1].name}
