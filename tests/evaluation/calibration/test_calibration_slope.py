"""Calibration slope and intercept, and the regression under them, against statsmodels."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from chestxray.evaluation.calibration.calibration_slope import intercept, slope
from chestxray.evaluation.calibration.logistic_regression import fit
from chestxray.evaluation.decision.temperature_scaling import _fit_both
from chestxray.evaluation.intervals import Figure

NOTHING = Figure(None, None, None)


def stated(rows=300, images=2, seed=0, extreme=1.6, shift=0.5):
    """Probabilities too extreme and too low, outcomes, and patients with several images."""
    rng = np.random.default_rng(seed)
    clusters = np.arange(rows) // images
    logit = rng.normal(size=clusters.max() + 1)[clusters] + rng.normal(size=rows)
    happened = rng.random(rows) < 1 / (1 + np.exp(-(logit + shift)))
    return 1 / (1 + np.exp(-extreme * logit)), happened, clusters


def clustered(happened, design, clusters, offset=None):
    """The same by statsmodels."""
    model = sm.GLM(happened.astype(float), design, family=sm.families.Binomial(), offset=offset)
    return model.fit(cov_type="cluster", cov_kwds={"groups": clusters}, tol=1e-12)


def test_slope_is_that_of_statsmodels():
    probability, happened, clusters = stated()
    both = np.stack([1 - probability, probability], axis=1)
    found = slope(both, happened.astype(int), clusters, support=150)
    logit = np.log(probability / (1 - probability))
    expected = clustered(happened, sm.add_constant(logit), clusters)
    half = stats.t.ppf(0.975, 149) * expected.bse[1]
    assert found.value == pytest.approx(expected.params[1], rel=1e-8)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), rel=1e-6)
    assert found.high < 1


def test_intercept_is_that_of_statsmodels_with_an_offset():
    probability, happened, clusters = stated()
    found = intercept(probability, happened, clusters, support=150)
    logit = np.log(probability / (1 - probability))
    expected = clustered(happened, np.ones((len(logit), 1)), clusters, offset=logit)
    half = stats.t.ppf(0.975, 149) * expected.bse[0]
    assert found.value == pytest.approx(expected.params[0], rel=1e-8)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), rel=1e-6)
    assert found.low > 0


def test_slope_of_many_classes_is_the_inverse_of_the_temperature():
    rng = np.random.default_rng(1)
    logits = 2 * rng.normal(size=(400, 3))
    gumbel = rng.gumbel(size=logits.shape)
    truth = (logits / 1.7 + [0.3, 0, -0.4] + gumbel).argmax(axis=1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = slope(probabilities, truth, np.arange(400), support=100)
    temperature, _ = _fit_both(np.log(probabilities), truth)
    assert found.value == pytest.approx(1 / temperature, rel=1e-3)
    assert found.low < 1 / 1.7 < found.high < 1


def test_covariance_is_that_of_the_jackknife():
    rng = np.random.default_rng(2)
    clusters = np.arange(300) // 3
    features = rng.normal(size=(300, 3, 2))
    truth = ((features @ [1.0, -0.5]) + rng.gumbel(size=(300, 3))).argmax(axis=1)
    found = fit(features, truth, clusters)
    without = np.array(
        [fit(features[clusters != g], truth[clusters != g], clusters[clusters != g]).coefficients for g in range(100)]
    )
    jackknife = 99 / 100 * (without - without.mean(axis=0)).T @ (without - without.mean(axis=0))
    assert np.diag(found.covariance) == pytest.approx(np.diag(jackknife), rel=0.15)


def test_a_calibrated_model_is_covered():
    rng = np.random.default_rng(3)
    slopes, intercepts = [], []
    for _ in range(150):
        logit = 1.5 * rng.normal(size=120)
        probability = 1 / (1 + np.exp(-logit))
        happened = rng.random(120) < probability
        both = np.stack([1 - probability, probability], axis=1)
        support = min(happened.sum(), (~happened).sum())
        slopes.append(slope(both, happened.astype(int), np.arange(120), support))
        intercepts.append(intercept(probability, happened, np.arange(120), support))
    assert np.mean([f.low <= 1 <= f.high for f in slopes]) > 0.9
    assert np.mean([f.low <= 0 <= f.high for f in intercepts]) > 0.9


def test_what_has_no_slope():
    sure = np.array([[0.9, 0.1]] * 5 + [[0.1, 0.9]] * 5)
    truth, alone = np.repeat([0, 1], 5), np.arange(10)
    assert slope(sure, truth, alone, 5) == NOTHING  # separated
    assert slope(sure, np.zeros(10, dtype=int), alone, 5) == NOTHING  # one class
    assert slope(np.full((10, 2), 0.5), truth, alone, 5) == NOTHING  # equal throughout
    assert slope(sure[:0], truth[:0], alone[:0], 0) == NOTHING
    assert slope(sure, truth, np.zeros(10, dtype=int), 1) == NOTHING  # one patient


def test_a_class_without_images_is_left_out():
    probability, happened, clusters = stated()
    three = np.stack([0.9 * (1 - probability), np.full(300, 0.1), 0.9 * probability], axis=1)
    two = np.stack([1 - probability, probability], axis=1)
    found = [slope(p, happened * k, clusters, 150).value for p, k in ((three, 2), (two, 1))]
    assert found[0] == pytest.approx(found[1])
