import chestxray_efficientnet as efficientnet
import keras
import numpy as np
import pytest

#: At 1000 classes, as keras.applications counts them.
PLUGINS = {
    "efficientnetv2b0": (efficientnet.efficientnetv2b0, keras.applications.EfficientNetV2B0, 7_200_312),
    "efficientnetv2s": (efficientnet.efficientnetv2s, keras.applications.EfficientNetV2S, 21_612_360),
    "efficientnetv2m": (efficientnet.efficientnetv2m, keras.applications.EfficientNetV2M, 54_431_388),
}


@pytest.mark.parametrize("name", PLUGINS)
def test_at_the_smallest_size_it_has_the_published_number_of_weights_and_a_map(name):
    plugin, _, weights = PLUGINS[name]
    pixels = keras.Input((*plugin.minimum_size, 3))
    model = keras.Model(pixels, plugin.head(plugin.build(plugin.scale(pixels), None), 1000))
    assert model.count_params() == weights
    assert model.get_layer(plugin.cam_layer).output.shape == (None, 1, 1, 1280)
    names = [layer.name for layer in model.layers]
    start = names.index(plugin.finetune_from)
    assert not any(name.startswith(("block6", "block7", "top")) for name in names[:start])


@pytest.mark.parametrize("name", PLUGINS)
def test_scaling_is_what_keras_puts_into_the_network(name):
    plugin, network, _ = PLUGINS[name]
    theirs = network(input_shape=(32, 32, 3), include_top=False, weights=None)
    first_convolution = theirs.get_layer("stem_conv")
    preprocessing = keras.Model(theirs.input, first_convolution.input)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(plugin.scale(pixels), preprocessing(pixels), atol=1e-5)
