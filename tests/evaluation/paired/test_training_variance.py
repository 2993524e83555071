"""How sure a mean over trainings is."""

import math

import numpy as np
import pytest
from scipy import stats

from chestxray.evaluation.paired.p_value_function import t_test
from chestxray.evaluation.paired.paired_tests import delong
from chestxray.evaluation.paired.training_variance import over_folds, over_folds_of_one_test, over_seeds


def test_folds_are_the_corrected_resampled_t():
    """The formula as scikit-learn's example of comparing models states it."""
    gaps = np.array([0.02, 0.05, -0.01, 0.04, 0.03])
    trained, tested = 320, 80
    corrected = np.sqrt(np.var(gaps, ddof=1) * (1 / len(gaps) + tested / trained))
    p = 2 * stats.t.sf(abs(gaps.mean() / corrected), len(gaps) - 1)
    found = over_folds(gaps, np.full(5, tested / trained))
    assert (found.value, found.error, found.freedom) == pytest.approx((gaps.mean(), corrected, 4))
    assert t_test(found.value, found.error, found.freedom, "").p == pytest.approx(p)
    missing = over_folds(np.append(gaps, np.nan), np.full(6, tested / trained))
    assert missing == found
    assert math.isnan(over_folds(np.array([0.1, np.nan]), np.ones(2)).error)


def ridge(features, truth):
    centred = features - features.mean(axis=0)
    return np.linalg.solve(centred.T @ centred + np.eye(features.shape[1]), centred.T @ (truth - truth.mean()))


def test_two_learners_of_equal_skill_are_seldom_told_apart():
    rng, rows, folds = np.random.default_rng(0), 60, 5
    truth, fold = np.arange(rows) % 2 == 1, np.arange(rows) // 2 % folds
    before = now = 0
    for _ in range(250):
        seen = rng.normal(size=(2, rows, 20)) + 0.3 * truth[:, None]
        scores = np.zeros((2, rows))
        for number in range(folds):
            test = fold == number
            for model in (0, 1):
                scores[model, test] = seen[model, test] @ ridge(seen[model, ~test], truth[~test])
        (a, b), cov = delong(truth, scores, np.arange(rows))
        before += 2 * stats.norm.sf(abs(a - b) / math.sqrt(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])) < 0.05
        parts = [fold == number for number in range(folds)]
        gaps = np.array([np.subtract(*delong(truth[p], scores[:, p], np.arange(p.sum()))[0]) for p in parts])
        found = over_folds(gaps, np.full(folds, 1 / (folds - 1)))
        now += t_test(found.value, found.error, found.freedom, "").p < 0.05
    assert before > 28, "the pooled test speaks of the trained models, which differ"
    assert now <= 22, "nominally 12.5; more than 22 have a probability of 0.4%"


def test_trainings_that_are_alike_add_nothing():
    covariance = np.full((3, 3), 4e-4)
    found = over_seeds([np.full(3, 0.9)], [1], covariance, 30)
    assert (found.value, found.error, found.freedom) == pytest.approx((0.9, 0.02, 30))
    folds = over_folds_of_one_test(np.full(3, 0.9), covariance, 30)
    assert (folds.error, folds.freedom) == pytest.approx((0.02, 30))


def test_one_training_a_model_is_the_test_of_patients_alone():
    covariance = np.array([[4e-4, 1e-4], [1e-4, 9e-4]])
    found = over_seeds([np.array([0.9]), np.array([0.8])], [1, -1], covariance, 20)
    assert (found.error**2, found.freedom) == pytest.approx((4e-4 + 9e-4 - 2e-4, 20))


def test_the_variance_is_that_of_obuchowski_and_rockette():
    values, within, between = np.array([0.90, 0.94, 0.86, 0.92]), 5e-4, 3e-4
    covariance = np.full((4, 4), between) + (within - between) * np.eye(4)
    found = over_seeds([values], [1], covariance, 50)
    spread = values.var(ddof=1) / 4
    assert found.error**2 == pytest.approx(spread + between)
    assert found.freedom == pytest.approx((spread + between) ** 2 / (spread**2 / 3 + between**2 / 50))


def test_seeds_of_equal_models_are_seldom_told_apart():
    rng, patients, count = np.random.default_rng(2), 200, 3
    state, clusters = np.arange(patients) % 2 == 1, np.arange(patients)
    weights = np.repeat([1.0, -1.0], count) / count
    before = now = 0
    for _ in range(300):
        distances = 1.4 + 0.2 * rng.normal(size=2 * count)
        scores = distances[:, None] * state + rng.normal(size=(2 * count, patients)) + rng.normal(size=patients)
        values, covariance = delong(state, scores, clusters)
        before += t_test(float(values @ weights), math.sqrt(weights @ covariance @ weights), 99, "").p < 0.05
        found = over_seeds([values[:count], values[count:]], [1, -1], covariance, 99)
        now += t_test(found.value, found.error, found.freedom, "").p < 0.05
    assert before > 30
    assert now <= 25, "nominally 15; more than 25 have a probability of 0.4%"
