import chestxray_baselines as baselines
import keras
import pytest

PLUGINS = {
    "shallow_fc": (baselines.shallow_fc_plugin, 1_049_346),
    "deep_fc": (baselines.deep_fc_plugin, 2_270_274),
    "shallow_cnn": (baselines.shallow_cnn_plugin, 2_116_866),
    "deep_cnn": (baselines.deep_cnn_plugin, 2_353_826),
}


def whole(plugin, size):
    pixels = keras.Input((*size, plugin.channels))
    return keras.Model(pixels, plugin.head(plugin.build(plugin.scale(pixels), None), 2))


@pytest.mark.parametrize("name", PLUGINS)
def test_the_number_of_weights_is_that_of_the_readme(name):
    plugin, weights = PLUGINS[name]
    model = whole(plugin, plugin.image_size)
    assert sum(variable.numpy().size for variable in model.trainable_weights) == weights


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("size", [(16, 16), (40, 56), (130, 257)])
def test_any_size_from_the_smallest_on_is_built(name, size):
    assert whole(PLUGINS[name][0], size).output.shape == (None, 2)


def test_convolutional_networks_have_a_map_and_the_others_say_why_not():
    for plugin, _ in PLUGINS.values():
        if plugin.cam_layer:
            assert len(whole(plugin, (32, 32)).get_layer(plugin.cam_layer).output.shape) == 4
        else:
            assert "no convolutional feature map" in plugin.cam_reason


def test_a_thumbnail_is_about_64_pixels_wide():
    for size in ((128, 128), (224, 300)):
        units = baselines.thumbnail(keras.Input((*size, 1))).shape[1]
        assert 64 * 64 <= units <= 75 * 75
