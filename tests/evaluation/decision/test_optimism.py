"""How much a threshold flatters the rows that chose it."""

import numpy as np
import pytest
from scipy import stats

from chestxray.evaluation.decision import operating_point, optimism


def youden(scores, positive, clusters):
    return operating_point.choose(scores, positive)


def test_the_optimism_is_what_is_lost_on_other_patients_on_average():
    generator = np.random.default_rng(0)
    told, lost = [], []
    for _ in range(60):
        positive = np.arange(60) < 30
        scores = generator.normal(size=60) + 1.2 * positive
        threshold = youden(scores, positive, None)
        seen = (scores[positive] >= threshold).mean() + (scores[~positive] < threshold).mean()
        lost.append(seen - stats.norm.sf(threshold - 1.2) - stats.norm.cdf(threshold))
        found = optimism.of_threshold(scores, positive, np.arange(60), youden)
        told.append(found["sensitivity"] + found["specificity"])
    assert np.mean(lost) > 0.05
    assert np.mean(told) == pytest.approx(np.mean(lost), abs=0.03)


def test_copies_of_an_image_are_of_one_patient():
    generator = np.random.default_rng(1)
    positive = np.arange(40) < 20
    scores = generator.normal(size=40) + positive
    alone = optimism.of_threshold(scores, positive, np.arange(40), youden)
    copies = optimism.of_threshold(np.repeat(scores, 3), np.repeat(positive, 3), np.repeat(np.arange(40), 3), youden)
    assert copies == pytest.approx(alone)
    assert optimism.of_threshold(scores[:20], positive[:20], np.arange(20), youden) is None
