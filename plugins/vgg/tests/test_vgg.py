import os
from pathlib import Path

import chestxray_vgg as vgg
import keras
import numpy as np
import pytest

from chestxray.plugin import load_weights


def whole(plugin, size, classes=2):
    pixels = keras.Input((*size, 3), name="pixels")
    features = plugin.build(plugin.scale(pixels), None)
    return keras.Model(pixels, features), keras.Model(pixels, plugin.head(features, classes))


def test_vgg16_has_the_published_number_of_weights_frozen_and_whole():
    backbone, model = whole(vgg.vgg16, (224, 224))
    assert model.count_params() == 135_309_890
    assert model.get_layer(vgg.vgg16.cam_layer).output.shape == (None, 14, 14, 512)
    for layer in backbone.layers:
        layer.trainable = False
    assert sum(np.prod(variable.shape) for variable in model.trainable_weights) == 1_049_346
    assert [layer.name for layer in model.layers][-4:] == ["fc1", "fc2", "fc3", "logits"]


def test_vgg16_gap_is_built_at_its_smallest_size():
    backbone, model = whole(vgg.vgg16_gap, vgg.vgg16_gap.minimum_size)
    assert backbone.count_params() == 14_714_688  # keras.io/api/applications, without the top
    assert model.get_layer(vgg.vgg16_gap.cam_layer).output.shape == (None, 2, 2, 512)


def test_scaling_is_that_of_the_weights():
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    expected = keras.applications.vgg16.preprocess_input(pixels.copy())
    np.testing.assert_allclose(vgg.scale(pixels), expected, atol=1e-4)


@pytest.mark.real_data
def test_imagenet_weights_load_by_path():
    if "CHESTXRAY_REAL_DATA" not in os.environ:
        pytest.skip("CHESTXRAY_REAL_DATA is not set")
    path = Path(os.environ["CHESTXRAY_REAL_DATA"]) / "weights" / "vgg16_imagenet_notop.weights.h5"
    backbone, model = whole(vgg.vgg16_gap, (48, 48))
    load_weights(model, path)
    expected = keras.applications.VGG16(input_shape=(48, 48, 3), include_top=False, weights=None)
    expected.load_weights(path)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 48, 48, 3)).astype("float32")
    scaled = keras.applications.vgg16.preprocess_input(pixels.copy())
    np.testing.assert_allclose(backbone(pixels), expected(scaled), rtol=1e-4, atol=1e-3)
