import keras
import numpy as np
import pytest

from chestxray.errors import InputError, PluginError
from chestxray.plugin import ModelPlugin, table

SHAPES = {"tokens": (2, 3), "map": (4, 5, 3), "bias": (3,)}


def network(shape):
    pixels = keras.Input((4, 5, 3))
    return keras.Model(pixels, table(pixels, shape, name="learned"))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_each_image_gets_the_table_whatever_it_holds(shape):
    model = network(shape)
    (kernel,) = model.trainable_weights
    assert kernel.path == "learned/kernel"
    images = np.full((3, 4, 5, 3), np.nan, np.float32)
    found = np.asarray(model(images))
    np.testing.assert_array_equal(found, np.repeat(np.asarray(kernel), 3, axis=0))
    assert found.shape == (3, *shape)
    assert found.std() > 0


def test_it_is_trained_by_the_sum_of_the_gradients_of_all_images():
    model = network((2, 3))
    before = np.asarray(model.get_layer("learned").kernel)
    model.compile(keras.optimizers.SGD(0.5), lambda _true, given: keras.ops.sum(given, axis=(1, 2)))
    model.train_on_batch(np.zeros((4, 4, 5, 3), np.float32), np.zeros((4, 2, 3), np.float32))
    np.testing.assert_allclose(model.get_layer("learned").kernel, before - 0.5, atol=1e-6)


def test_it_is_saved_loaded_and_cloned_as_a_stock_layer(tmp_path):
    model = network((4, 5, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    images = np.zeros((1, 4, 5, 3), np.float32)
    for other in (loaded, cloned):
        assert type(other.get_layer("learned")) is keras.layers.EinsumDense
        np.testing.assert_array_equal(other(images), model(images))


def test_under_mixed_precision_the_table_is_kept_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network((2, 3))
    finally:
        keras.config.set_dtype_policy("float32")
    assert (model.weights[0].dtype, model.output.dtype) == ("float32", "float16")


def test_a_size_that_is_no_multiple_of_the_patch_is_refused_in_one_line():
    plugin = ModelPlugin(
        build=lambda scaled, weights: scaled, scale=lambda x: x, image_size=(28, 28), minimum_size=(14, 14),
        size_multiple=14,
    )  # fmt: skip
    plugin.check_image_size("it", (42, 14))
    with pytest.raises(InputError) as caught:
        plugin.check_image_size("it", (42, 32))
    assert str(caught.value) == "image_size of it must be multiples of 14 pixels. Received: 42x32."
    for wrong in ({"image_size": (30, 28)}, {"minimum_size": (15, 28)}, {"size_multiple": 0}):
        fields = {"image_size": (28, 28), "minimum_size": (14, 14), "size_multiple": 14} | wrong
        with pytest.raises(PluginError, match="multiple"):
            ModelPlugin(build=lambda scaled, weights: scaled, scale=lambda x: x, **fields)
