"""Means of losses by the bootstrap-t."""

import numpy as np
import pytest
from scipy import stats

from chestxray.evaluation.bootstrap_t import mean_losses
from chestxray.evaluation.intervals import Figure


def interval(losses, clusters=None, most=1.0, replicates=2000, seed=0):
    clusters = np.arange(len(losses)) if clusters is None else clusters
    (found,) = mean_losses(
        np.asarray(losses)[:, None],
        clusters,
        support=len(np.unique(clusters)),
        greatest=np.array([most]),
        replicates=replicates,
        seed=seed,
    )
    return found


def test_of_a_symmetric_loss_it_is_that_of_student():
    losses = np.random.default_rng(0).normal(0.5, 0.05, 400)
    found = interval(losses)
    half = stats.t.ppf(0.975, 399) * stats.sem(losses)
    assert found.value == pytest.approx(losses.mean())
    assert (found.low, found.high) == pytest.approx((losses.mean() - half, losses.mean() + half), abs=half / 10)


def test_of_a_skewed_loss_it_reaches_further_up():
    losses = np.random.default_rng(0).beta(0.1, 2, 100)
    found = interval(losses)
    assert found.high - found.value > 1.3 * (found.value - found.low)


def test_images_of_a_patient_are_one():
    losses = np.random.default_rng(0).beta(1, 5, 80)
    alone, five = interval(losses), interval(np.repeat(losses, 5), np.repeat(np.arange(80), 5))
    assert (five.value, five.low, five.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_what_has_no_interval_or_an_exact_one():
    assert interval(np.array([])) == Figure(None, None, None)
    assert interval(np.full(5, 0.3)) == Figure(pytest.approx(0.3), None, None)
    assert interval(np.array([0.1, 0.4]), np.zeros(2, dtype=int)) == Figure(pytest.approx(0.25), None, None)
    assert interval(np.zeros(20)).high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_hard_answers_have_students_interval():
    losses = np.zeros(30)
    losses[:2] = 1
    found = interval(losses)
    assert 0 < found.low < found.value < found.high < 0.4


def test_the_scale_goes_to_the_greatest():
    losses = np.random.default_rng(0).beta(1, 5, 80)
    double, single = interval(2 * losses, most=2.0), interval(losses)
    assert (double.low, double.high) == pytest.approx((2 * single.low, 2 * single.high))


def test_it_covers_a_skewed_mean():
    # The logit-t interval of the same replicates holds .05 in 91% of such samples.
    rng = np.random.default_rng(3)
    held = [(f := interval(rng.beta(0.1, 1.9, 100), replicates=400, seed=i)).low <= 0.05 <= f.high for i in range(300)]
    assert np.mean(held) > 0.92
