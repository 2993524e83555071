"""The fused optimisers against Keras's own: the same weights and the same state after ten steps."""

import zipfile
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf

from chestxray.recipe import Recipe
from chestxray.training import fused_optimizers, objective

X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
Y = np.eye(3, dtype=np.float32)[np.arange(16) % 3]
MADE = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "schedule": lambda: keras.optimizers.AdamW(objective.learning_rate(Recipe(), 0.05, 10), weight_decay=0.1),
}


def network(dtype="float32"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(8, "relu", dtype=dtype, name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax", dtype="float32", name="last")(x))


def trained(optimizer, steps=10, dtype="float32", fused=True, **options):
    model = network(dtype)
    if isinstance(optimizer, keras.optimizers.AdamW):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    if dtype == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", **options)
    with fused_optimizers.fused(optimizer) if fused else nullcontext():
        for _ in range(steps):
            model.train_on_batch(X, Y)
    return model


def state(model):
    # Keras numbers the optimisers of a process: adam, adam_1.
    return [(variable.path.partition("/")[2], np.asarray(variable)) for variable in model.optimizer.variables]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("options", [{"jit_compile": False}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_they_give_what_keras_gives(name, options):
    quick = trained(MADE[name](), **options)
    plain = trained(MADE[name](), fused=False, **options)
    for a, b in zip(quick.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    for (path, a), (known, b) in zip(state(quick), state(plain), strict=True):
        assert path == known
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", MADE)
def test_mixed_precision_scales_the_loss_as_keras_does(name):
    quick = trained(MADE[name](), dtype="mixed_float16")
    plain = trained(MADE[name](), dtype="mixed_float16", fused=False)
    for a, b in zip(quick.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def test_decay_alone_shrinks_what_is_not_excluded():
    model = trained(keras.optimizers.AdamW(0.01, weight_decay=0.5), steps=0)
    before = [w.copy() for w in model.get_weights()]
    model.optimizer.build(model.trainable_variables)
    with fused_optimizers.fused(model.optimizer):
        model.optimizer.apply([tf.zeros_like(v) for v in model.trainable_variables], model.trainable_variables)
    kernel, bias = model.get_weights()[:2]
    np.testing.assert_allclose(kernel, before[0] * (1 - 0.5 * 0.01), rtol=1e-6)
    np.testing.assert_array_equal(bias, before[1])


def test_sparse_gradients_are_left_to_keras():
    def embedded(context):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Embedding(5, 3), keras.layers.GlobalAveragePooling1D()])
        model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
        with context(model.optimizer):
            for _ in range(3):
                model.train_on_batch(np.array([[0, 1], [1, 2]]), np.ones((2, 3)))
        return model.get_weights()[0]

    np.testing.assert_allclose(embedded(fused_optimizers.fused), embedded(nullcontext), rtol=1e-5)


def operations(optimizer, context):
    model = network()
    optimizer.build(model.trainable_variables)
    values = [v.value for v in model.trainable_variables]

    @tf.function
    def run():
        optimizer.apply([tf.ones_like(v) for v in values], model.trainable_variables)

    with context(optimizer):
        return [operation.type for operation in run.get_concrete_function().graph.get_operations()]


def test_a_step_has_a_fraction_of_the_operations():
    quick, plain = (operations(MADE["schedule"](), context) for context in (fused_optimizers.fused, nullcontext))
    assert quick.count("ResourceApplyAdam") == 4
    assert len(quick) < len(plain) / 2


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.RMSprop, keras.optimizers.SGD, lambda: keras.optimizers.Adam(amsgrad=True)]
)
def test_others_are_left_to_keras(optimizer):
    made = operations(optimizer(), fused_optimizers.fused)
    assert not any(name.startswith("ResourceApply") for name in made)


def test_afterwards_it_is_keras_again():
    optimizer = MADE["adam"]()
    before = set(vars(optimizer))
    with pytest.raises(RuntimeError), fused_optimizers.fused(optimizer):
        raise RuntimeError
    assert set(vars(optimizer)) == before


def test_nothing_of_it_is_saved(tmp_path):
    model = network()
    model.compile(optimizer="adamw", loss="categorical_crossentropy")
    with fused_optimizers.fused(model.optimizer):
        model.train_on_batch(X, Y)
        model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is keras.optimizers.AdamW
    assert "chestxray" not in zipfile.ZipFile(tmp_path / "model.keras").read("config.json").decode()
