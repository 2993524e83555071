"""The fused operation against plain Keras: outputs, gradients, moving averages, and what is saved."""

import inspect
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from chestxray.training.fused_batch_norm import fused

IMAGES = np.random.default_rng(0).normal(3, 2, (6, 8, 8, 3)).astype(np.float32)
OPTIONS = {
    "plain": {},
    "no scale": {"scale": False},
    "no offset": {"center": False},
    "epsilon": {"epsilon": 1.001e-5, "momentum": 0.5},
}


def network(dtype="float32", **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, dtype=dtype)(inputs)
    x = keras.layers.BatchNormalization(dtype=dtype, name="norm", **options)(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(dtype="float32")(keras.layers.ReLU(dtype=dtype)(x)))


def step(model, images=IMAGES):
    """Outputs, gradients and variables after one step."""
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = tf.reduce_sum(outputs**2)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return [np.asarray(outputs), *map(np.asarray, gradients), *map(np.asarray, model.get_weights())]


def operations(model):
    function = tf.function(lambda images: model(images, training=True))
    graph = function.get_concrete_function(tf.TensorSpec((6, 8, 8, 3))).graph
    return [operation.type for operation in graph.get_operations()]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_computes_what_keras_computes(options):
    model = network(**options)
    with fused(model):
        assert "FusedBatchNormV3" in operations(model)
        quick = step(model)
    wanted = step(network(**options))
    for a, b in zip(quick, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_moving_variance_is_the_biased_one():
    """Without Bessel's correction, which is a sixth of the variance where six numbers are averaged."""
    inputs = keras.Input((1, 1, 3))
    model = keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.0)(inputs))
    images = IMAGES[:, :1, :1]
    with fused(model):
        step(model, images)
    np.testing.assert_allclose(model.layers[-1].moving_variance, images.reshape(6, 3).var(axis=0), rtol=1e-5)


def test_a_batch_of_unknown_size():
    def step_of(model):
        run = tf.function(lambda x: model(x, training=True), input_signature=[tf.TensorSpec((None, 8, 8, 3))])
        return [np.asarray(run(tf.constant(IMAGES))), *model.get_weights()]

    model = network()
    with fused(model):
        quick = step_of(model)
    for a, b in zip(quick, step_of(network()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(kind):
    model = network(kind)
    with fused(model):
        assert "FusedBatchNormV3" in operations(model)
        quick = step(model)
    tolerance = 0.02 if kind == "mixed_float16" else 0.2
    for a, b in zip(quick, step(network(kind)), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_frozen_layers_and_inference_are_left_to_keras():
    model = network()
    with fused(model):
        model.get_layer("norm").trainable = False
        assert "FusedBatchNormV3" not in operations(model)


@pytest.mark.parametrize("options", [{"epsilon": 1e-6}, {"axis": 1}, {"renorm": True}], ids=str)
def test_what_the_operation_cannot_do_is_left_to_keras(options):
    if missing := options.keys() - inspect.signature(keras.layers.BatchNormalization).parameters.keys():
        pytest.skip(f"this Keras has no {', '.join(missing)}")
    model = network(**options)
    with fused(model):
        assert "FusedBatchNormV3" not in operations(model)


def test_a_layer_of_a_plugin_of_its_own_is_left_alone():
    class Other(keras.layers.BatchNormalization):
        pass

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, Other()(inputs))
    with fused(model):
        assert type(model.layers[-1]) is Other
        assert "FusedBatchNormV3" not in operations(model)


def test_nothing_of_it_is_saved(tmp_path):
    model = network()
    with fused(model):
        step(model)
        model.save(tmp_path / "during.keras")
    assert "FusedBatchNormV3" not in operations(model)
    model.save(tmp_path / "after.keras")
    for file in ("during.keras", "after.keras"):
        loaded = keras.models.load_model(tmp_path / file)
        assert type(loaded.get_layer("norm")) is keras.layers.BatchNormalization
        assert "chestxray" not in zipfile.ZipFile(tmp_path / file).read("config.json").decode()
        np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))


def test_an_error_puts_the_layers_back():
    model = network()
    with pytest.raises(RuntimeError), fused(model):
        raise RuntimeError
    assert "FusedBatchNormV3" not in operations(model)
