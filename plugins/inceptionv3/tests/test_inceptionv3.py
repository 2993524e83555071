import keras
import numpy as np
from chestxray_inceptionv3 import plugin

from chestxray.explanation.gradcam import with_places


def whole(size, classes):
    pixels = keras.Input((*size, 3))
    return keras.Model(pixels, plugin.head(plugin.build(plugin.scale(pixels), None), classes))


def test_at_the_smallest_size_it_has_the_published_number_of_weights_and_a_map():
    model = whole(plugin.minimum_size, 1000)
    assert model.count_params() == 23_851_784  # keras.io/api/applications
    assert model.get_layer(plugin.cam_layer).output.shape == (None, 1, 1, 2048)


def test_maps_of_small_images_are_of_the_last_layer_with_places_after_which_no_branch_is_open():
    sizes = [(75, "mixed7"), (96, "mixed7"), (139, "mixed10")]
    assert [with_places(whole((side, side), 2), plugin.cam_layer) for side, _ in sizes] == [name for _, name in sizes]


def test_what_is_trained_in_the_second_phase_are_the_blocks_after_mixed7():
    names = [layer.name for layer in whole((75, 75), 2).layers]
    trained = names[names.index(plugin.finetune_from) :]
    assert [name for name in trained if name.startswith("mixed") and "_" not in name] == [
        "mixed7",
        "mixed8",
        "mixed9",
        "mixed10",
    ]


def test_scaling_is_that_of_the_weights():
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    expected = keras.applications.inception_v3.preprocess_input(pixels.copy())
    np.testing.assert_allclose(plugin.scale(pixels), expected, atol=1e-5)
