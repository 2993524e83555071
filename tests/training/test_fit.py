import json
import subprocess
import sys
import textwrap
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from chestxray.errors import InputError, TrainingError
from chestxray.models.assembly import build
from chestxray.recipe import Recipe
from chestxray.report import figures
from chestxray.training import checkpoint, fit
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
    history = fit.train(built, *data, recipe, folder, tf.distribute.get_strategy())
    return built, history


def weights(built):
    return [np.asarray(w) for w in built.model.get_weights()]


def test_it_learns_and_keeps_the_best_epoch(tiny, data, tmp_path):
    built, history = train(tiny, data, tmp_path, RECIPE.replace(epochs=12, learning_rate=0.02, augment="none"))
    assert history["phase"].tolist() == ["full"] * 12
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    built.model.compile(loss="categorical_crossentropy")
    validation = fit.Rows.of(data[1], "validation")
    images = data[0][validation.places][..., None].astype(np.float32)
    loss = built.model.evaluate(images, validation.labels, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(history["val_loss"].min(), rel=1e-4)


def test_the_best_epoch_and_patience_go_by_auroc_where_asked_for(tiny, data, tmp_path):
    recipe = RECIPE.replace(epochs=12, learning_rate=0.05, schedule="constant", augment="none", monitor="auroc")
    built, history = train(tiny, data, tmp_path, recipe)
    validation = fit.Rows.of(data[1], "validation")
    p = built.model.predict(data[0][validation.places][..., None].astype(np.float32), verbose=0)
    assert roc_auc_score(validation.labels, p) == pytest.approx(history["val_auroc"].max(), abs=1e-3)
    best = figures.best_epoch(history)
    assert history["val_auroc"].iloc[best] == history["val_auroc"].max()
    assert best != history["val_loss"].argmin(), "else the test would show nothing"
    _, still = train(
        tiny, data, tmp_path / "still", recipe.replace(patience=3, learning_rate=0.0), batch_norm_momentum=1.0
    )
    assert len(still) == 4


def test_auroc_needs_both_kinds_in_validation(tiny, data, tmp_path):
    rows = data[1].rows
    alone = data[1].replace(rows[(rows["split"] != "validation") | (rows["label"] == "a")])
    with pytest.raises(InputError, match="monitor auroc needs validation images with and without"):
        train(tiny, (data[0][alone.rows.index], alone), tmp_path, RECIPE.replace(monitor="auroc"))


def test_the_seed_repeats_a_run(tiny, data, tmp_path):
    a, _ = train(tiny, data, tmp_path / "a")
    b, _ = train(tiny, data, tmp_path / "b")
    c, _ = train(tiny, data, tmp_path / "c", RECIPE.replace(seed=6))
    assert all(np.allclose(x, y, atol=1e-6) for x, y in zip(weights(a), weights(b), strict=True))
    assert not all(np.allclose(x, y, atol=1e-6) for x, y in zip(weights(a), weights(c), strict=True))


def cut(tiny, data, folder, recipe, monkeypatch, epoch, *, method="on_epoch_end", **build_options):
    """Train until `epoch` is over, or until it reaches `method` of the record."""
    real = getattr(checkpoint.Record, method)

    def interrupted(self, number, *rest, **named):
        if method == "on_epoch_end" or number != epoch:
            real(self, number, *rest, **named)
        if number == epoch:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Record, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, data, folder, recipe, **build_options)


def alike(a, b):
    """Whether two trainings, each of a built model and its history, went and ended alike."""
    pd.testing.assert_frame_equal(a[1].drop(columns="seconds"), b[1].drop(columns="seconds"), rtol=1e-4)
    return all(np.allclose(x, y, atol=1e-5) for x, y in zip(weights(a[0]), weights(b[0]), strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "cosine"},
        {"schedule": "constant"},
        {"optimizer": "sgd", "mix": "mixup"},
        {"monitor": "auroc", "sampling": "rarity"},
    ],
    ids=str,
)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(tiny, data, tmp_path, monkeypatch, changes):
    recipe = RECIPE.replace(**changes)
    whole = train(tiny, data, tmp_path / "whole", recipe)
    cut(tiny, data, tmp_path / "cut", recipe, monkeypatch, 1)
    resumed = train(tiny, data, tmp_path / "cut", recipe)
    assert resumed[1]["epoch"].tolist() == [0, 1, 2]
    assert alike(whole, resumed)


def test_half_precision_goes_on_with_its_loss_scale(tiny, data, tmp_path, monkeypatch):
    whole = train(tiny, data, tmp_path / "whole", mixed_precision=True)
    cut(tiny, data, tmp_path / "cut", RECIPE, monkeypatch, 1, mixed_precision=True)
    resumed = train(tiny, data, tmp_path / "cut", mixed_precision=True)
    assert type(resumed[0].model.optimizer).__name__ == "LossScaleOptimizer"
    assert [float(v) for v in whole[0].model.optimizer.variables[:2]] == [
        float(v) for v in resumed[0].model.optimizer.variables[:2]
    ]
    assert alike(whole, resumed)


