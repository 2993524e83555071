"""A linear probe, against scikit-learn on the features by hand."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from chestxray.errors import InputError
from chestxray.models.assembly import build, logits_model
from chestxray.recipe import Recipe
from chestxray.storage import result_files
from chestxray.training import fit, linear_probe
from chestxray.training.feature_cache import View, images
from chestxray.training.finding_losses import positive_weights
from drawn_findings import index_of
from heads import flattened, normalised
from made import make_index

N = 60
SPLITS = ["train"] * 36 + ["validation"] * 14 + ["test"] * 10
RECIPE = Recipe(model="tiny", weights="file", probe=True, seed=5, class_weights=False)


def drawn(classes):
    """Class k has a bright corner of its own, more or less."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 120, (N, 16, 16), dtype=np.uint8)
    codes = np.minimum(generator.integers(0, classes + 2, N), classes - 1)
    for k in range(classes):
        pixels[codes == k, 5 * k : 5 * k + 5, 5 * k : 5 * k + 5] += generator.integers(
            10, 120, ((codes == k).sum(), 1, 1), dtype=np.uint8
        )
    return pixels, make_index([f"class {code}" for code in codes], splits=SPLITS), codes


def probe(tiny, pixels, index, folder, recipe=RECIPE):
    folder.mkdir(exist_ok=True, parents=True)
    built = build(tiny, len(index.classes), (16, 16), seed=5, task=index.task)
    history = fit.train(built, pixels, index, recipe, folder, tf.distribute.get_strategy())
    return built, history


def of(built, pixels):
    """Features of the frozen backbone, and logits, of images uint8, by Keras alone."""
    given = pixels[..., None].astype(np.float32)
    features = keras.Model(built.model.input, built.model.get_layer("pool").output)
    return features.predict(given, verbose=0), logits_model(built.model).predict(given, verbose=0)


def best_of(history):
    return history.loc[history["val_loss"].idxmin(), "C"]


def by_hand(features, codes, strength, **options):
    """Return a function from features to scikit-learn's logits."""
    mean, deviation = features.astype(np.float64).mean(axis=0), features.astype(np.float64).std(axis=0)
    weights = options.pop("sample_weight", None)
    known = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000, **options)
    known.fit((features - mean) / deviation, codes, sample_weight=weights)
    return lambda some: known.decision_function((some - mean) / deviation)


def difference(logits):
    return logits[:, 1] - logits[:, 0]


def closely(monkeypatch):
    """A weaker penalty than 1 would make float32's rounding of features as large as what is compared."""
    monkeypatch.setattr(linear_probe, "TOLERANCE", 1e-9)
    monkeypatch.setattr(linear_probe, "STRENGTHS", (0.01, 0.1, 1.0))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_logits_are_scikit_learns(tiny, tmp_path, monkeypatch, classes, weighted):
    closely(monkeypatch)
    pixels, index, codes = drawn(classes)
    built, history = probe(tiny, pixels, index, tmp_path, RECIPE.replace(class_weights=weighted))
    features, logits = of(built, pixels)
    train = np.flatnonzero(np.array(SPLITS) == "train")
    weight = "balanced" if weighted else None
    expected = by_hand(features[train], codes[train], best_of(history), class_weight=weight)(features)
    np.testing.assert_allclose(difference(logits) if classes == 2 else logits, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_each_finding_is_a_regression_over_the_rows_where_it_is_known(tiny, tmp_path, monkeypatch):
    closely(monkeypatch)
    pixels, _, codes = drawn(2)
    truth = np.stack([codes, 1 - codes, np.zeros(N)], axis=1).astype(np.float64)
    truth[np.random.default_rng(1).random((N, 3)) < 0.3] = np.nan
    index = index_of(truth, ("Mass", "Edema", "Never"), split=SPLITS)
    recipe = RECIPE.replace(class_weights=True)
    built, history = probe(tiny, pixels, index, tmp_path, recipe)
    features, logits = of(built, pixels)
    training = fit.Rows.of(index, "train")
    rows, targets = training.places, training.labels
    scaled = (features - features[rows].astype(np.float64).mean(axis=0)) / features[rows].astype(np.float64).std(axis=0)
    for number in range(2):
        known = np.isfinite(targets[:, number])
        here = targets[known, number].astype(int)
        weights = positive_weights(targets)[number].astype(np.float64)[here]
        regression = LogisticRegression(C=best_of(history), tol=1e-9, max_iter=10_000)
        regression.fit(scaled[rows[known]], here, sample_weight=weights)
        np.testing.assert_allclose(logits[:, number], regression.decision_function(scaled), atol=1e-5)
    # All known rows are alike: half a row of either kind is added to them.
    never = np.isfinite(targets[:, 2]).sum()
    np.testing.assert_allclose(logits[:, 2], np.log(0.5 / (never + 0.5)), atol=1e-6)


def test_a_soft_target_is_a_share_of_either_kind():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(30, 2))
    targets = np.where(features[:, :1] + generator.normal(size=(30, 1)) > 0, 1, 0).astype(np.float32)
    soft = targets.copy()
    soft[:5] = 0.25
    given = linear_probe.Regressions(features, soft, np.ones((30, 1, 2)), findings=True).at(1.0)
    four = np.concatenate([np.repeat(features[:5], 4, axis=0), np.repeat(features[5:], 4, axis=0)])
    hard = np.concatenate([np.tile([1, 0, 0, 0], 5), np.repeat(targets[5:, 0], 4)])[:, None].astype(np.float32)
    repeated = linear_probe.Regressions(four, hard, np.full((120, 1, 2), 0.25), findings=True).at(1.0)
    np.testing.assert_allclose(given.kernel, repeated.kernel, atol=1e-5)
    np.testing.assert_allclose(given.bias, repeated.bias, atol=1e-5)


