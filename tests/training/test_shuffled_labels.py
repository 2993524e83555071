"""Labels dealt anew, and the model that is trained on them."""

import numpy as np
import pytest

from chestxray.models.assembly import build
from chestxray.recipe import Recipe
from chestxray.training import fit, shuffled_labels
from chestxray.training.shuffled_labels import shuffled
from drawn_findings import index_of
from made import make_index

SPLITS = ["train"] * 48 + ["validation"] * 24 + ["test"] * 24


def labels_of(index, split):
    return index.rows.loc[index.rows["split"] == split, "label"].tolist()


def test_labels_are_dealt_within_training_and_validation_alone():
    index = make_index(["sick"] * 12 + ["clear"] * 36 + ["sick", "clear"] * 24, splits=SPLITS)
    found = shuffled(index, 3)
    for split in ("train", "validation"):
        assert sorted(labels_of(found, split)) == sorted(labels_of(index, split)), "each class keeps its number"
        assert labels_of(found, split) != labels_of(index, split)
    assert labels_of(found, "test") == labels_of(index, "test")
    others = [column for column in index.rows if column != "label"]
    assert found.rows[others].equals(index.rows[others])
    assert labels_of(shuffled(index, 3), "train") == labels_of(found, "train") != labels_of(shuffled(index, 4), "train")


def test_the_images_of_a_patient_and_copies_keep_one_label():
    patients = [f"p{i // 4}" for i in range(96)]
    index = make_index([("sick", "clear")[i // 4 % 2] for i in range(96)], patients=patients, splits=SPLITS)
    found = shuffled(index, 0)
    assert (found.rows.groupby("patient")["label"].nunique() == 1).all()
    assert labels_of(found, "train") != labels_of(index, "train")
    copies = make_index([("sick", "clear")[i // 4 % 2] for i in range(96)], splits=SPLITS, hashes=patients)
    assert (shuffled(copies, 0).rows.groupby("pixel_hash")["label"].nunique() == 1).all()


def test_an_order_within_patients_is_not_kept():
    """Where the first image of each patient is sick, it would still be one after a mere exchange of patients."""
    labels = ["sick", "clear"] * 48
    index = make_index(labels, patients=[f"p{i // 2}" for i in range(96)], splits=["train"] * 96)
    first = shuffled(index, 0).rows["label"].to_numpy()[::2]
    assert 12 < (first == "sick").sum() < 36


def test_the_findings_of_an_image_go_together_the_unknown_ones_too():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, (90, 3)).astype(float)
    truth[generator.random(truth.shape) < 0.3] = np.nan
    index = index_of(truth, ("Mass", "Edema", "Effusion"), split="train")
    found = shuffled(index, 0)
    assert found.states.dtype == index.states.dtype
    assert sorted(map(tuple, found.states)) == sorted(map(tuple, index.states))
    assert not np.array_equal(found.states, index.states)


@pytest.fixture
def films():
    """Films whose class anyone learns: sick ones are bright on the left, clear ones on the right."""
    generator = np.random.default_rng(0)
    sick = np.arange(96) % 2
    pixels = generator.integers(0, 90, (96, 16, 16))
    for film, left in zip(pixels, sick, strict=True):
        film[4:12, slice(1, 5) if left else slice(11, 15)] += 120
    return pixels.astype(np.uint8), make_index([("clear", "sick")[i] for i in sick], splits=SPLITS)


def trained(tiny, films, folder, **fields):
    import tensorflow as tf

    recipe = Recipe(
        model="tiny", data=("folder:x",), weights="none", image_size=16, epochs=4, batch_size=16, augment="none",
        seed=5, **fields,
    )  # fmt: skip
    made = []

    def network():
        made.append(build(tiny, 2, (16, 16), mixed_precision=recipe.mixed_precision, seed=recipe.seed))
        return made[-1]

    pixels, index = films
    model = shuffled_labels.train(
        network, pixels, index, recipe, folder, tf.distribute.get_strategy(), folder.parent / "cache"
    )
    return model, made[0], recipe


@pytest.mark.parametrize("mixed", [False, True])
def test_it_is_the_training_of_the_recipe_on_other_labels(tiny, films, tmp_path, mixed):
    import tensorflow as tf

    model, _, recipe = trained(tiny, films, tmp_path / "one", mixed_precision=mixed)
    pixels, index = films
    plain = build(tiny, 2, (16, 16), mixed_precision=mixed, seed=5)
    strategy = tf.distribute.get_strategy()
    fit.train(plain, pixels, shuffled(index, 5), recipe, tmp_path / "two", strategy, tmp_path / "cache")
    for one, other in zip(model.get_weights(), plain.model.get_weights(), strict=True):
        assert np.array_equal(one, other)
    if mixed:
        assert model.get_layer("last").compute_dtype == "float16"


def test_an_interrupted_training_goes_on_to_the_same_model(tiny, films, tmp_path, monkeypatch):
    whole, _, _ = trained(tiny, films, tmp_path / "whole")
    later = fit.Record.on_epoch_end

    def stopped(record, epoch, logs=None):
        later(record, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit.Record, "on_epoch_end", stopped)
        trained(tiny, films, tmp_path / "cut")
    again, _, _ = trained(tiny, films, tmp_path / "cut")
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_a_training_without_a_finite_end_leaves_no_model(tiny, films, tmp_path, caplog):
    assert trained(tiny, films, tmp_path / "run", learning_rate=1e30, optimizer="sgd")[0] is None
    assert "not checked against a model trained on shuffled labels" in caplog.text
