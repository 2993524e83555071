"""How many patients a figure rests on."""

import numpy as np
import pytest

from chestxray.evaluation.support import behind, behind_variance, effective, supports


def test_each_figure_rests_on_its_own_patients():
    truth = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 0, 1, 1, 1, 1])
    found = supports(truth, predicted, np.arange(7), 4, None)
    assert found[None, "accuracy"] == found[None, "mcc"] == found[2, "brier"] == 7
    assert [found[k, "sensitivity"] for k in range(4)] == [4, 2, 1, 0]
    assert [found[k, "specificity"] for k in range(4)] == [3, 5, 6, 7]
    assert [found[k, "precision"] for k in range(4)] == [3, 4, 0, 0]
    assert [found[k, "f1"] for k in range(3)] == [4, 4, 1]
    assert [found[k, "auroc"] for k in range(4)] == [3, 2, 1, 0]
    # Of a mean over classes the fewest of those that have rows; class 2, never called, by its own rows.
    assert found[None, "precision"] == found[None, "sensitivity"] == found[None, "balanced_accuracy"] == 1


def test_of_two_classes_the_headline_rests_on_the_positive_ones():
    truth = np.array([0] * 6 + [1] * 3)
    found = supports(truth, truth, np.arange(9), 2, 1)
    assert (found[None, "sensitivity"], found[None, "specificity"], found[None, "auroc"]) == (3, 6, 3)
    assert supports(truth, truth, np.arange(9), 2, 0)[None, "sensitivity"] == 6


def test_a_patient_with_many_images_counts_as_kish_says():
    clusters = np.array([0] * 8 + [1, 2])
    assert effective(clusters) == pytest.approx(100 / 66)
    assert effective(np.repeat(np.arange(5), 7)) == 5
    assert effective(np.array([], dtype=int)) == 0
    # The variance of a mean whose patients have these sizes is that of as many of like size.
    rng = np.random.default_rng(0)
    own = rng.normal(size=(20_000, 3))
    means = own @ np.bincount(clusters) / 10
    assert 1 / means.var() == pytest.approx(effective(clusters), rel=0.05)


def test_the_freedom_of_a_variance_is_what_satterthwaite_makes_of_its_spread():
    rng = np.random.default_rng(1)
    heavy = np.concatenate([np.tile([10.0, -10.0], 5), np.tile([0.1, -0.1], 495)])
    variances = rng.choice(heavy, (4000, 1000)).var(axis=1)
    freedom = 2 * variances.mean() ** 2 / variances.var()
    assert behind_variance(heavy, np.arange(1000)) - 1 == pytest.approx(freedom, rel=0.1)
    normal = rng.normal(size=2000)
    assert 1000 < behind_variance(normal - normal.mean(), np.arange(2000)) < 4000
    assert behind_variance(np.zeros(9), np.arange(9)) == behind_variance(np.ones(1), np.zeros(1, int)) == 0


def test_few_who_err_are_few_behind_the_variance():
    truth = np.repeat([0, 1], [300, 30])
    scores = np.where(truth == 1, 0.9, 0.1) + np.linspace(0, 0.05, 330)
    scores[300:303] = 0.05
    found = behind(truth, (scores > 0.5).astype(int), np.stack([1 - scores, scores], axis=1), np.arange(330))
    assert found[1, "auroc"] < 30
    assert set(found) == {(k, name) for k in (0, 1) for name in ("auroc", "precision", "f1")}
    alone = np.zeros(9, int)
    assert set(behind(alone, alone, np.full((9, 2), 0.5), np.arange(9))) == {(0, "precision"), (0, "f1")}
