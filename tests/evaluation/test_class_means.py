"""Intervals of means over classes and of Matthews's correlation."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from chestxray.evaluation.bootstrap import bootstrap
from chestxray.evaluation.estimation import Scored, estimate
from chestxray.evaluation.intervals import Figure, satterthwaite
from chestxray.evaluation.weighted_metrics import HEADLINE, Table


def estimated(truth, predicted, classes=2, clusters=None, replicates=400, seed=0):
    """Every figure of answers, with probabilities that fit them a little."""
    rng = np.random.default_rng(seed)
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    logits = rng.normal(size=(len(truth), classes)) + 3 * np.eye(classes)[predicted]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    clusters = np.arange(len(truth)) if clusters is None else clusters
    positive = 1 if classes == 2 else None
    table = Table.of(truth, predicted, probabilities, positive)
    (drawn,) = bootstrap([table], clusters, replicates=replicates, seed=seed)
    values = {key: float(value[0]) for key, value in table.figures(np.ones((1, len(truth)))).items()}
    scored = Scored(truth, predicted, probabilities, values, drawn)
    return estimate([scored], clusters, positive, replicates=replicates, seed=seed).figures


def answers(*right_of):
    """Truth and predictions of classes of which so many images are right; the others go to the next class."""
    truth = np.repeat(np.arange(len(right_of)), [count for _, count in right_of])
    wrong = np.concatenate([np.arange(count) >= right for right, count in right_of])
    return truth, np.where(wrong, (truth + 1) % len(right_of), truth)


def test_a_rare_class_without_errors_is_not_taken_for_certain():
    # By hand (MOVER; Zou and Donner 2008) .862 to .968; the bootstrap by itself says .921 to .969.
    found = estimated(*answers((180, 200), (20, 20)), replicates=2000)[None, "balanced_accuracy"]
    exact = proportion_confint(20, 20, method="beta")[0]
    wilson = proportion_confint(180, 200, method="wilson")
    below = math.hypot(0.90 - wilson[0], 1 - exact) / 2
    above = (wilson[1] - 0.90) / 2
    assert found.value == pytest.approx(0.95)
    assert found.low == pytest.approx(0.95 - below, abs=0.005)
    assert found.high == pytest.approx(0.95 + above, abs=0.005)


def test_all_classes_without_errors_are_the_limits_of_each():
    found = estimated(*answers((40, 40), (10, 10)))[None, "balanced_accuracy"]
    limits = [proportion_confint(n, n, method="beta")[0] for n in (40, 10)]
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(1 - math.hypot(*(1 - limit for limit in limits)) / 2)


@pytest.mark.parametrize("few", [4, 1])
def test_a_class_of_few_leaves_the_others_what_they_know(few):
    found = estimated(*answers((50, 60), (50, 60), (50, 60), (few, few)), classes=4)
    for name in HEADLINE:
        figure = found[None, name]
        assert figure.low is not None, name
        # A class that may be anything moves a mean over four by a quarter at most.
        assert figure.high - figure.low < 0.4, (name, figure)
    # All but the class of few are as sure as without it.
    assert found[None, "mcc"].high - found[None, "mcc"].low < 0.2


def test_one_patient_half_right_may_be_anything():
    truth, predicted = answers((50, 60), (50, 60), (1, 2))
    clusters = np.concatenate([np.arange(120), [120, 120]])
    found = estimated(truth, predicted, 3, clusters)
    assert found[2, "sensitivity"] == Figure(0.5, None, None)
    balanced = found[None, "balanced_accuracy"]
    assert balanced.high - balanced.low == pytest.approx(1 / 3, abs=0.06)


def test_replicates_without_a_class_are_no_mean_of_the_others():
    truth = np.array([0, 0, 0, 1])
    table = Table.of(truth, truth, np.eye(2)[truth], 1)
    figures = table.figures(np.array([[1.0, 1, 1, 1], [2.0, 1, 1, 0]]))
    for name in ("balanced_accuracy", "f1_macro", "mcc"):
        assert np.isnan(figures[None, name][1])
        assert figures[None, name][0] == pytest.approx(1)
    assert figures[None, "accuracy"].tolist() == [1, 1]


def test_degrees_of_a_sum_are_those_of_welch():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=9), rng.normal(scale=3, size=30)
    variances = [sample.var(ddof=1) / len(sample) for sample in (one, other)]
    assert satterthwaite(variances, [8, 29]) == pytest.approx(stats.ttest_ind(one, other, equal_var=False).df)
    assert satterthwaite([1.0, 0.0], [9, 0]) == 9
    assert satterthwaite([1.0], [0]) == satterthwaite([], []) == 0


def test_unequal_classes_are_covered():
    # 200 and 10 rows, both sensitivities .9: before it went class by class, 68% of the intervals of balanced
    # accuracy held .9. Four standard errors below 95%.
    true = {"balanced_accuracy": 0.9, "mcc": 0.4938}
    rng = np.random.default_rng(1)
    held = {name: [] for name in true}
    for seed in range(120):
        right = rng.binomial([200, 10], 0.9)
        found = estimated(*answers((right[0], 200), (right[1], 10)), replicates=100, seed=seed)
        for name, value in true.items():
            held[name].append(found[None, name].low <= value <= found[None, name].high)
    assert {name: np.mean(values) > 0.87 for name, values in held.items()} == dict.fromkeys(true, True), held
