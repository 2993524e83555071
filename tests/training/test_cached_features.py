"""Training on what frozen layers give, against training the plain way."""

import dataclasses
import json
import logging
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from chestxray.models.assembly import build, freeze
from chestxray.recipe import Recipe
from chestxray.storage import cache
from chestxray.training import cached_features, checkpoint, feature_cache, fit, graph_split
from chestxray.training.augmentation import POLICIES, augment
from chestxray.training.feature_cache import Store, View
from made import make_index

N = 24
RECIPE = Recipe(
    model="tiny", weights="file", head_epochs=3, epochs=2, batch_size=4, augment="none", patience=0, seed=5,
    learning_rate=0.05, finetune_learning_rate=0.01,
)  # fmt: skip
SMALL = RECIPE.replace(head_epochs=2, epochs=0)


@pytest.fixture
def data():
    """Class b has a bright corner: something that can be learnt."""
    splits = ["train"] * 14 + ["validation"] * 6 + ["test"] * 4
    pixels = np.random.default_rng(0).integers(0, 120, (N, 16, 16), dtype=np.uint8)
    pixels[1::2, :6, :6] += 120
    return pixels, make_index(["a", "b"] * (N // 2), splits=splits)


def train(plugin, data, folder, recipe=RECIPE, **build_options):
    folder.mkdir(exist_ok=True, parents=True)
    built = build(plugin, 2, data[0].shape[1:], seed=recipe.seed, **build_options)
    history = fit.train(built, *data, recipe, folder, tf.distribute.get_strategy())
    return built, history


def same(one, other, rtol=1e-4, atol=2e-5):
    (model, history), (model_2, history_2) = one, other
    for a, b in zip(model.model.weights, model_2.model.weights, strict=True):
        if "seed_generator" not in a.path:
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=a.path)
    pd.testing.assert_frame_equal(
        history.drop(columns="seconds"), history_2.drop(columns="seconds"), rtol=max(rtol, 1e-3)
    )


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("Frozen layers")]


def residual(scaled, weights):
    """Two branches that meet again behind a frozen layer, and a second crossing of the cut."""
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(scaled)
    x = keras.layers.BatchNormalization(name="norm")(x)
    padded = keras.layers.ZeroPadding2D(1, name="padding")(x)
    # No bias before normalisation: its gradient is rounding alone, which Adam makes as large as any.
    y = keras.layers.Conv2D(4, 3, use_bias=False, name="second")(padded)
    y = keras.layers.BatchNormalization(name="second_norm")(y)
    short = keras.layers.Conv2D(4, 1, name="shortcut")(x)
    return keras.layers.Activation("relu", name="sum")(keras.layers.Add(name="add")([y, short]))


def crossed(scaled, weights):
    """A map that is led around the first trained layer: two tensors cross the cut."""
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(scaled)
    small = keras.layers.Conv2D(2, 3, padding="same", strides=2, activation="relu", name="small")(x)
    y = keras.layers.Conv2D(4, 3, padding="same", strides=2, activation="relu", name="last")(x)
    return keras.layers.Concatenate(name="joined")([small, y])


def noisy(scaled, weights):
    """Something random in the middle of the backbone."""
    x = keras.layers.Conv2D(4, 3, padding="same", strides=2, activation="relu", name="first")(scaled)
    x = keras.layers.Dropout(0.3, name="drop")(x)
    return keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="last")(x)


def of(tiny, build, start):
    return dataclasses.replace(tiny, build=build, finetune_from=start)


@pytest.fixture(params=["tiny", "residual", "crossed", "noisy"])
def plugin(request, tiny):
    builds = {"residual": (residual, "padding"), "crossed": (crossed, "last"), "noisy": (noisy, "last")}
    return of(tiny, *builds[request.param]) if request.param in builds else tiny


