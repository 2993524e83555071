"""What the trainings of compared models are to each other."""

import numpy as np
import pandas as pd
import pytest

from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.paired.comparison import compare
from chestxray.evaluation.paired.trainings import by_fold, design, marked, parts, ratios_of_test_to_training
from chestxray.evaluation.predictions import Predictions
from simulated import CLASSES, predictions

FOLDS = np.arange(150) % 5


def folded(skill, folds=FOLDS, trained=None):
    table = predictions(skill)
    rows = table.rows.assign(fold=folds)
    return Predictions(rows if trained is None else rows.assign(training_images=trained), CLASSES)


def test_designs():
    plain = predictions(1)
    assert design({"a": [plain], "b": [plain]}) == "one"
    assert design({"a": [plain, plain], "b": [plain]}) == "seeds"
    assert design({"a": [folded(1)], "b": [folded(2)]}) == "folds"
    assert design({"a": [folded(1), folded(1)], "b": [folded(2)]}) == "folds"
    other = folded(2, np.roll(FOLDS, 1))
    assert design({"a": [folded(1)], "b": [other]}) == design({"a": [folded(1)], "b": [plain]}) == "one"
    ones = [marked(plain, k, 100) for k in range(3)]
    assert design({"a": ones, "b": ones}) == "folds of one test"
    assert design({"a": ones, "b": ones[:2]}) == "seeds"
    assert design({"a": ones[:1], "b": ones[:1]}) == "one"


def test_shares_of_training_images():
    assert ratios_of_test_to_training(folded(1)) == pytest.approx(np.full(5, 30 / 120))
    assert ratios_of_test_to_training(folded(1, trained=90)) == pytest.approx(np.full(5, 30 / 90))
    assert [places.tolist()[:2] for places in parts(folded(1))] == [[k, k + 5] for k in range(5)]


def test_seeds_of_a_fold_are_averaged():
    tables = [marked(predictions(1), fold, 100) for fold in (0, 1, 0, 1)]
    assert by_fold(tables, np.array([1.0, 2.0, 3.0, 6.0])).tolist() == [2.0, 4.0]


def test_figures_of_a_cross_validation_are_means_over_folds():
    models = {"one": folded(1, trained=90), "other": folded(1.6, trained=90)}
    comparison = compare(models, replicates=100)
    assert comparison.design == "folds"
    assert comparison.interval.method == "corrected resampled t over folds"
    values = {}
    for standing in comparison.standings:
        table = models[standing.model]
        each = [evaluate(Predictions(part, CLASSES), replicates=10) for _, part in table.rows.groupby("fold")]
        values[standing.model] = np.array([one.test["auroc"].value for one in each])
        assert standing.figure.value == pytest.approx(values[standing.model].mean())
        assert standing.figure.low < standing.figure.value < standing.figure.high
        assert standing.figures["mcc"].value == pytest.approx(np.mean([one.test["mcc"].value for one in each]))
    (pair,) = comparison.pairs
    gaps = values[pair.first] - values[pair.second]
    error = np.sqrt(gaps.var(ddof=1) * (1 / 5 + 30 / 90))
    assert pair.difference.value == pytest.approx(gaps.mean())
    assert pair.difference.high - pair.difference.value == pytest.approx(2.776445 * error)
    pooled = compare({name: Predictions(t.rows.drop(columns="fold"), CLASSES) for name, t in models.items()})
    assert pooled.pairs[0].p < pair.p, "the trained models are surer apart than their kinds"


def test_a_perfect_cross_validation_is_not_sure():
    rows = predictions(1).rows.assign(fold=FOLDS)
    sick = (rows["label"] == CLASSES[1]).to_numpy(dtype=float)
    perfect = rows.assign(predicted=rows["label"], probability_NORMAL=1 - sick, probability_PNEUMONIA=sick)
    found = compare({"perfect": Predictions(perfect, CLASSES), "other": folded(1)}, replicates=50)
    best = found.standings[0]
    assert best.model == "perfect"
    assert 0.9 < best.figure.low < best.figure.high == 1


def test_folds_of_one_test_are_drawn_at_random():
    rng = np.random.default_rng(0)
    models = {
        name: [marked(predictions(skill + 0.2 * rng.normal()), fold, 100) for fold in range(4)]
        for name, skill in (("one", 1.0), ("other", 1.1))
    }
    comparison = compare(models, replicates=200)
    assert comparison.design == "folds of one test"
    assert "Nadeau" in comparison.pairs[0].test
    unmarked = {
        name: [Predictions(t.rows.drop(columns=["fold", "training_images"]), CLASSES) for t in tables]
        for name, tables in models.items()
    }
    seeds = compare(unmarked, replicates=200)
    wide, narrow = (c.standings[0].figure for c in (comparison, seeds))
    assert wide.value == narrow.value
    assert wide.high - wide.low > narrow.high - narrow.low, "folds share training images, seeds do not"


def test_folds_without_a_class_are_left_out():
    rows = predictions(1).rows.sort_values("label", kind="stable")
    lopsided = np.where(np.arange(150) < 20, 0, 1 + np.arange(150) % 3)
    tables = {
        name: Predictions(pd.merge(predictions(skill).rows, rows[["path"]].assign(fold=lopsided)), CLASSES)
        for name, skill in (("one", 1.0), ("other", 1.6))
    }
    comparison = compare(tables, replicates=50)
    assert comparison.design == "folds"
    assert comparison.standings[0].figure.value is not None
    assert comparison.pairs[0].p is not None
