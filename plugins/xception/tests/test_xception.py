import keras
import numpy as np
from chestxray_xception import plugin


def test_at_the_smallest_size_it_has_the_published_number_of_weights_and_a_map():
    pixels = keras.Input((*plugin.minimum_size, 3))
    model = keras.Model(pixels, plugin.head(plugin.build(plugin.scale(pixels), None), 1000))
    assert model.count_params() == 22_910_480  # keras.io/api/applications
    assert model.get_layer(plugin.cam_layer).output.shape == (None, 3, 3, 2048)
    names = [layer.name for layer in model.layers]
    start = names.index(plugin.finetune_from)
    assert not any(name.startswith(("block13_", "block14_")) for name in names[:start])
    assert not any(name.startswith("block12_") for name in names[start:])


def test_scaling_is_that_of_the_weights():
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    expected = keras.applications.xception.preprocess_input(pixels.copy())
    np.testing.assert_allclose(plugin.scale(pixels), expected, atol=1e-5)
