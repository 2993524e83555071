"""The smooth calibration curve, against statsmodels."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from chestxray.evaluation.calibration.calibration_curve import curve, natural_spline


def drawn(rows, seed=0, wrong=0.0):
    rng = np.random.default_rng(seed)
    logit = 1.5 * rng.normal(size=rows)
    return 1 / (1 + np.exp(-logit)), rng.random(rows) < 1 / (1 + np.exp(-logit - wrong * np.sin(logit)))


def test_curve_and_band_are_those_of_statsmodels():
    stated, happened = drawn(900)
    clusters = np.arange(900) // 3
    found = curve(stated, happened, clusters)
    shown = np.log(stated / (1 - stated))
    knots = np.quantile(shown, (0.05, 0.35, 0.65, 0.95))
    model = sm.GLM(happened.astype(float), natural_spline(shown, knots), family=sm.families.Binomial())
    fitted = model.fit(cov_type="cluster", cov_kwds={"groups": clusters}, tol=1e-12)
    at = natural_spline(np.log(found.stated / (1 - found.stated)), knots)
    middle = at @ fitted.params
    fewer = min(len(np.unique(clusters[side])) for side in (happened, ~happened))
    half = stats.t.ppf(0.975, fewer - 1) * np.sqrt(np.einsum("pi,ij,pj->p", at, fitted.cov_params(), at))
    for part, sums in ((found.observed, middle), (found.low, middle - half), (found.high, middle + half)):
        assert part == pytest.approx(1 / (1 + np.exp(-sums)), abs=1e-6)


def test_a_spline_is_straight_beyond_its_knots_and_bends_between():
    knots = np.array([-1.0, 0.0, 0.5, 1.0])
    for ends in (np.array([-5.0, -4.0, -3.0]), np.array([3.0, 4.0, 5.0])):
        assert np.diff(natural_spline(ends, knots), n=2, axis=0) == pytest.approx(0, abs=1e-9)
    middle = natural_spline(np.linspace(-1, 1, 50), knots)
    assert np.abs(np.diff(middle[:, 2:], n=2, axis=0)).max() > 1e-4


def test_it_finds_a_bend_that_no_slope_says():
    stated, happened = drawn(4000, wrong=1.5)
    found = curve(stated, happened, np.arange(4000))
    logit = np.log(found.stated / (1 - found.stated))
    truth = 1 / (1 + np.exp(-logit - 1.5 * np.sin(logit)))
    assert np.abs(found.observed - truth).max() < 0.06
    assert (found.low > found.stated).any()
    assert (found.high < found.stated).any()


def test_images_of_a_patient_are_one():
    stated, happened = drawn(300)
    alone = curve(stated, happened, np.arange(300))
    four = curve(np.repeat(stated, 4), np.repeat(happened, 4), np.repeat(np.arange(300), 4))
    inside = slice(10, 90)
    assert four.observed[inside] == pytest.approx(alone.observed[inside], abs=0.01)
    assert (four.high - four.low)[inside] == pytest.approx((alone.high - alone.low)[inside], rel=0.05)


def test_few_images_have_a_straight_line_and_none_have_none():
    stated, happened = drawn(40)
    found = curve(stated, happened, np.arange(40))
    logits = np.log(found.observed / (1 - found.observed))
    shown = np.log(found.stated / (1 - found.stated))
    assert np.polyfit(shown, logits, 1, full=True)[1] == pytest.approx(0, abs=1e-6)
    assert curve(stated, np.zeros(40, dtype=bool), np.arange(40)) is None
    assert curve(stated[:0], happened[:0], np.arange(0)) is None
    assert curve(np.full(40, 0.3), happened, np.arange(40)) is None


def test_the_band_holds_the_truth():
    held = []
    for seed in range(100):
        stated, happened = drawn(300, seed)
        found = curve(stated, happened, np.arange(300))
        place = np.abs(found.stated - 0.5).argmin()
        held.append(found.low[place] <= found.stated[place] <= found.high[place])
    assert np.mean(held) > 0.88