#: On these the validation loss rises from epoch to epoch, so that after epochs 2 and 4 the rate is lowered.
WORSENING = RECIPE.replace(schedule="plateau", optimizer="sgd", learning_rate=0.05, augment="none", epochs=6)
RATES = [0.05, 0.05, 0.05, 0.015, 0.015, 0.0045]


@pytest.fixture
def worsening(data):
    """`data` with the validation's labels exchanged: what is learnt is wrong there."""
    rows = data[1].rows
    other = rows["label"].map({"a": "b", "b": "a"})
    return data[0], data[1].replace(rows.assign(label=rows["label"].where(rows["split"] == "train", other)))


def test_a_plateau_lowers_the_rate(tiny, worsening, tmp_path):
    _, history = train(tiny, worsening, tmp_path, WORSENING)
    assert history["val_loss"].is_monotonic_increasing, "the test is of a plateau"
    assert history["learning_rate"].tolist() == pytest.approx(RATES)


@pytest.mark.parametrize("epoch", [1, 2, 3], ids=["half of its patience", "when it had fired", "half of the next"])
def test_a_plateau_goes_on_where_it_was(tiny, worsening, tmp_path, monkeypatch, epoch):
    whole = train(tiny, worsening, tmp_path / "whole", WORSENING)
    cut(tiny, worsening, tmp_path / "cut", WORSENING, monkeypatch, epoch)
    resumed = train(tiny, worsening, tmp_path / "cut", WORSENING)
    assert resumed[1]["learning_rate"].tolist() == pytest.approx(RATES)
    assert alike(whole, resumed)


@pytest.mark.parametrize("seed", range(5))
def test_a_plateau_is_that_of_keras(seed):
    import keras

    from chestxray.training.objective import Plateau

    values = 1 - np.cumsum(np.random.default_rng(seed).normal(2e-5, 2e-4, 40))
    optimizer = keras.optimizers.SGD(0.1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer, loss="mse")
    theirs = keras.callbacks.ReduceLROnPlateau(factor=0.3, patience=2, min_lr=1e-4)
    theirs.set_model(model)
    theirs.on_train_begin()
    rates = []
    for epoch, value in enumerate(values):
        theirs.on_epoch_end(epoch, {"val_loss": value})
        rates.append(float(optimizer.learning_rate))
    assert len(set(rates)) > 3
    assert [Plateau(0.1).after(values[: n + 1]) for n in range(40)] == pytest.approx(rates)


@pytest.mark.parametrize("epoch", [0, 2])
def test_an_epoch_that_was_saved_and_not_written_down_is_trained_again(tiny, data, tmp_path, monkeypatch, epoch):
    whole = train(tiny, data, tmp_path / "whole")
    cut(tiny, data, tmp_path / "cut", RECIPE, monkeypatch, epoch, method="_append")
    resumed = train(tiny, data, tmp_path / "cut")
    assert resumed[1]["epoch"].tolist() == [0, 1, 2]
    assert alike(whole, resumed)


def test_a_loss_is_read_as_it_was_written(tmp_path):
    record = checkpoint.Record(tmp_path / "h.csv", "full", tmp_path, 0)
    values = np.random.default_rng(0).random(1000)
    pd.DataFrame({"phase": "full", "epoch": range(1000), "val_loss": values}).to_csv(record.history, index=False)
    assert (record.rows()["val_loss"] == values).all()


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
        {"sampling": "rarity"},
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


def test_a_loss_that_explodes_stops_the_run(tiny, data, tmp_path):
    with pytest.raises(TrainingError, match="no longer finite in epoch"):
        train(tiny, data, tmp_path, RECIPE.replace(optimizer="sgd", learning_rate=1e30, schedule="constant"))