def test_rare_classes_weigh_as_often_as_they_would_be_drawn(tiny, tmp_path, monkeypatch):
    closely(monkeypatch)
    pixels, index, codes = drawn(3)
    built, history = probe(tiny, pixels, index, tmp_path, RECIPE.replace(sampling="rarity"))
    features, logits = of(built, pixels)
    counts = np.bincount(codes[:36])
    factors = np.sqrt(counts.max() / counts)[codes[:36]]
    expected = by_hand(features[:36], codes[:36], best_of(history), sample_weight=factors / factors.mean())(features)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_augmented_views_share_the_weight_of_their_image(tiny, tmp_path, monkeypatch):
    closely(monkeypatch)
    pixels, index, codes = drawn(2)
    recipe = RECIPE.replace(augment="heavy", cached_views=2)
    built, history = probe(tiny, pixels, index, tmp_path / "views", recipe)
    features, logits = of(built, pixels)
    network = keras.Model(built.model.input, built.model.get_layer("pool").output)
    seen = [features[:36]]
    for number in range(2):
        batches = images(pixels, np.arange(36), View("heavy", number))
        seen.append(np.concatenate([network.predict_on_batch(batch) for batch in batches]))
    expected = by_hand(
        np.concatenate(seen), np.tile(codes[:36], 3), best_of(history), sample_weight=np.full(108, 1 / 3)
    )
    np.testing.assert_allclose(difference(logits), expected(features), atol=1e-5)
    plain = probe(tiny, pixels, index, tmp_path / "plain", recipe.replace(cached_views=None))[0]
    assert np.abs(of(plain, pixels)[1] - logits).max() > 0.01


@pytest.mark.parametrize("monitor", ["loss", "auroc"])
def test_validation_chooses_the_strength(tiny, tmp_path, monitor):
    pixels, index, codes = drawn(2)
    built, history = probe(tiny, pixels, index, tmp_path, RECIPE.replace(monitor=monitor))
    assert history["phase"].eq("probe").all() and history["epoch"].tolist() == list(range(len(history)))
    good = history["val_auroc"] if monitor == "auroc" else -history["val_loss"]
    assert history["C"].tolist() == list(linear_probe.STRENGTHS)
    probabilities = built.model.predict(pixels[36:50, ..., None].astype(np.float32), verbose=0)
    loss = -np.log(probabilities[np.arange(14), codes[36:50]]).mean()
    np.testing.assert_allclose(loss, history["val_loss"][good.argmax()], rtol=1e-4)
    exact = roc_auc_score(codes[36:50], probabilities[:, 1])
    assert exact > 0.7 and (monitor == "loss" or abs(exact - good.max()) < 1e-6)


def test_an_interrupted_probe_ends_as_one_that_was_not(tiny, tmp_path, monkeypatch):
    pixels, index, _ = drawn(2)
    recipe = RECIPE.replace(finetune_from="last", epochs=2, batch_size=8)
    whole, history = probe(tiny, pixels, index, tmp_path / "whole", recipe)
    assert set(history["phase"]) == {"probe", "finetune"} and history["phase"].iloc[-2:].eq("finetune").all()
    read = result_files.history(tmp_path / "whole" / "history.csv")
    assert read["C"].notna().tolist() == read["phase"].eq("probe").tolist()

    at = linear_probe.Regressions.at

    def interrupted(self, strength):
        if strength > 1e-4:
            raise KeyboardInterrupt
        return at(self, strength)

    monkeypatch.setattr(linear_probe.Regressions, "at", interrupted)
    with pytest.raises(KeyboardInterrupt):
        probe(tiny, pixels, index, tmp_path / "cut", recipe)
    monkeypatch.undo()
    resumed, again = probe(tiny, pixels, index, tmp_path / "cut", recipe)
    assert history.drop(columns="seconds").equals(again.drop(columns="seconds"))
    for one, other in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)

    def never(*given):
        raise AssertionError("a probe that is whole is fitted again")

    monkeypatch.setattr(linear_probe, "fit", never)
    kept, _ = probe(tiny, pixels, index, tmp_path / "cut", recipe)
    for one, other in zip(whole.model.get_weights(), kept.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("head", [flattened, normalised])
def test_a_head_of_more_than_one_dense_layer_is_refused(tiny, head):
    built = build(dataclasses.replace(tiny, head=head), 2, (16, 16))
    with pytest.raises(InputError, match="the head of mine is not"):
        linear_probe.dense_of(built, "mine")


def test_a_class_that_is_not_in_training_is_refused(tiny, tmp_path):
    pixels, index, codes = drawn(3)
    rows = index.rows.assign(split=np.where(codes == 0, "validation", "train"))
    with pytest.raises(InputError, match="training images of every class"):
        probe(tiny, pixels, index.replace(rows), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "focal"}, "cross-entropy"),
        ({"label_smoothing": 0.1}, "smoothed"),
        ({"pooling": "attention"}, "means of feature maps"),
        ({"mix": "mixup"}, "not mixed"),
        ({"epochs": 3}, "finetune_from says from which layer on"),
    ],
)
def test_choices_that_a_probe_has_no_use_for_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        RECIPE.replace(**changes)


def test_features_that_the_cache_cannot_hold_are_an_error(tiny, tmp_path):
    pixels, index, _ = drawn(2)
    with pytest.raises(InputError, match="keeps the features of each image in the cache, but what they give"):
        probe(tiny, pixels, index, tmp_path, RECIPE.replace(cache_gigabytes=0))
