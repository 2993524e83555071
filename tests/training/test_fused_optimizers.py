"""The fused optimisers against Keras's own: the same weights and the same state after ten steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from chestxray.recipe import Recipe
from chestxray.training import fused_optimizers, objective

X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
Y = np.eye(3, dtype=np.float32)[np.arange(16) % 3]
MADE = {
    "adam": lambda of: of.Adam(0.01),
    "adamw": lambda of: of.AdamW(0.01, weight_decay=0.1),
    "sgd": lambda of: of.SGD(0.01, momentum=0.9, nesterov=True),
    "schedule": lambda of: of.AdamW(objective.learning_rate(Recipe(), 0.05, 10), weight_decay=0.1),
}


def network(dtype="float32"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(8, "relu", dtype=dtype, name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax", dtype="float32", name="last")(x))


def trained(made, steps=10, dtype="float32", **options):
    model, optimizer = network(dtype), made
    if isinstance(optimizer, keras.optimizers.AdamW):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    if dtype == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", **options)
    for _ in range(steps):
        model.train_on_batch(X, Y)
    return model


def state(model):
    # Keras numbers the optimisers of a process: adam, adam_1.
    return [(variable.path.partition("/")[2], np.asarray(variable)) for variable in model.optimizer.variables]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("options", [{"jit_compile": False}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_they_give_what_keras_gives(name, options):
    quick = trained(MADE[name](fused_optimizers), **options)
    plain = trained(MADE[name](keras.optimizers), **options)
    for a, b in zip(quick.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    for (path, a), (known, b) in zip(state(quick), state(plain), strict=True):
        assert path == known
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", MADE)
def test_mixed_precision_scales_the_loss_as_keras_does(name):
    quick = trained(MADE[name](fused_optimizers), dtype="mixed_float16")
    plain = trained(MADE[name](keras.optimizers), dtype="mixed_float16")
    for a, b in zip(quick.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def test_decay_alone_shrinks_what_is_not_excluded():
    model = trained(fused_optimizers.AdamW(0.01, weight_decay=0.5), steps=0)
    before = [w.copy() for w in model.get_weights()]
    model.optimizer.build(model.trainable_variables)
    model.optimizer.apply([tf.zeros_like(v) for v in model.trainable_variables], model.trainable_variables)
    kernel, bias = model.get_weights()[:2]
    np.testing.assert_allclose(kernel, before[0] * (1 - 0.5 * 0.01), rtol=1e-6)
    np.testing.assert_array_equal(bias, before[1])


def test_sparse_gradients_are_left_to_keras():
    def embedded(of):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Embedding(5, 3), keras.layers.GlobalAveragePooling1D()])
        model.compile(optimizer=of.Adam(0.01), loss="mse")
        for _ in range(3):
            model.train_on_batch(np.array([[0, 1], [1, 2]]), np.ones((2, 3)))
        return model.get_weights()

    np.testing.assert_allclose(embedded(fused_optimizers)[0], embedded(keras.optimizers)[0], rtol=1e-5)


def test_a_step_has_a_fraction_of_the_operations():
    def count(optimizer):
        model = network()
        optimizer.build(model.trainable_variables)
        values = [v.value for v in model.trainable_variables]

        @tf.function
        def run():
            optimizer.apply([tf.ones_like(v) for v in values], model.trainable_variables)

        return len(run.get_concrete_function().graph.get_operations())

    assert count(MADE["schedule"](fused_optimizers)) < count(MADE["schedule"](keras.optimizers)) / 2


def test_the_recipe_chooses_them():
    for name in ("adam", "adamw", "sgd"):
        optimizer = objective.optimizer(Recipe(optimizer=name), 1e-3, 100)
        assert type(optimizer).__module__ == fused_optimizers.__name__
        assert type(optimizer).__name__.lower() == name
