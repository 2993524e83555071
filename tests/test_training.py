import json
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from chestxray import training
from chestxray.errors import InputError, TrainingError
from chestxray.model import build
from chestxray.recipe import Recipe
from made import make_index, tiny_plugin

N = 24
RECIPE = Recipe(model="tiny", weights="none", epochs=3, batch_size=4, augment="light", patience=0, seed=5)


@pytest.fixture
def data():
    """Class b has a bright corner: something that can be learnt."""
    labels = ["a", "b"] * (N // 2)
    splits = ["train"] * 16 + ["validation"] * 8
    pixels = np.random.default_rng(0).integers(0, 120, (N, 16, 16), dtype=np.uint8)
    pixels[1::2, :6, :6] += 120
    return pixels, make_index(labels, splits=splits)


def train(tiny, data, folder, recipe=RECIPE, **build_options):
    folder.mkdir(exist_ok=True)
    built = build(tiny, 2, (16, 16), seed=recipe.seed, **build_options)
    history = training.train(built, *data, recipe, folder, tf.distribute.get_strategy())
    return built, history


def weights(built):
    return [np.asarray(w) for w in built.model.get_weights()]


def test_it_learns_and_keeps_the_best_epoch(tiny, data, tmp_path):
    built, history = train(tiny, data, tmp_path, RECIPE.replace(epochs=12, learning_rate=0.02, augment="none"))
    assert history["phase"].tolist() == ["full"] * 12
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    built.model.compile(loss="categorical_crossentropy")
    validation = training.Rows.of(data[1], "validation")
    images = data[0][validation.places][..., None].astype(np.float32)
    loss = built.model.evaluate(images, validation.labels, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(history["val_loss"].min(), rel=1e-4)


def test_the_seed_repeats_a_run(tiny, data, tmp_path):
    a, _ = train(tiny, data, tmp_path / "a")
    b, _ = train(tiny, data, tmp_path / "b")
    c, _ = train(tiny, data, tmp_path / "c", RECIPE.replace(seed=6))
    assert all(np.allclose(x, y, atol=1e-6) for x, y in zip(weights(a), weights(b), strict=True))
    assert not all(np.allclose(x, y, atol=1e-6) for x, y in zip(weights(a), weights(c), strict=True))


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(tiny, data, tmp_path, monkeypatch, schedule):
    recipe = RECIPE.replace(schedule=schedule)
    whole, history = train(tiny, data, tmp_path / "whole", recipe)

    end = training.Record.on_epoch_end

    def interrupted(self, epoch, logs=None):
        end(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Record, "on_epoch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, data, tmp_path / "cut", recipe)
    resumed, history_resumed = train(tiny, data, tmp_path / "cut", recipe)
    assert history_resumed["epoch"].tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), history_resumed.drop(columns="seconds"), rtol=1e-4)
    assert all(np.allclose(x, y, atol=1e-5) for x, y in zip(weights(whole), weights(resumed), strict=True))


def test_two_phases_train_the_head_and_then_from_the_layer_on(tiny, data, tmp_path):
    source = build(tiny, 2, (16, 16), seed=9).model
    source.save_weights(tmp_path / "pre.weights.h5")
    recipe = RECIPE.replace(weights=str(tmp_path / "pre.weights.h5"), head_epochs=2, epochs=1)
    built, history = train(tiny, data, tmp_path / "run", recipe, weights=recipe.weights)
    assert history["phase"].tolist() == ["head", "head", "finetune"]
    before = {layer.name: layer.get_weights() for layer in source.layers}
    after = {layer.name: layer.get_weights() for layer in built.model.layers}
    for name in ("first", "norm"):
        assert all((x == y).all() for x, y in zip(before[name], after[name], strict=True)), f"{name} is frozen"
    assert (before["last"][0] != after["last"][0]).any()


def test_early_stopping_counts_across_an_interruption(tiny, data, tmp_path):
    recipe = RECIPE.replace(epochs=30, patience=2, learning_rate=0.0)  # nothing ever improves
    _, history = train(tiny, data, tmp_path, recipe.replace(batch_norm_momentum=1.0), batch_norm_momentum=1.0)
    assert len(history) == 3
    _, again = train(tiny, data, tmp_path, recipe, batch_norm_momentum=1.0)
    assert len(again) == 3, "what was finished is not trained further"


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        {"schedule": "constant"},
        {"loss": "focal"},
        {"loss": "soft_f1"},
        {"label_smoothing": 0.2},
        {"class_weights": False},
        {"augment": "crop"},
        {"mix": "mixup"},
        {},
    ],
    ids=lambda changes: "-".join(f"{name}={value}" for name, value in changes.items()) or "nothing",
)
def test_each_option_changes_what_is_learnt(tiny, data, tmp_path, changes, learnt):
    # As many images of each class would have weights of 1.
    index = data[1].replace(data[1].rows.assign(label=["a"] * 12 + ["b"] * 12))
    built, _ = train(tiny, (data[0], index), tmp_path, RECIPE.replace(epochs=1, **changes))
    same = all(np.allclose(x, y, atol=1e-6) for x, y in zip(weights(built), learnt, strict=True))
    assert same == (not changes)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """The weights that the recipe itself leads to."""
    index = make_index(["a"] * 12 + ["b"] * 12, splits=["train"] * 16 + ["validation"] * 8)
    pixels = np.random.default_rng(0).integers(0, 120, (N, 16, 16), dtype=np.uint8)
    pixels[1::2, :6, :6] += 120
    return weights(train(tiny_plugin(), (pixels, index), tmp_path_factory.mktemp("same"), RECIPE.replace(epochs=1))[0])


