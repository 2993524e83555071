import keras
import numpy as np
import pytest
from chestxray_densenet import densenet121, densenet169, densenet201, scale


@pytest.mark.parametrize(
    ("plugin", "weights", "channels"),  # keras.io/api/applications
    [(densenet121, 8_062_504, 1024), (densenet169, 14_307_880, 1664), (densenet201, 20_242_984, 1920)],
)
def test_at_the_smallest_size_it_has_the_published_number_of_weights_and_a_map(plugin, weights, channels):
    pixels = keras.Input((*plugin.minimum_size, 3))
    model = keras.Model(pixels, plugin.head(plugin.build(plugin.scale(pixels), None), 1000))
    assert model.count_params() == weights
    assert model.get_layer(plugin.cam_layer).output.shape == (None, 1, 1, channels)
    names = [layer.name for layer in model.layers]
    start = names.index(plugin.finetune_from)
    assert not any(name.startswith("conv5_") for name in names[:start])
    assert not any(name.startswith("conv4_") for name in names[start:])


def test_scaling_is_that_of_the_weights():
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    expected = keras.applications.densenet.preprocess_input(pixels.copy())
    np.testing.assert_allclose(scale(pixels), expected, atol=1e-5)
