"""The difference of two accuracies on the same rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar

from chestxray.evaluation.paired.matched_pairs import mid_p, score
from chestxray.evaluation.paired.paired_tests import accuracy_test


def outcomes(wins, losses, rows):
    """Who is right, of two models."""
    kinds = np.repeat([0, 1, 2], [wins, losses, rows - wins - losses])
    return kinds != 1, kinds != 0


def difference_test(wins, losses, rows):
    return accuracy_test(*outcomes(wins, losses, rows), np.arange(rows))


@given(st.integers(0, 40), st.integers(0, 40))
def test_mid_p_is_the_exact_p_of_statsmodels_less_half_of_what_was_seen(wins, losses):
    exact = mcnemar([[5, wins], [losses, 5]], exact=True).pvalue
    seen = stats.binom.pmf(wins, wins + losses, 0.5)
    assert mid_p(wins, losses) == pytest.approx(1.0 if wins == losses else exact - seen)


@pytest.mark.parametrize(("wins", "losses", "p"), [(1, 7, 0.039), (6, 16, 0.035)])
def test_examples_of_fagerland(wins, losses, p):
    """Fagerland, Lydersen and Laake 2013: airway hyper-responsiveness, and complete response."""
    assert mid_p(wins, losses) == pytest.approx(p, abs=5e-4)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 30), st.floats(-0.9, 0.9))
def test_the_score_has_the_most_likely_shares(wins, losses, both, difference):
    """Tango's closed form against a search for the most likely share of losses."""
    rows = wins + losses + both + 1
    least, most = max(0.0, -difference), (1 - difference) / 2

    def unlikely(share):
        shares = np.clip([share + difference, share, 1 - 2 * share - difference], 1e-12, None)
        return -float(np.array([wins, losses, both + 1]) @ np.log(shares))

    found = optimize.minimize_scalar(unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12})
    variance = rows * (2 * found.x + difference - difference**2)
    if variance > 1e-3:
        expected = (wins - losses - rows * difference) / np.sqrt(variance)
        assert score(wins, losses, rows, difference) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 60))
def test_interval_and_p_agree_and_turn_round(wins, losses, both):
    rows = wins + losses + both + 1
    test, turned = difference_test(wins, losses, rows), difference_test(losses, wins, rows)
    figure, back = test.figure(), turned.figure()
    assert (not figure.low <= 0 <= figure.high) == (test.p < 0.05)
    assert (back.low, back.high) == pytest.approx((-figure.high, -figure.low))
    assert -1 <= figure.low <= figure.value <= figure.high <= 1


def test_where_no_model_is_right_alone_a_difference_remains_possible():
    assert difference_test(0, 0, 50).figure().high == pytest.approx(0.0713, abs=1e-4)
    first = np.ones(60, dtype=bool)
    few = accuracy_test(first, first, np.arange(60) // 6).figure()
    assert few.high > 3 * difference_test(0, 0, 60).figure().high, "ten patients say less than sixty"


@pytest.mark.parametrize("unlike", [0.05, 0.1, 0.2, 0.4])
def test_level_power_and_coverage_by_counting_all_outcomes(unlike):
    rows = 40

    def chances(difference):
        wins, losses = np.meshgrid(np.arange(rows + 1), np.arange(rows + 1), indexing="ij")
        shares = [(unlike + difference) / 2, (unlike - difference) / 2, 1 - unlike]
        given = np.stack([wins, losses, np.maximum(rows - wins - losses, 0)], axis=-1)
        return np.where(wins + losses <= rows, stats.multinomial.pmf(given, rows, shares), 0)

    for difference in (0.0, 0.6 * unlike):
        told = exact = held = 0.0
        for (wins, losses), chance in np.ndenumerate(chances(difference)):
            if chance < 1e-4:
                continue
            test = difference_test(wins, losses, rows)
            figure = test.figure()
            told += chance * (test.p < 0.05)
            held += chance * (figure.low <= difference <= figure.high)
            exact += chance * (wins + losses > 0 and stats.binomtest(wins, wins + losses).pvalue < 0.05)
        assert held > 0.93
        assert told >= exact
        assert difference or told <= 0.05
