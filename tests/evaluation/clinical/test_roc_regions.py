"""Specificity at a sensitivity and partial AUROC, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from chestxray.evaluation.clinical.roc_regions import regions


@pytest.mark.parametrize(("rows", "digits"), [(12, 0), (30, 1), (300, 1), (300, 6)])
@pytest.mark.parametrize("limit", [0.05, 0.1, 0.5, 1.0])
def test_values_are_those_of_scikit_learn(rows, digits, limit):
    generator = np.random.default_rng([rows, digits])
    positive = np.arange(rows) % 3 == 0
    scores = np.round(generator.normal(size=rows) + positive, digits)
    wanted = (0.5, 0.9, 0.95, 1.0)
    found, partial = regions(scores, positive, np.arange(rows), sensitivities=wanted, most_false=limit, replicates=50)
    assert partial.value == pytest.approx(roc_auc_score(positive, scores, max_fpr=limit), abs=1e-12)
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    for sensitivity, figure in zip(wanted, found, strict=True):
        after = int(np.argmax(true >= sensitivity - 1e-12))
        part = (sensitivity - true[after - 1]) / (true[after] - true[after - 1])
        by_hand = 1 - (false[after - 1] + part * (false[after] - false[after - 1]))
        assert figure.value == pytest.approx(by_hand, abs=1e-12)


def test_replicates_are_those_of_the_rows_drawn():
    """The bootstrap's weights stand for rows that are there several times."""
    from chestxray.evaluation.clinical.roc_regions import _area, _corners, _standardised
    from chestxray.evaluation.weighted_metrics import Ranking

    generator = np.random.default_rng(0)
    scores, positive = np.round(generator.normal(size=60), 1), np.arange(60) < 25
    weights = generator.integers(0, 3, (5, 60)).astype(float)
    areas = _standardised(_area(*_corners(Ranking.of(scores, positive), weights), 0.1), 0.1)
    for area, times in zip(areas, weights.astype(int), strict=True):
        rows = np.repeat(np.arange(60), times)
        assert area == pytest.approx(roc_auc_score(positive[rows], scores[rows], max_fpr=0.1))


def test_intervals_are_wider_with_fewer_patients_and_there_are_none_without_a_class():
    generator = np.random.default_rng(1)
    positive = np.arange(200) % 2 == 0
    scores = generator.normal(size=200) + 1.5 * positive
    alone, _ = regions(scores, positive, np.arange(200), replicates=300)
    twice, _ = regions(np.tile(scores, 2), np.tile(positive, 2), np.tile(np.arange(200), 2), replicates=300)
    assert twice[0].high - twice[0].low == pytest.approx(alone[0].high - alone[0].low, rel=0.1)
    assert alone[0].low < alone[0].value < alone[0].high
    none, partial = regions(scores, np.ones(200, dtype=bool), np.arange(200))
    assert none[0].value is None and partial.value is None
    perfect, partial = regions(positive.astype(float), positive, np.arange(200), replicates=100)
    assert perfect[0].value == partial.value == 1
    assert perfect[0].low < 0.98, "100 patients of a class are no proof"
