"""Figures with what each row adds to them."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from chestxray.evaluation.influence import accuracy, auroc, correlation, covariance, mean
from chestxray.evaluation.paired.paired_tests import delong


def drawn(rows=300, seed=0):
    rng = np.random.default_rng(seed)
    positive = rng.random(rows) < 0.3
    first = positive + rng.normal(size=rows)
    return positive, first.round(1), (0.6 * first + rng.normal(size=rows)).round(1), rng.integers(0, rows // 3, rows)


def test_one_stratum_is_the_area_of_scikit_learn_and_the_variance_of_delong():
    positive, first, second, clusters = drawn()
    flat = np.zeros(len(positive), dtype=int)
    one, other = auroc(positive, first, flat), auroc(positive, second, flat)
    assert one.value == pytest.approx(roc_auc_score(positive, first), abs=1e-12)
    assert one.rows.sum() == pytest.approx(0, abs=1e-12)
    for codes, close in ((np.arange(len(positive)), 0.02), (clusters, 0.02)):
        _, expected = delong(positive, np.stack([first, second]), codes)
        assert covariance(one, one, codes) == pytest.approx(expected[0, 0], rel=close)
        assert covariance(one, other, codes) == pytest.approx(expected[0, 1], rel=close)
    assert 0 < correlation(one, other, clusters) < 1


def test_only_pairs_of_one_stratum_count():
    positive, score, _, clusters = drawn()
    strata = clusters % 4
    shifted = score + 100 * strata
    found = auroc(positive, shifted, strata)
    assert found.value == pytest.approx(auroc(positive, score, strata).value)
    parts = [np.flatnonzero(strata == k) for k in range(4)]
    pairs = [positive[p].sum() * (~positive[p]).sum() for p in parts]
    wanted = np.average([roc_auc_score(positive[p], score[p]) for p in parts], weights=pairs)
    assert found.value == pytest.approx(wanted)


def test_intervals_of_cross_validated_areas_cover():
    true = 0.7602  # of a normal with a distance of 1: Phi(1 / sqrt 2)
    missed = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        clusters = np.arange(120) // 2
        positive = clusters % 3 == 0
        score = positive + rng.normal(size=60)[clusters] * 0.6 + rng.normal(size=120) * 0.8
        figure = auroc(positive, score, clusters % 5).figure(clusters, support=20)
        missed += not figure.low <= true <= figure.high
    assert missed <= 30, "nominally 15; more than 30 have a probability of 0.02%"


def test_means_and_shares():
    positive, first, second, clusters = drawn()
    flat = np.zeros(len(positive), dtype=int)
    one, other = auroc(positive, first, flat), auroc(positive, second, flat)
    absent = auroc(np.zeros(len(positive), dtype=bool), first, flat)
    assert np.isnan(absent.value)
    both = mean([one, absent, other])
    assert both.value == pytest.approx((one.value + other.value) / 2)
    wanted = (covariance(one, one, clusters) + covariance(other, other, clusters)) / 4
    wanted += covariance(one, other, clusters) / 2
    assert covariance(both, both, clusters) == pytest.approx(wanted)
    right = accuracy(positive)
    assert right.value == positive.mean()
    assert covariance(right, right, np.arange(len(positive))) == pytest.approx(positive.var() / len(positive))


def test_a_score_that_is_the_same_everywhere_is_a_coin_toss_for_sure():
    positive = np.arange(20) % 2 == 0
    figure = auroc(positive, np.ones(20), np.zeros(20, dtype=int)).figure(np.arange(20), support=10)
    assert figure.to_json() == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert accuracy(np.zeros(0, dtype=bool)).figure(np.zeros(0, dtype=int), 0).value is None