def test_a_plateau_lowers_the_rate(tiny, data, tmp_path):
    recipe = RECIPE.replace(schedule="plateau", optimizer="sgd", learning_rate=1e-30, epochs=6, batch_norm_momentum=1.0)
    _, history = train(tiny, data, tmp_path, recipe, batch_norm_momentum=1.0)
    assert history["learning_rate"].iloc[-1] < history["learning_rate"].iloc[0]


def test_a_loss_that_explodes_stops_the_run(tiny, data, tmp_path):
    with pytest.raises(TrainingError, match="no longer finite in epoch"):
        train(tiny, data, tmp_path, RECIPE.replace(optimizer="sgd", learning_rate=1e30, schedule="constant"))


def test_weights_that_are_not_finite_are_seen_although_the_loss_is(tiny, data, tmp_path):
    record = training.Record(tmp_path / "h.csv", "full", tmp_path / "s", 0)
    built = build(tiny, 2, (16, 16))
    built.model.get_layer("norm").moving_mean.assign([np.nan] * 4)
    record.set_model(built.model)
    with pytest.raises(TrainingError, match="moving_mean"):
        record.on_epoch_end(0, {"loss": 1.0, "val_loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.5})


def test_optimisers_are_made_as_the_recipe_says():
    from chestxray.losses import optimizer

    sgd, adamw = (optimizer(Recipe(optimizer=name, weight_decay=0.3), 0.5, 10) for name in ("sgd", "adamw"))
    assert (sgd.momentum, sgd.nesterov) == (0.9, True)
    assert adamw.weight_decay == 0.3
    plain = optimizer(Recipe(optimizer="adam", schedule="constant"), 0.5, 10)
    assert float(plain.learning_rate) == 0.5
    assert type(plain).__name__ == "Adam"


def test_the_cosine_warms_up_and_decays():
    from chestxray.losses import learning_rate

    rate = learning_rate(Recipe(warmup_share=0.1), 1.0, 100)
    assert float(rate(0)) == 0
    assert float(rate(10)) == pytest.approx(1.0)
    assert float(rate(55)) == pytest.approx(0.5, abs=0.02)
    assert float(rate(100)) == pytest.approx(0.01)


TWO_DEVICES = """
    import json, sys
    sys.path.insert(0, {tests!r})
    import numpy as np, tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from pathlib import Path
    from made import make_index, tiny_plugin
    from chestxray import devices, training
    from chestxray.errors import InputError
    from chestxray.model import build
    from chestxray.recipe import Recipe
    # 33 images in batches of 16: the ragged third batch would be one image for two replicas.
    pixels = np.random.default_rng(0).integers(0, 255, (41, 16, 16), dtype=np.uint8)
    index = make_index(["a", "b"] * 20 + ["a"], splits=["train"] * 33 + ["validation"] * 8)
    strategy = devices.strategy("cpu:0,1")
    recipe = Recipe(weights="none", epochs=2, batch_size=16, devices="cpu:0,1")
    with strategy.scope():
        built = build(tiny_plugin(), 2, (16, 16))
    history = training.train(built, pixels, index, recipe, Path({folder!r}), strategy)
    finite = all(np.isfinite(w).all() for w in built.model.get_weights())
    refused = ""
    try:
        training.train(built, pixels, index, recipe.replace(batch_size=1), Path({folder!r}), strategy)
    except InputError as error:
        refused = str(error)
    print(json.dumps([strategy.num_replicas_in_sync, finite, len(history), refused]))
"""


def test_two_replicas_never_see_a_ragged_batch(tmp_path):
    from pathlib import Path

    code = textwrap.dedent(TWO_DEVICES.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    replicas, finite, epochs, refused = json.loads(result.stdout.strip().splitlines()[-1])
    assert (replicas, finite, epochs) == (2, True, 2)
    assert "at least the number of devices (2)" in refused


@pytest.mark.parametrize("devices", ["tpu", "gpu:7", "cpu:0,0", "gpu"])
def test_devices_that_are_not_there_are_refused(devices):
    from chestxray.devices import chosen

    with pytest.raises(InputError, match=r"some of .*cpu:0.* Received"):
        chosen(devices)