def test_the_weights_are_those_of_the_plain_way(plugin, data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    plain = train(plugin, data, tmp_path / "plain", RECIPE.replace(cached_views=0))
    assert not lines(caplog)
    once = train(plugin, data, tmp_path / "once")
    head, finetuning = lines(caplog)
    assert "ran once an image: 20 of 20 computed" in head
    # Behind the same dropout both phases are cut at the same place.
    assert f"ran once an image: {0 if plugin.build is noisy else 20} of 20 computed" in finetuning
    same(plain, once)
    start = build(plugin, 2, (16, 16), seed=5).model
    assert any((a != b).any() for a, b in zip(start.get_weights(), once[0].model.get_weights(), strict=True))


def test_rare_classes_are_drawn_as_the_plain_way_draws_them(tiny, data, tmp_path):
    pixels, index = data
    rare = index.replace(index.rows.assign(label=["a" if number % 4 else "b" for number in range(N)]))
    recipe = RECIPE.replace(sampling="rarity", monitor="auroc")
    same(
        train(tiny, (pixels, rare), tmp_path / "plain", recipe.replace(cached_views=0)),
        train(tiny, (pixels, rare), tmp_path / "once", recipe),
    )


def test_a_second_run_of_another_seed_and_split_computes_only_what_is_new(tiny, data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    pixels, index = data
    # The same frozen weights under another seed, as pretrained ones are.
    build(tiny, 2, (16, 16), seed=9).model.save_weights(tmp_path / "pre.weights.h5")
    recipe = SMALL.replace(weights=str(tmp_path / "pre.weights.h5"))
    for seed, splits in ((5, index.rows["split"]), (6, index.rows["split"].to_numpy()[::-1])):
        changed = index.replace(index.rows.assign(split=list(splits)))
        train(tiny, (pixels, changed), tmp_path / str(seed), recipe.replace(seed=seed), weights=recipe.weights)
    assert "20 of 20 computed" in lines(caplog)[0]
    assert "4 of 20 computed" in lines(caplog)[1]
    kinds = [entry.kind for entry in cache.entries(cache.root())]
    assert kinds == ["activations"]


@pytest.mark.parametrize("change", ["weights", "pixels", "precision"])
def test_other_weights_pixels_or_precision_are_another_set(tiny, data, tmp_path, change):
    pixels, rows = data[0].copy(), np.arange(4)
    built = build(tiny, 2, (16, 16), seed=1)
    freeze(built, "head")

    def filled(precision="float32"):
        store = Store(graph_split.divide(built.model).front, pixels, precision, tmp_path)
        return store.filled(View(), rows)[0][rows], store.computed

    before, computed = filled()
    assert computed == 4
    assert filled()[1] == 0
    if change == "weights":
        built.model.get_layer("last").bias.assign(np.ones(6))
    if change == "pixels":
        pixels[0] += 1
    after, computed = filled("float16" if change == "precision" else "float32")
    assert computed == 4
    if change == "precision":
        assert after.dtype == np.float16
        np.testing.assert_allclose(after, before, rtol=2e-3)
    else:
        assert not np.allclose(after[0], before[0])


def test_names_of_layers_do_not_make_another_set(tiny):
    keras.layers.Rescaling(1.0)  # the next one bears a higher number
    models = [build(tiny, 2, (16, 16), seed=1) for _ in range(2)]
    for built in models:
        freeze(built, "head")
    fronts = [graph_split.divide(built.model).front for built in models]
    assert [layer.name for layer in fronts[0].layers] != [layer.name for layer in fronts[1].layers]
    assert graph_split.fingerprint(fronts[0]) == graph_split.fingerprint(fronts[1])


@pytest.mark.parametrize(
    ("build_", "start", "phase", "shapes"),
    [
        (None, "last", "head", [(6,)]),
        (None, "last", "finetune", [(16, 16, 4)]),
        # The padded copy is made again: only the map before it is kept.
        (residual, "padding", "finetune", [(16, 16, 4)]),
        (residual, "second", "finetune", [(16, 16, 4)]),
        (crossed, "last", "finetune", [(8, 8, 2), (16, 16, 4)]),
        (noisy, "last", "head", [(8, 8, 4)]),
    ],
)
def test_the_cut_is_late_and_cheap(tiny, build_, start, phase, shapes):
    built = build(of(tiny, build_ or tiny.build, start), 2, (16, 16))
    freeze(built, phase)
    assert sorted(tuple(tensor.shape[1:]) for tensor in graph_split.cut(built.model)) == sorted(shapes)


def test_nothing_is_cut_from_what_is_wholly_trained(tiny, data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    built = build(tiny, 2, (16, 16))
    freeze(built, "full")
    assert graph_split.divide(built.model) is None
    train(tiny, data, tmp_path, RECIPE.replace(weights="none", epochs=1))
    assert not lines(caplog)
    assert not cache.entries(cache.root())


def test_the_model_stays_one(tiny, data, tmp_path):
    """Saved, loaded and explained as ever: the cut leaves nothing in it."""
    built, _ = train(tiny, data, tmp_path, SMALL)
    built.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    untouched = build(tiny, 2, (16, 16)).model
    assert [layer.__class__ for layer in loaded.layers] == [layer.__class__ for layer in untouched.layers]
    images = data[0][:3, ..., None].astype(np.float32)
    np.testing.assert_allclose(loaded(images), built.model(images), atol=1e-6)
    probe = keras.Model(built.model.input, built.model.get_layer("last").output)
    assert probe(images).shape == (3, 16, 16, 6)


@pytest.mark.parametrize(("before", "after"), [(0, None), (None, 0), (None, None)])
@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_an_interrupted_run_goes_on_either_way(tiny, data, tmp_path, monkeypatch, before, after, schedule):
    recipe = RECIPE.replace(schedule=schedule)
    whole = train(tiny, data, tmp_path / "whole", recipe.replace(cached_views=0))
    end = checkpoint.Record.on_epoch_end

    def interrupted(self, epoch, logs=None):
        end(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Record, "on_epoch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, data, tmp_path / "cut", recipe.replace(cached_views=before))
    resumed = train(tiny, data, tmp_path / "cut", recipe.replace(cached_views=after))
    same(whole, resumed)


def test_early_stopping_and_the_best_epoch_are_as_ever(tiny, data, tmp_path):
    recipe = SMALL.replace(head_epochs=9, patience=1, learning_rate=2.0, schedule="constant")
    plain = train(tiny, data, tmp_path / "plain", recipe.replace(cached_views=0))
    once = train(tiny, data, tmp_path / "once", recipe)
    assert len(once[1]) < 9
    same(plain, once, rtol=1e-3)


@pytest.mark.parametrize("policy", ["light", "heavy"])
def test_epochs_train_on_the_views_in_turn(tiny, data, tmp_path, caplog, policy):
    caplog.set_level(logging.INFO)
    pixels, index = data
    built = build(tiny, 2, (16, 16))
    freeze(built, "head")
    rows = fit.Rows.of(index, "train")
    recipe = SMALL.replace(augment=policy, cached_views=2, head_epochs=4)
    kept = cached_features.keep(built.model, pixels, rows.places, np.arange(14, 20), recipe, 4, tmp_path)
    assert "in each of 2 views: 34 of 34 computed" in lines(caplog)[0]
    seen = [next(iter(kept.training(rows.places, rows.labels, recipe, first_epoch=e))) for e in range(3)]
    assert len(kept.views) == 2
    orders = [np.random.default_rng([recipe.seed, e]).permutation(14)[:4] for e in range(3)]
    for epoch, (features, labels) in enumerate(seen):
        places = rows.places[orders[epoch]]
        np.testing.assert_array_equal(labels, rows.labels[orders[epoch]])
        np.testing.assert_allclose(features, kept.views[epoch % 2][0][places])
    first, second, plain = kept.views[0][0], kept.views[1][0], kept.plain[0]
    assert not np.allclose(first[:14], second[:14])
    images = next(iter(feature_cache.images(pixels, np.array([3]), View(policy, 1))))
    stream = np.random.default_rng([1, 3])
    draws = stream.random((1, 14), np.float32)
    noise = stream.standard_normal((1, 16, 16, 1), np.float32)
    changed = augment(pixels[3:4, ..., None].astype(np.float32), draws, POLICIES[policy], noise)
    np.testing.assert_allclose(images, changed, atol=1e-3)
    front = graph_split.divide(built.model).front
    np.testing.assert_allclose(second[3], front(changed)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(plain[14:20], front(pixels[14:20, ..., None].astype("float32")), rtol=1e-4, atol=1e-5)


def test_views_train(tiny, data, tmp_path):
    _, history = train(tiny, data, tmp_path, RECIPE.replace(augment="light", cached_views=2))
    assert history["phase"].tolist() == ["head"] * 3 + ["finetune"] * 2
    assert np.isfinite(history["val_loss"]).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"augment": "light"}, r"augmentation \(light\) changes them anew; --cached-views K"),
        ({"mix": "mixup"}, "mixup mixes the pixels"),
        ({"mix": "cutmix", "augment": "light", "cached_views": 4}, "cutmix mixes the pixels"),
        ({"cache_gigabytes": 0.0}, "more than --cache-gigabytes 0"),
    ],
)
def test_what_rules_it_out_is_said(tiny, data, tmp_path, caplog, changes, reason):
    caplog.set_level(logging.INFO)
    train(tiny, data, tmp_path, SMALL.replace(head_epochs=1, **changes))
    (line,) = lines(caplog)
    assert re.match(f"Frozen layers run in every epoch: .*{reason}", line), line
    assert not cache.entries(cache.root())


def test_a_full_disk_is_known_before_anything_is_computed(tiny, data, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(cached_features.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    train(tiny, data, tmp_path, SMALL.replace(head_epochs=1))
    assert "whose disk has 0.0 GB left" in lines(caplog)[0]


def test_what_float16_cannot_hold_is_not_kept_in_it(tiny, data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    loud = dataclasses.replace(tiny, scale=lambda pixels: keras.layers.Rescaling(1e5)(pixels))
    recipe = SMALL.replace(head_epochs=1, learning_rate=1e-3, cache_precision="float16")
    train(loud, data, tmp_path / "loud", recipe)
    assert "float16 cannot hold" in lines(caplog)[0]
    plain = train(tiny, data, tmp_path / "plain", recipe.replace(cached_views=0))
    same(plain, train(tiny, data, tmp_path / "half", recipe), rtol=1e-2, atol=1e-3)
    assert "20 of 20 computed" in lines(caplog)[1]
    assert "0.0 kB each" in lines(caplog)[1], "six numbers of two bytes"


def test_mixed_precision_keeps_what_it_computes(plugin, data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    recipe = RECIPE.replace(mixed_precision=True)
    plain = train(plugin, data, tmp_path / "plain", recipe.replace(cached_views=0), mixed_precision=True)
    once = train(plugin, data, tmp_path / "once", recipe, mixed_precision=True)
    assert "ran once" in lines(caplog)[0]
    same(plain, once, rtol=2e-2, atol=2e-2)  # float16 has three digits


def test_more_than_fits_into_memory_is_read_from_the_disk(tiny, data, tmp_path, monkeypatch):
    held, plain = [], cached_features._at_hand

    def at_hand(*given):
        arrays, places = plain(*given)
        held.append({isinstance(array, np.memmap) for array in arrays})
        return arrays, places

    monkeypatch.setattr(cached_features, "_at_hand", at_hand)
    in_memory = train(tiny, data, tmp_path / "memory", SMALL)
    assert held == [{False}, {False}], "of training and of validation"
    monkeypatch.setattr(cached_features, "IN_MEMORY", 0)
    same(in_memory, train(tiny, data, tmp_path / "disk", SMALL), rtol=1e-6)
    assert held[2:] == [{True}, {True}]


def test_computing_goes_on_where_it_was_interrupted(tiny, data, tmp_path, monkeypatch):
    built = build(tiny, 2, (16, 16))
    freeze(built, "head")
    front = graph_split.divide(built.model).front
    monkeypatch.setattr(feature_cache, "BATCH", 4)
    monkeypatch.setattr(feature_cache, "BLOCK", 1)
    compute = Store._compute

    def killed(self, view, rows, folder, check):
        if rows[0] >= 8:
            raise KeyboardInterrupt
        compute(self, view, rows, folder, check)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_compute", killed)
        with pytest.raises(KeyboardInterrupt):
            Store(front, data[0], "float32", tmp_path).filled(View(), np.arange(N))
    store = Store(front, data[0], "float32", tmp_path)
    (array,) = store.filled(View(), np.arange(N))
    assert store.computed == N - 8
    np.testing.assert_allclose(array, front(data[0][..., None].astype(np.float32)), rtol=1e-4, atol=1e-5)


TWO_DEVICES = """
    import json, sys
    sys.path.insert(0, {tests!r})
    import numpy as np, tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from pathlib import Path
    from made import make_index, tiny_plugin
    from chestxray.models import devices
    from chestxray.storage import cache
    from chestxray.training import fit
    from chestxray.models.assembly import build
    from chestxray.recipe import Recipe
    pixels = np.random.default_rng(0).integers(0, 255, (41, 16, 16), dtype=np.uint8)
    index = make_index(["a", "b"] * 20 + ["a"], splits=["train"] * 33 + ["validation"] * 8)
    recipe = Recipe(weights="file", head_epochs=2, epochs=2, batch_size=16, augment="none", devices="cpu:0,1")
    strategy = devices.strategy(recipe.devices)
    figures = []
    for views in (0, 1):
        with strategy.scope():
            built = build(tiny_plugin(), 2, (16, 16), mixed_precision={mixed})
        folder = Path({folder!r}) / str(views)
        folder.mkdir()
        history = fit.train(built, pixels, index, recipe.replace(cached_views=views), folder, strategy)
        values = {{v.path: np.asarray(v).tolist() for v in built.model.weights if "seed_gen" not in v.path}}
        figures.append([values, history["val_loss"].tolist(), len(cache.entries(cache.root()))])
    print(json.dumps([strategy.num_replicas_in_sync, *figures]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [False, True])
def test_two_replicas_train_as_the_plain_way(tmp_path, mixed):
    tests = str(Path(__file__).parents[1])
    code = textwrap.dedent(TWO_DEVICES.format(tests=tests, folder=str(tmp_path), mixed=mixed))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    replicas, plain, once = json.loads(result.stdout.strip().splitlines()[-1])
    assert (replicas, plain[2], once[2]) == (2, 0, 2), "two phases, a set each"
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if mixed else {"rtol": 1e-4, "atol": 2e-5}
    np.testing.assert_allclose(plain[1], once[1], **tolerance)
    for path, values in plain[0].items():
        np.testing.assert_allclose(values, once[0][path], **tolerance, err_msg=path)


@pytest.mark.parametrize(("name", "place", "again"), [("0.npy", -1, 1), ("0.npy", 10, N), ("checksums.npy", -1, 1)])
def test_rows_that_were_damaged_in_the_cache_are_computed_again(tiny, data, tmp_path, caplog, name, place, again):
    built = build(tiny, 2, (16, 16))
    freeze(built, "head")
    front = graph_split.divide(built.model).front
    before = np.array(Store(front, data[0], "float32", tmp_path).filled(View(), np.arange(N))[0])
    (path,) = tmp_path.glob(f"activations/*/{name}")
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    store = Store(front, data[0], "float32", tmp_path)
    np.testing.assert_array_equal(store.filled(View(), np.arange(N))[0], before)
    assert store.computed == again
    assert "Damaged in the cache" in caplog.text
    store.filled(View(), np.arange(N))
    assert store.computed == again
