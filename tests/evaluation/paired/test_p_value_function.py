"""Interval and p of a difference, read off one function."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired.p_value_function import DifferenceTest, t_test


def test_the_t_of_scipy():
    sample = np.random.default_rng(0).normal(0.03, 0.05, 12)
    test = t_test(sample.mean(), sample.std(ddof=1) / np.sqrt(12), 11, "t")
    expected = stats.ttest_1samp(sample, 0.0)
    between = expected.confidence_interval(0.95)
    assert test.p == pytest.approx(expected.pvalue)
    assert (test.figure().low, test.figure().high) == pytest.approx((between.low, between.high))
    assert test.above(-0.02) == pytest.approx(stats.ttest_1samp(sample, -0.02, alternative="greater").pvalue)
    assert test.below(0.02) == pytest.approx(stats.ttest_1samp(sample, 0.02, alternative="less").pvalue)


@given(st.floats(-0.9, 0.9), st.floats(0.001, 0.5), st.floats(1, 200), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_interval_excludes_no_difference_where_p_is_small_alone(value, error, freedom, level):
    test = t_test(value, error, freedom, "t")
    figure = test.figure(level)
    if abs(test.p - (1 - level)) > 1e-9:
        assert (not figure.low <= 0 <= figure.high) == (test.p < 1 - level)
    assert -1 <= figure.low <= value <= figure.high <= 1


def test_where_nothing_is_said_of_other_values():
    assert t_test(0.0, 0.0, 10, "t").p == 1
    assert t_test(0.1, 0.0, 10, "t").p is None
    assert t_test(0.1, 0.1, 0, "t").figure() == Figure(0.1, None, None)
    assert t_test(math.nan, 0.1, 10, "t").figure() == Figure(None, None, None)
    assert DifferenceTest(0.1, "t").above(0.0) is None is DifferenceTest(0.1, "t").below(0.0)
