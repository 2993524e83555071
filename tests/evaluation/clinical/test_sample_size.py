"""Sample sizes against pmvalsampsize, and expected intervals against those of drawn tests."""

import numpy as np
import pytest
from scipy import stats

from chestxray.evaluation.bootstrap import resamples
from chestxray.evaluation.clinical import sample_size
from chestxray.evaluation.clinical.sample_size import Design, Predictor
from chestxray.evaluation.intervals import logit_t
from chestxray.evaluation.weighted_metrics import Ranking


def test_sizes_are_those_of_the_published_examples():
    """Riley et al. (2021), mechanical heart valves: prevalence 0.018, C statistic 0.8, linear predictor N(-5, 2.5);
    the help of pmvalsampsize gives 905, 4544 (simulated) and 4252.
    """
    assert sample_size.size_for_ratio(0.018, 1.0) == 905
    assert sample_size.size_for_auroc(0.8, 0.018, 0.1) == 4252
    # 4501 with 1,000 draws, 4544 with a million: the exact one lies within the noise of the latter.
    assert sample_size.size_for_slope(Predictor.normal(-5, 2.5), 0.2) == pytest.approx(4544, rel=0.005)
    assert sample_size.size_for_slope(Predictor.beta(0.5, 0.5), 0.2) == 1644


def test_sizes_are_those_of_the_program():
    """pmvalsampsize 0.2.1 for Python with its defaults, prevalence 0.2, C statistic 0.8, N(-1.5, 1.1)."""
    assert sample_size.size_for_ratio(0.2, 0.2) == 1538
    assert sample_size.size_for_auroc(0.8, 0.2, 0.1) == 471
    assert sample_size.size_for_slope(Predictor.normal(-1.5, 1.1), 0.2) == pytest.approx(3087, rel=0.005)
    # lpcstat: normal within each class; its search leaves the prevalence 0.0005 off.
    assert sample_size.size_for_slope(Predictor.binormal(0.8, 0.018), 0.2) == pytest.approx(16925, rel=0.02)


def test_the_slopes_information_is_what_logistic_regression_gets():
    generator = np.random.default_rng(0)
    predictor = generator.normal(-1.5, 1.1, 200_000)
    p = 1 / (1 + np.exp(-predictor))
    design = np.column_stack([np.ones_like(p), predictor])
    information = design.T @ (design * (p * (1 - p))[:, None])
    error = np.sqrt(np.linalg.inv(information)[1, 1])
    assert 1 / np.sqrt(Predictor.normal(-1.5, 1.1).slope_information * 200_000) == pytest.approx(error, rel=0.01)


def test_a_binormal_predictor_has_the_prevalence_and_auroc_asked_for():
    found = Predictor.binormal(0.85, 0.1)
    p = 1 / (1 + np.exp(-found.values))
    assert (found.weights * p).sum() == pytest.approx(0.1, abs=1e-6), "calibrated"
    without, with_it = np.split(found.values, 2)
    distance = (with_it.mean() - without.mean()) / without.std()
    assert stats.norm.cdf(distance / np.sqrt(2)) == pytest.approx(0.85, abs=1e-3)


def test_the_net_benefits_variance_is_that_of_drawn_tests():
    generator = np.random.default_rng(1)
    prevalence, sensitivity, specificity, threshold, size = 0.2, 0.7, 0.8, 0.15, 2000
    sick = generator.random((2000, size)) < prevalence
    called = generator.random((2000, size)) < np.where(sick, sensitivity, 1 - specificity)
    share = sick.mean(axis=1)
    exchange = threshold / (1 - threshold)
    standardised = ((called & sick).mean(axis=1) - exchange * (called & ~sick).mean(axis=1)) / share
    wanted = 2 * 1.96 * standardised.std()
    assert sample_size.size_for_net_benefit(sensitivity, specificity, prevalence, threshold, wanted) == pytest.approx(
        size, rel=0.08
    )


@pytest.mark.parametrize(("images", "shared"), [(1, 0.0), (3, 0.5)])
def test_expected_intervals_are_as_wide_as_those_of_drawn_tests(images, shared):
    generator = np.random.default_rng(2)
    clusters = np.repeat(np.arange(150), images)
    widths = {"auroc": [], "sensitivity": []}
    for simulation in range(40):
        state = (np.arange(150) < 50)[clusters]
        common, own = generator.normal(size=150)[clusters], generator.normal(size=150 * images)
        score = np.sqrt(2) * stats.norm.ppf(0.85) * state + np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        ranking, called = Ranking.of(score, state), score >= 0.5
        weights = np.concatenate(list(resamples(clusters, 300, simulation)))
        replicates = {"auroc": ranking.areas(weights)[0], "sensitivity": weights @ (called & state) / (weights @ state)}
        values = {"auroc": ranking.areas(np.ones((1, len(score))))[0][0], "sensitivity": called[state].mean()}
        for name, value in values.items():
            figure = logit_t(float(value), replicates[name], 50)
            widths[name].append(figure.high - figure.low)
    design = Design(150, 1 / 3, images, shared)
    found = stats.norm.sf(0.5 - np.sqrt(2) * stats.norm.ppf(0.85))
    for name, figure in {"auroc": design.auroc(0.85), "sensitivity": design.share(found, 1 / 3)}.items():
        # The images of a patient share less of a hit than of a score: the sensitivity's is on the safe side.
        assert 0.9 < (figure.high - figure.low) / np.mean(widths[name]) < (1.12 if name == "auroc" else 1.2), name


def test_power_is_the_share_of_drawn_tests_that_find_the_difference():
    design = Design(400, 0.5)
    error = design.difference_error(0.8, 0.85, 0.5)
    drawn = np.random.default_rng(3).normal(0.05, error, 20_000) / error
    assert design.power(0.8, 0.05, 0.5) == pytest.approx((np.abs(drawn) > 1.96).mean(), abs=0.02)
    assert design.power(0.8, 1e-9, 0.5) == pytest.approx(0.05, abs=1e-3), "no difference: the level"
    assert design.non_inferiority_power(0.8, 1e-9, 0.5) == pytest.approx(0.025, abs=1e-3)
    assert Design(800, 0.5).power(0.8, 0.05, 0.5) > design.power(0.8, 0.05, 0.5)
    clustered = Design(400, 0.5, 5, 1.0)
    assert clustered.power(0.8, 0.05, 0.5) == pytest.approx(design.power(0.8, 0.05, 0.5)), "the same image five times"
