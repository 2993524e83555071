"""Predictive values at a stated prevalence."""

import math

import numpy as np
import pytest
from scipy import stats

from chestxray.evaluation.clinical.predictive_values import npv, ppv, ratio_limits
from chestxray.evaluation.intervals import Figure


def wald(hits, count):
    share = hits / count
    half = 1.96 * math.sqrt(share * (1 - share) / count)
    return Figure(share, share - half, share + half)


def test_values_follow_from_bayes_rule():
    found = (
        ppv(Figure(0.9, None, None), Figure(0.8, None, None), 0.1),
        npv(Figure(0.9, None, None), Figure(0.8, None, None), 0.1),
    )
    assert [figure.value for figure in found] == pytest.approx([0.09 / (0.09 + 0.18), 0.72 / (0.72 + 0.01)])
    assert found[0].low is None
    assert ppv(Figure(0.0, 0.0, 0.1), Figure(1.0, 0.9, 1.0), 0.1).value is None, "nothing is ever called positive"


def test_intervals_of_large_tests_are_the_logit_ones_of_mercaldo():
    sensitivity, specificity, prevalence = wald(5400, 6000), wald(6800, 8000), 0.05
    for figure, error in (
        (ppv(sensitivity, specificity, prevalence), math.sqrt(0.1 / 0.9 / 6000 + 0.85 / 0.15 / 8000)),
        (npv(sensitivity, specificity, prevalence), math.sqrt(0.9 / 0.1 / 6000 + 0.15 / 0.85 / 8000)),
    ):
        logit = math.log(figure.value / (1 - figure.value))
        ends = [1 / (1 + math.exp(-(logit + sign * 1.96 * error))) for sign in (-1, 1)]
        assert [figure.low, figure.high] == pytest.approx(ends, abs=0.0015)


def test_no_false_alarm_among_few_is_no_proof_of_a_high_predictive_value():
    found = ppv(Figure(0.95, 0.85, 0.99), Figure(1.0, 0.95, 1.0), 0.01)
    assert found.value == found.high == 1.0
    assert 0.1 < found.low < 0.2


def test_intervals_hold_the_truth_where_each_part_has_one():
    generator = np.random.default_rng(0)
    truth = 0.05 * 0.9 / (0.05 * 0.9 + 0.95 * 0.05)
    held = 0
    for _ in range(1000):
        parts = [
            Figure(hits / n, *stats.binomtest(int(hits), n).proportion_ci(0.95, "wilson"))
            for hits, n in ((generator.binomial(60, 0.9), 60), (generator.binomial(100, 0.95), 100))
        ]
        figure = ppv(*parts, 0.05)
        held += figure.low <= truth <= figure.high
    assert 0.93 <= held / 1000 <= 0.985


def test_a_ratio_has_no_upper_limit_where_nothing_keeps_the_lower_figure_from_zero():
    assert ratio_limits(Figure(0.5, 0.4, 0.6), Figure(0.0, 0.0, 0.1))[1] == math.inf
