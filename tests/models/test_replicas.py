"""Logical devices of the CPU stand in for several GPUs, each test in a process of its own: a second mirrored strategy
fails in TensorFlow's collectives.
"""

import json
import subprocess
import sys
import textwrap
from itertools import product
from pathlib import Path

import pytest

from chestxray.errors import InputError
from chestxray.models import replicas
from chestxray.recipe import Recipe
from chestxray.training.fit import rate_of

PREPARED = """
    import dataclasses, json, sys, tempfile
    sys.path.insert(0, {tests!r})
    import numpy as np, tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * {number})
    import keras
    from pathlib import Path
    from made import make_index, tiny_plugin
    from chestxray.models import devices, forward
    from chestxray.models.assembly import build
    from chestxray.recipe import Recipe
    from chestxray.training import fit
    from chestxray.training.finding_losses import FindingLoss

    def head(features, classes):  # without dropout, whose draws differ by device
        return keras.layers.Dense(classes)(keras.layers.GlobalAveragePooling2D()(features))

    plugin = dataclasses.replace(tiny_plugin(), head=head)
    several = "cpu:" + ",".join(map(str, range({number})))
    pixels = np.random.default_rng(0).integers(0, 255, (50, 16, 16), dtype=np.uint8)
    # Of 17 images of validation in batches of 16 the last would leave all devices but one without any.
    index = make_index(["a", "b"] * 25, splits=["train"] * 33 + ["validation"] * 17)
"""

TRAINED = """
    def trained(chosen, **options):
        strategy = devices.strategy(chosen)
        recipe = Recipe(weights="none", epochs=2, batch_size=16, optimizer="sgd", **options)
        keras.utils.set_random_seed(1)
        with strategy.scope():
            built = build(plugin, 2, (16, 16))
        history = fit.train(built, pixels, index, recipe, Path(tempfile.mkdtemp()), strategy)
        outputs = np.asarray(built.model(pixels[..., None].astype("float32")))
        shared = forward.Forward(built.model)
        assert (shared.strategy is not None) == (chosen == several)
        # Batches of 7 and the last of 1: fewer images than devices.
        again = np.concatenate([part for part, in forward.outputs(shared, pixels, np.arange(50), 7)])
        assert not any(layer.get_config().get("synchronized") for layer in built.model.layers)
        # The soft F1 of validation is a mean over batches, which are cut otherwise for several devices.
        shown = history["loss"] if options["loss"] == "soft_f1" else [*history["loss"], *history["val_loss"]]
        return [*shown, *outputs.ravel()], float(np.abs(again - outputs).max())

    gaps = dict()
    for name, options in {cases!r}.items():
        one, _ = trained("cpu:0", **options)
        many, forward_gap = trained(several, **options)
        gaps[name] = float(np.abs(np.subtract(one, many)).max()), forward_gap
    print(json.dumps(gaps))
"""

FINDINGS = """
    strategy = devices.strategy(several)
    generator = np.random.default_rng(1)
    targets = (generator.random((24, 3)) < 0.4).astype(np.float32)
    targets[generator.random((24, 3)) < 0.5] = np.nan  # another number is known on each device
    features = generator.normal(size=(24, 5)).astype(np.float32)
    with strategy.scope():
        weights = tf.Variable(generator.normal(size=(5, 3)).astype(np.float32))

    def step(x, y, loss):  # Keras divides a loss by the number of devices
        with tf.GradientTape() as tape:
            value = loss(y, tf.sigmoid(x @ weights))
        return value, tape.gradient(value, weights)

    def part(values, context):
        return tf.constant(values[context.replica_id_in_sync_group :: {number}])

    gaps = []
    for kind in ("crossentropy", "focal", "asymmetric", "soft_f1"):
        loss = FindingLoss(kind)
        x, y = (
            strategy.experimental_distribute_values_from_function(lambda context, v=v: part(v, context))
            for v in (features, targets)
        )
        shared = tf.function(lambda x, y: strategy.run(step, args=(x, y, loss)))(x, y)
        alone = step(tf.constant(features), tf.constant(targets), loss)
        summed = [strategy.reduce("SUM", value, axis=None) for value in shared]
        gaps += [float(tf.reduce_max(tf.abs(a - b))) for a, b in zip(summed, alone)]
    print(json.dumps(gaps))
"""

