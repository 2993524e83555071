import keras
import numpy as np
from chestxray_convnext import convert, plugin


def whole(size, classes):
    pixels = keras.Input((*size, 3))
    return keras.Model(pixels, plugin.head(plugin.build(plugin.scale(pixels), None), classes))


def test_at_the_smallest_size_it_has_the_published_number_of_weights_and_a_map():
    model = whole(plugin.minimum_size, 1000)
    assert model.count_params() == 28_589_128  # timm's convnext_tiny
    assert model.get_layer(plugin.cam_layer).output.shape == (None, 1, 1, 768)
    names = [layer.name for layer in model.layers]
    start = names.index(plugin.finetune_from)
    assert not any(name.startswith("stages_3") for name in names[:start])
    assert not any(name.startswith("stages_2") for name in names[start:])


def test_all_its_layers_are_ordinary_ones_so_that_a_saved_model_loads_anywhere():
    for layer in whole((32, 32), 2).layers:
        assert getattr(keras.layers, type(layer).__name__) is type(layer)


def test_scaling_is_that_of_the_weights():
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    expected = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode="torch")
    np.testing.assert_allclose(plugin.scale(pixels), expected, atol=1e-5)


def test_published_names_become_layers_and_variables():
    tensors = {
        "stem.0.weight": np.zeros((96, 3, 4, 4)),
        "stem.0.bias": np.zeros(96),
        "stem.1.weight": np.zeros(96),
        "stem.1.bias": np.zeros(96),
        "stages.0.blocks.0.conv_dw.weight": np.zeros((96, 1, 7, 7)),
        "stages.0.blocks.0.gamma": np.zeros(96),
        "head.fc.weight": np.zeros((10, 768)),
        "head.fc.bias": np.zeros(10),
    }
    shapes = {name: array.shape for name, array in convert(tensors, {}).items()}
    assert shapes == {
        "stem_0/kernel": (4, 4, 3, 96),
        "stem_0/bias": (96,),
        "stem_1/gamma": (96,),
        "stem_1/beta": (96,),
        "stages_0_blocks_0_conv_dw/kernel": (7, 7, 96, 1),
        "stages_0_blocks_0_gamma/kernel": (96,),
        "logits/kernel": (768, 10),
        "logits/bias": (10,),
    }
