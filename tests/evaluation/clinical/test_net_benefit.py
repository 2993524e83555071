"""Net benefit against dcurves, and its intervals by simulation."""

import numpy as np
import pytest
from scipy import stats

from chestxray.evaluation.clinical import net_benefit

THRESHOLDS = np.array([0.02, 0.1, 0.25, 0.5, 0.8])


def example():
    """200 rows without chance, as dcurves was given them."""
    i = np.arange(200)
    probability = ((i + 0.5) / 200) ** 2
    return probability, (i * 79) % 200 / 200 < probability


#: dcurves 1.1.7: dca(data, "y", ["p"], thresholds=THRESHOLDS, prevalence=None or 0.05), net_benefit of p and of all.
DCURVES = {
    None: ([0.319184, 0.285, 0.226667, 0.145, 0.08], [0.321429, 0.261111, 0.113333, -0.33, -2.325]),
    0.05: ([0.033802, -0.008635, -0.053589, -0.074307, -0.013646], [0.030612, -0.055556, -0.266667, -0.9, -3.75]),
}


@pytest.mark.parametrize("prevalence", DCURVES)
def test_values_are_those_of_dcurves(prevalence):
    probability, positive = example()
    assert positive.sum() == 67
    points = net_benefit.curve(
        probability, positive, np.arange(200), prevalence=prevalence, thresholds=THRESHOLDS, replicates=100
    )
    model, everyone = DCURVES[prevalence]
    assert [point.model.value for point in points] == pytest.approx(model, abs=1e-6)
    assert [point.everyone.value for point in points] == pytest.approx(everyone, abs=1e-6)
    for point in points:
        assert point.model.low < point.model.value < point.model.high
        best = max(0.0, point.everyone.value)
        assert point.gain.value == pytest.approx(point.model.value - best)


def test_intervals_of_patients_with_several_images_hold_the_truth():
    generator = np.random.default_rng(0)
    at, held, rounds = 0.2, 0, 200
    for _ in range(rounds):
        clusters = np.repeat(np.arange(80), 3)
        positive = (generator.random(80) < 0.3)[clusters]
        score = 2 * positive + np.sqrt(0.5) * (generator.normal(size=80)[clusters] + generator.normal(size=240))
        # A threshold in units of the score, at which the probability of the curve is asked.
        probability = np.where(score >= 1, 0.3, 0.1)
        (point,) = net_benefit.curve(probability, positive, clusters, thresholds=np.array([at]), replicates=200)
        truth = 0.3 * stats.norm.sf(-1) - 0.7 * stats.norm.sf(1) * at / (1 - at)
        held += point.model.low <= truth <= point.model.high
    assert 0.9 * rounds <= held <= 0.99 * rounds


def test_a_model_without_errors_is_no_sure_one():
    positive = np.arange(40) < 20
    probability = np.where(positive, 0.9, 0.1)
    (point,) = net_benefit.curve(probability, positive, np.arange(40), prevalence=0.1, thresholds=np.array([0.5]))
    assert point.model.value == pytest.approx(0.1)
    assert point.model.low < -0.03, "15% of false alarms are not excluded by 20 patients"
    assert point.everyone.low == point.everyone.value, "without a model there is nothing to be unsure of"


def test_a_coin_is_of_use_nowhere_and_a_good_model_in_one_stretch():
    generator = np.random.default_rng(1)
    positive = generator.random(300) < 0.4
    coin = net_benefit.curve(generator.random(300), positive, np.arange(300), replicates=200)
    assert net_benefit.useful(coin) is None
    good = net_benefit.curve(1 / (1 + np.exp(-4 * (positive - 0.5) - generator.normal(size=300))), positive,
                             np.arange(300), replicates=200)  # fmt: skip
    low, high = net_benefit.useful(good)
    assert low < 0.3 and high > 0.6