ANSWERS = """
    from chestxray.models import devices as present, replicas
    from chestxray.explanation.inference_graph import Graph
    with devices.strategy("cpu:0").scope():
        one = build(plugin, 2, (16, 16)).model
    with devices.strategy(several).scope():
        many = keras.models.clone_model(one)
        many.set_weights(one.get_weights())
    signature = tf.TensorSpec((None, 16, 16, 1), tf.float32)
    shared = replicas.shared(Graph(many, "last").compute, signature, replicas.strategy_of(many))
    gaps = []
    for count in (1, 2, 5, 16):
        images = tf.constant(pixels[:count, ..., None], tf.float32)
        alone, together = Graph(one, "last").compute(images), shared(images)
        gaps += [float(np.abs(alone[name] - together[name]).max()) for name in ("probabilities", "map")]
        assert all(len(value) == count for value in together.values())
    print(json.dumps(gaps))
"""


def in_process(code, number, **values):
    whole = (PREPARED + code).replace("{number}", str(number))
    values["tests"] = str(Path(__file__).parents[1])
    for name, value in values.items():
        whole = whole.replace(f"{{{name}!r}}", repr(value))
    run = [sys.executable, "-c", textwrap.dedent(whole)]
    result = subprocess.run(run, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("number", [2, 4])
def test_several_devices_train_and_predict_as_one_does(number):
    cases = {"crossentropy": {"loss": "crossentropy", "sync_batch_norm": True}}
    if number == 2:
        cases["soft_f1"] = {"loss": "soft_f1", "sync_batch_norm": True}
        cases["batch normalisation by device"] = {"loss": "crossentropy"}
    gaps = in_process(TRAINED, number, cases=cases)
    by_device = gaps.pop("batch normalisation by device", None)
    assert by_device is None or by_device[0] > 1e-4, "without being asked, it is not synchronised"
    assert max(trained for trained, _ in gaps.values()) < 1e-5
    assert max(forward for _, forward in gaps.values()) < 1e-6


def test_losses_of_findings_are_those_of_the_whole_batch():
    assert max(in_process(FINDINGS, 2)) < 1e-6


def test_heat_maps_and_probabilities_are_shared_by_devices():
    assert max(in_process(ANSWERS, 2)) < 1e-5


def test_every_device_has_a_part_of_every_slice():
    for rows, batch, devices in product(range(1, 200), (8, 16, 33), (2, 3, 4, 8)):
        try:
            parts = replicas.even_parts(rows, batch, devices)
        except InputError:
            assert rows % devices and rows <= devices**2
            continue
        assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rows))
        sizes = [part.stop - part.start for part in parts]
        assert sizes[0] % devices == 0, "Keras takes the mean of the shares of the first"
        shares = [min(-(-size // devices), size - (devices - 1) * -(-size // devices)) for size in sizes]
        assert min(shares) > 0
        assert max(sizes) <= max(batch, devices**2) + devices


def test_shares_of_a_training_batch_are_equal():
    assert replicas.equal_batch(32, 1000, 3) == 30
    assert replicas.equal_batch(32, 1000, 1) == 32
    assert replicas.equal_batch(32, 9, 4) == 8
    with pytest.raises(InputError, match=r"number of devices \(4\)\. Received: 3 images"):
        replicas.equal_batch(32, 3, 4)


def test_learning_rates_are_scaled_to_the_batch_where_asked():
    plain = Recipe(batch_size=128, learning_rate=0.1, finetune_learning_rate=0.01)
    assert rate_of(plain, "full") == 0.1
    assert rate_of(plain.replace(learning_rate_batch=32, optimizer="sgd"), "full") == pytest.approx(0.4)
    assert rate_of(plain.replace(learning_rate_batch=32, optimizer="adamw"), "finetune") == pytest.approx(0.02)


def test_memory_of_a_gpu_is_taken_as_it_is_needed():
    code = """
from chestxray.models import startup
startup.start()
import os
print(os.environ["TF_FORCE_GPU_ALLOW_GROWTH"])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert result.stdout.strip() == "true"
