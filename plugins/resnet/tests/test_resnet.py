import chestxray_resnet as resnet
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from chestxray.plugin import load_weights


def whole(plugin, size=(32, 32), classes=2):
    pixels = keras.Input((*size, 3))
    return keras.Model(pixels, plugin.head(plugin.build(plugin.scale(pixels), None), classes))


def trainable(model):
    return sum(np.prod(variable.shape) for variable in model.trainable_weights)


def test_resnet18_has_the_weights_of_torchvisions():
    assert trainable(whole(resnet.resnet18, classes=2)) == 11_177_538
    assert trainable(whole(resnet.resnet18, classes=1000)) == 11_689_512


@pytest.mark.slow
def test_resnet200d_has_the_weights_of_timms():
    model = whole(resnet.resnet200d, classes=1000)
    assert trainable(model) == 64_693_064
    assert model.get_layer("layer4_2").output.shape == (None, 1, 1, 2048)
    check_last_stage(model, resnet.resnet200d, "layer4_", "layer3_")


@pytest.mark.parametrize(
    ("plugin", "weights"),  # keras.io/api/applications
    [(resnet.resnet50, 25_636_712), (resnet.resnet101, 44_707_176)],
)
def test_those_of_keras_have_its_weights(plugin, weights):
    model = whole(plugin, classes=1000)
    assert model.count_params() == weights
    assert model.get_layer(plugin.cam_layer).output.shape == (None, 1, 1, 2048)
    check_last_stage(model, plugin, "conv5_", "conv4_")


def test_resnet18_trains_its_fourth_stage_in_the_second_phase():
    check_last_stage(whole(resnet.resnet18), resnet.resnet18, "layer4_", "layer3_")


def check_last_stage(model, plugin, last, before):
    names = [layer.name for layer in model.layers]
    start = names.index(plugin.finetune_from)
    assert not any(name.startswith(before) for name in names[start:])
    assert not any(name.startswith(last) for name in names[:start])


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 50)])
def test_resnet18_halves_odd_sizes_upwards_as_pytorch_does(size):
    map_ = whole(resnet.resnet18, size).get_layer("layer4_1").output
    assert map_.shape[1:3] == tuple(-(-n // 32) for n in size)


def test_scaling_is_that_of_the_weights():
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    for plugin, mode in (
        (resnet.resnet18, "torch"),
        (resnet.resnet200d, "torch"),
        (resnet.resnet50, "caffe"),
    ):
        expected = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode=mode)
        np.testing.assert_allclose(plugin.scale(pixels), expected, atol=1e-4)


def test_a_file_under_pytorchs_names_loads_whole(tmp_path):
    saved, model = whole(resnet.resnet18), whole(resnet.resnet18)
    published = {"bn1.num_batches_tracked": np.array(7)}
    for layer in saved.layers:
        for variable in layer.weights:
            name = layer.name
            if name.startswith("layer"):
                name = name.replace("_downsample_", ".downsample.").replace("_", ".")
            array = np.asarray(variable)
            if name == "logits":
                published[f"fc.{'weight' if array.ndim == 2 else 'bias'}"] = array.T.copy()
            elif array.ndim == 4:
                published[f"{name}.weight"] = array.transpose(3, 2, 0, 1).copy()
            else:
                theirs = {ours: theirs for theirs, ours in resnet.VARIABLES.items()}[variable.name]
                published[f"{name}.{theirs}"] = array
    save_file(published, tmp_path / "model.safetensors")
    load_weights(model, tmp_path / "model.safetensors", convert=resnet.resnet18.convert)
    for one, other in zip(model.weights, saved.weights, strict=True):
        np.testing.assert_array_equal(one, other)
