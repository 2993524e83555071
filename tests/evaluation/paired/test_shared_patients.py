"""Figures of two tests that have patients in common vary together, and those of other patients do not."""

import numpy as np
import pytest

from chestxray.evaluation.paired.shared_patients import covariance, covariance_of_means, shared
from chestxray.evaluation.predictions import Predictions
from drawn_findings import made as findings_made
from drawn_predictions import made

TWO = ("NORMAL", "PNEUMONIA")


def answers(patients, right, first=0):
    """Predictions of as many images, right or not; `first` numbers the files."""
    truth = np.arange(len(patients)) % 2
    chosen = np.where(right, truth, 1 - truth)
    predictions = made(truth, np.eye(2)[chosen] * 0.8 + 0.1, TWO, patients)
    rows = predictions.rows.assign(path=[f"/{first + i:05}.png" for i in range(len(truth))])
    return Predictions(rows, TWO)


def accuracies(one, other):
    return covariance([one], [other], "accuracy", None, replicates=4000, seed=0)


def test_the_covariance_is_that_of_the_means_over_the_same_patients():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(200), 2)
    easy = np.repeat(rng.random(200), 2)
    one, other = (answers(patients, rng.random(400) < easy, first) for first in (0, 1000))
    assert shared(one, other) == 200
    each = [
        np.bincount(patients, p.rows["label"].to_numpy() == p.rows["predicted"].to_numpy()) / 2 for p in (one, other)
    ]
    plain = np.cov(each)[0, 1] / 200
    assert plain > 0
    assert accuracies(one, other) == pytest.approx(plain, rel=0.15)
    assert accuracies(other, one) == pytest.approx(accuracies(one, other), rel=0.15)


def test_other_patients_have_none():
    rng = np.random.default_rng(0)
    one, other = (answers(np.arange(50) + first, rng.random(50) < 0.7, first) for first in (0, 1000))
    assert shared(one, other) == 0
    assert accuracies(one, other) == 0


def test_one_number_in_two_sources_is_two_patients():
    one = answers(np.arange(30), np.ones(30, bool))
    other = answers(np.arange(30), np.ones(30, bool), 1000)
    elsewhere = Predictions(other.rows.assign(source="elsewhere"), TWO)
    assert (shared(one, other), shared(one, elsewhere)) == (30, 0)


def test_draws_without_a_patient_who_has_a_rare_finding_are_left_out():
    # Two patients have it: one draw of eight has neither, and no AUROC.
    rng = np.random.default_rng(0)
    truth = (np.arange(40) < 2).astype(float)[:, np.newaxis]
    scores = 1 / (1 + np.exp(-rng.normal(size=(2, 40, 1)) - 2 * truth))
    one, other = (findings_made(truth, probabilities, ("Rare",), np.arange(40)) for probabilities in scores)
    found = covariance_of_means([one], [other], "auroc", ["Rare"], replicates=2000, seed=0)
    alone = [table.of_finding("Rare") for table in (one, other)]
    expected = covariance(alone[:1], alone[1:], "auroc", 1, replicates=2000, seed=0)
    assert found == pytest.approx(expected, rel=0.2, abs=2e-4)
    assert abs(found) < 0.01, "an AUROC of 0 in such draws would make it many times as large"
