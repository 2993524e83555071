"""Weighted figures against scikit-learn on repeated rows, draws, and the interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from chestxray.evaluation import bootstrap as module
from chestxray.evaluation.bootstrap import bootstrap, resamples
from chestxray.evaluation.intervals import Figure, logit_t
from chestxray.evaluation.metrics import points
from chestxray.evaluation.weighted_metrics import HEADLINE, LOSSES, PER_CLASS, Calibration, Ranking, Table


def scores(rng, rows, classes, ties):
    truth = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) + np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if ties:
        # Coarse and yet exact sums of one, so that both sides see the same ties.
        probabilities = np.floor(probabilities * 8) / 8
        probabilities[:, 0] = 1 - probabilities[:, 1:].sum(axis=1)
    return truth, rng.integers(0, classes, rows), probabilities


tables = st.builds(
    lambda seed, rows, classes, ties: scores(np.random.default_rng(seed), rows, classes, ties),
    st.integers(0, 10_000),
    st.integers(1, 25),
    st.integers(2, 4),
    st.booleans(),
)


@settings(max_examples=12)
@given(tables, st.integers(0, 1000))
def test_weighted_figures_equal_scikit_learn_on_repeated_rows(table, seed):
    truth, predicted, probabilities = table
    classes = probabilities.shape[1]
    positive = seed % 2 if classes == 2 else None
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(truth)))
    weights[:, 0] += 1
    weights[0] = 1
    figures = Table.of(truth, predicted, probabilities, positive).figures(weights.astype(float))
    for i, row in enumerate(weights):
        plain = points(*(np.repeat(a, row, axis=0) for a in (truth, predicted, probabilities)), positive)
        assert set(plain) == set(figures)
        lost = set(truth) - set(np.repeat(truth, row))
        for key, value in plain.items():
            mean = key[1] in ("balanced_accuracy", "f1_macro", "mcc") or positive is None
            if lost and key[0] is None and mean and key[1] not in ("accuracy", *LOSSES):
                assert np.isnan(figures[key][i]), key
                continue
            assert figures[key][i] == pytest.approx(value, abs=1e-6, nan_ok=True), key


def test_all_figures_are_there():
    table = Table.of(*scores(np.random.default_rng(0), 30, 3, False), None)
    keys = {(None, name) for name in HEADLINE} | {(k, name) for k in range(3) for name in PER_CLASS}
    assert set(table.figures(np.ones((2, 30)))) == keys


def test_areas_with_fractional_weights_equal_scikit_learn():
    rng = np.random.default_rng(5)
    positive, score = rng.random(50) < 0.4, rng.integers(0, 9, 50) / 9
    weights = rng.random((2, 50))
    auroc, average = Ranking.of(score, positive).areas(weights)
    for i, row in enumerate(weights):
        assert auroc[i] == pytest.approx(metrics.roc_auc_score(positive, score, sample_weight=row), abs=1e-9)
        plain = metrics.average_precision_score(positive, score, sample_weight=row)
        assert average[i] == pytest.approx(plain, abs=1e-9)


def plain_calibration_error(confidence, right, bins):
    order = np.argsort(confidence)
    parts = zip(np.array_split(confidence[order], bins), np.array_split(right[order], bins), strict=True)
    return sum(len(c) * abs(r.mean() - c.mean()) for c, r in parts) / len(confidence)


def test_calibration_error_equals_equal_bins_where_rows_divide_evenly():
    rng = np.random.default_rng(3)
    confidence, right = rng.random(150), rng.random(150) < 0.7
    for bins in (15, 10, 1):
        error = Calibration.of(confidence, right).error(np.ones((1, 150)), bins)[0]
        assert error == pytest.approx(plain_calibration_error(confidence, right, bins), abs=1e-12)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_calibration_error_ignores_order_and_repetition(seed, rows):
    rng = np.random.default_rng(seed)
    confidence, right = rng.integers(4, 9, rows) / 8, rng.random(rows) < 0.7
    shuffled = rng.permutation(rows)
    error = Calibration.of(confidence, right).error(np.ones((1, rows)))[0]
    again = Calibration.of(confidence[shuffled], right[shuffled]).error(np.full((1, rows), 3.0))[0]
    assert again == pytest.approx(error, abs=1e-12)
    assert 0 <= error <= 1


def test_resamples_draw_whole_patients():
    clusters = np.array([0, 0, 1, 2, 2, 2])
    weights = np.vstack(list(resamples(clusters, 500, seed=1)))
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.15)


def test_draws_do_not_depend_on_the_size_of_a_block(monkeypatch):
    clusters = np.arange(70) // 2
    whole = np.vstack(list(resamples(clusters, 101, seed=4)))
    monkeypatch.setattr(module, "BLOCK", 350)
    assert np.array_equal(np.vstack(list(resamples(clusters, 101, seed=4))), whole)


def test_models_are_drawn_together():
    rng = np.random.default_rng(0)
    table = Table.of(*scores(rng, 60, 2, False), 1)
    other = Table.of(*scores(rng, 60, 2, False), 1)
    clusters = np.arange(60) // 3
    together = bootstrap([table, other, table], clusters, replicates=50, seed=9)
    (alone,) = bootstrap([other], clusters, replicates=50, seed=9)
    for key, values in alone.items():
        assert np.array_equal(together[1][key], values, equal_nan=True)
        assert np.array_equal(together[0][key], together[2][key], equal_nan=True)


def test_interval_of_a_perfect_score_is_that_of_clopper_and_pearson():
    perfect = logit_t(1.0, np.ones(50), support=10)
    assert perfect.low == pytest.approx(0.6915, abs=1e-4)
    assert perfect.high == 1
    assert logit_t(0.0, np.zeros(50), support=10).high == pytest.approx(1 - 0.6915, abs=1e-4)
    assert logit_t(-1.0, -np.ones(50), support=10, span=(-1, 1)).high == pytest.approx(1 - 2 * 0.6915, abs=1e-4)


def test_interval_that_cannot_be_had():
    assert logit_t(float("nan"), np.array([0.5, 0.6]), support=9) == Figure(None, None, None)
    assert logit_t(0.5, np.array([np.nan, np.nan]), support=9) == Figure(0.5, None, None)
    assert logit_t(0.5, np.array([0.5, 0.6]), support=1) == Figure(0.5, None, None)
    assert logit_t(0.5, np.full(9, 0.5), support=9) == Figure(0.5, None, None)


@given(st.floats(0, 1), st.lists(st.floats(0, 1), min_size=2, max_size=9), st.integers(1, 40))
def test_interval_holds_its_value_and_stays_in_its_span(value, replicates, support):
    figure = logit_t(value, np.array(replicates), support)
    if figure.low is not None:
        assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_interval_of_accuracy_is_near_the_binomial_one():
    right = np.zeros(200, dtype=bool)
    right[:180] = True
    draws = np.random.default_rng(0).binomial(200, 0.9, 20_000) / 200
    figure = logit_t(right.mean(), draws, support=200)
    assert (figure.low, figure.high) == pytest.approx((0.850, 0.934), abs=0.004)