def test_weights_that_are_not_finite_are_seen_although_the_loss_is(tiny, data, tmp_path):
    record = checkpoint.Record(tmp_path / "h.csv", "full", tmp_path / "s", 0)
    built = build(tiny, 2, (16, 16))
    built.model.get_layer("norm").moving_mean.assign([np.nan] * 4)
    record.set_model(built.model)
    with pytest.raises(TrainingError, match="moving_mean"):
        record.on_epoch_end(0, {"loss": 1.0, "val_loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.5})


def test_optimisers_are_made_as_the_recipe_says():
    from chestxray.training.objective import optimizer

    sgd, adamw = (optimizer(Recipe(optimizer=name, weight_decay=0.3), 0.5, 10) for name in ("sgd", "adamw"))
    assert (sgd.momentum, sgd.nesterov) == (0.9, True)
    assert adamw.weight_decay == 0.3
    plain = optimizer(Recipe(optimizer="adam", schedule="constant"), 0.5, 10)
    assert float(plain.learning_rate) == 0.5
    assert type(plain).__name__ == "Adam"


def test_the_cosine_warms_up_and_decays():
    from chestxray.training.objective import learning_rate

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
    from chestxray.models import devices
    from chestxray.training import fit
    from chestxray.errors import InputError
    from chestxray.models.assembly import build
    from chestxray.recipe import Recipe
    # 33 images in batches of 16: the ragged third batch would be one image for two replicas.
    pixels = np.random.default_rng(0).integers(0, 255, (41, 16, 16), dtype=np.uint8)
    index = make_index(["a", "b"] * 20 + ["a"], splits=["train"] * 33 + ["validation"] * 8)
    strategy = devices.strategy("cpu:0,1")
    recipe = Recipe(weights="none", epochs=2, batch_size=16, devices="cpu:0,1")
    with strategy.scope():
        built = build(tiny_plugin(), 2, (16, 16))
    history = fit.train(built, pixels, index, recipe, Path({folder!r}), strategy)
    finite = all(np.isfinite(w).all() for w in built.model.get_weights())
    refused = ""
    try:
        fit.train(built, pixels, index, recipe.replace(batch_size=1), Path({folder!r}), strategy)
    except InputError as error:
        refused = str(error)
    print(json.dumps([strategy.num_replicas_in_sync, finite, len(history), refused]))
"""


@pytest.mark.slow
def test_two_replicas_never_see_a_ragged_batch(tmp_path):
    from pathlib import Path

    code = textwrap.dedent(TWO_DEVICES.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path)))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    replicas, finite, epochs, refused = json.loads(result.stdout.strip().splitlines()[-1])
    assert (replicas, finite, epochs) == (2, True, 2)
    assert "at least the number of devices (2)" in refused


FUSED_OR_PLAIN = """
    import json, sys
    sys.path.insert(0, {tests!r})
    import numpy as np, tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from contextlib import nullcontext
    from pathlib import Path
    from made import make_index, tiny_plugin
    from chestxray.models import devices
    from chestxray.training import fit
    from chestxray.models.assembly import build
    from chestxray.recipe import Recipe
    pixels = np.random.default_rng(0).integers(0, 255, (41, 16, 16), dtype=np.uint8)
    index = make_index(["a", "b"] * 20 + ["a"], splits=["train"] * 33 + ["validation"] * 8)
    strategy = devices.strategy("cpu:0,1")
    recipe = Recipe(weights="none", epochs=2, batch_size=16, devices="cpu:0,1", optimizer={optimizer!r})

    def trained(folder):
        folder.mkdir()
        with strategy.scope():
            built = build(tiny_plugin(), 2, (16, 16))
        history = fit.train(built, pixels, index, recipe, folder, strategy)
        # Not the weights: those of an offset before batch normalisation have no effect, and rounding for a gradient.
        return [*history["val_loss"], *np.asarray(built.model(pixels[..., None].astype("float32"))).ravel()]

    quick = trained(Path({folder!r}) / "fused")
    fit.fused_batch_norm.fused = fit.fused_optimizers.fused = lambda replaced: nullcontext()
    plain = trained(Path({folder!r}) / "plain")
    print(json.dumps([strategy.num_replicas_in_sync, float(np.abs(np.subtract(quick, plain)).max())]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_two_replicas_train_fused_as_plain_keras_does(tmp_path, optimizer):
    from pathlib import Path

    given = {"tests": str(Path(__file__).parents[1]), "folder": str(tmp_path), "optimizer": optimizer}
    code = textwrap.dedent(FUSED_OR_PLAIN.format(**given))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    replicas, difference = json.loads(result.stdout.strip().splitlines()[-1])
    assert replicas == 2
    assert difference < 1e-4


@pytest.mark.parametrize("options", [{}, {"mixed_precision": True}], ids=["float32", "mixed"])
def test_it_trains_as_plain_keras_does(tiny, data, tmp_path, monkeypatch, options):
    fused, quick = train(tiny, data, tmp_path / "fused", **options)
    monkeypatch.setattr(fit.fused_batch_norm, "fused", lambda model: nullcontext())
    monkeypatch.setattr(fit.fused_optimizers, "fused", lambda optimizer: nullcontext())
    plain, slow = train(tiny, data, tmp_path / "plain", **options)
    near = 1e-2 if options else 1e-5
    np.testing.assert_allclose(quick["val_loss"], slow["val_loss"], rtol=near)
    images = data[0][..., None].astype(np.float32)
    np.testing.assert_allclose(fused.model(images), plain.model(images), rtol=near, atol=near)


@pytest.mark.parametrize("devices", ["tpu", "gpu:7", "cpu:0,0", "gpu"])
def test_devices_that_are_not_there_are_refused(devices):
    from chestxray.models.devices import chosen

    with pytest.raises(InputError, match=r"some of .*cpu:0.* Received"):
        chosen(devices)
