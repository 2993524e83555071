import os
from pathlib import Path

import chestxray_mobilenet as mobilenet
import keras
import numpy as np
import pytest

from chestxray.explanation.gradcam import with_places
from chestxray.plugin import load_weights

#: Without a head, as keras.applications counts them.
PLUGINS = {
    "mobilenetv2": (mobilenet.mobilenetv2, 2_257_984),
    "mobilenetv3small": (mobilenet.mobilenetv3small, 939_120),
    "mobilenetv3large": (mobilenet.mobilenetv3large, 2_996_352),
}


def backbone(plugin, size):
    pixels = keras.Input((*size, 3))
    return keras.Model(pixels, plugin.build(plugin.scale(pixels), None))


@pytest.mark.parametrize("name", PLUGINS)
def test_at_the_smallest_size_it_has_the_published_number_of_weights_and_a_map(name):
    plugin, weights = PLUGINS[name]
    model = backbone(plugin, plugin.minimum_size)
    assert model.count_params() == weights
    assert model.get_layer(plugin.cam_layer).output.shape == model.output.shape
    assert model.output.shape[1:3] == (1, 1)
    model.get_layer(plugin.finetune_from)


@pytest.mark.parametrize("name", PLUGINS)
def test_maps_of_the_smallest_images_are_of_a_layer_whose_cells_lie_evenly(name):
    """The last layer with several cells only pads, at two sides: a map of it is displaced."""
    plugin = PLUGINS[name][0]
    model = backbone(plugin, (32, 32))
    layer = model.get_layer(with_places(model, plugin.cam_layer))
    assert not isinstance(layer, keras.layers.ZeroPadding2D) and layer.output.shape[1:3] == (2, 2)


@pytest.mark.parametrize("name", PLUGINS)
def test_scaling_is_that_of_the_weights(name):
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    expected = keras.applications.mobilenet_v2.preprocess_input(pixels.copy())
    np.testing.assert_allclose(PLUGINS[name][0].scale(pixels), expected, atol=1e-5)


@pytest.mark.real_data
def test_imagenet_weights_load_by_path():
    if "CHESTXRAY_REAL_DATA" not in os.environ:
        pytest.skip("CHESTXRAY_REAL_DATA is not set")
    path = Path(os.environ["CHESTXRAY_REAL_DATA"]) / "weights" / "mobilenetv2_imagenet_notop.weights.h5"
    model = backbone(mobilenet.mobilenetv2, (64, 64))
    load_weights(model, path)
    expected = keras.applications.MobileNetV2(input_shape=(64, 64, 3), include_top=False, weights=None)
    expected.load_weights(path)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    scaled = keras.applications.mobilenet_v2.preprocess_input(pixels.copy())
    np.testing.assert_allclose(model(pixels), expected(scaled), atol=1e-4)
