"""The expected calibration error, corrected for noise."""

import json

import numpy as np
import pytest

from chestxray.evaluation.calibration.calibration_error import CalibrationError, calibration_error
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.weighted_metrics import Calibration


def measured(confidence, right, clusters=None, replicates=400):
    clusters = np.arange(len(right)) if clusters is None else clusters
    return calibration_error(confidence, right, clusters, replicates=replicates, seed=0)


def test_of_a_calibrated_model_it_is_noise():
    # Uncorrected: .08 on average, and its interval never reaches down to the truth, 0.
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        confidence = rng.uniform(0.5, 1, 200)
        found.append(measured(confidence, rng.random(200) < confidence))
    plain, noise = (np.array([getattr(one, name) for one in found]) for name in ("plain", "noise"))
    corrected = np.array([one.corrected.value for one in found])
    assert plain.mean() > 0.06
    assert noise.mean() == pytest.approx(plain.mean(), rel=0.1)
    assert np.median(corrected) < 0.03
    assert np.mean([one.corrected.low == 0 for one in found]) > 0.9
    assert np.mean([one.plain > one.noise_up_to for one in found]) < 0.15


def test_the_plain_error_is_that_of_the_bins():
    rng = np.random.default_rng(1)
    for confidence in (rng.random(150), rng.integers(4, 9, 100) / 8):
        right = rng.random(len(confidence)) < 0.7
        whole = Calibration.of(confidence, right).error(np.ones((1, len(right))))[0]
        assert measured(confidence, right).plain == pytest.approx(whole, abs=1e-12)


def test_a_true_error_is_held():
    # Answers right in 20 points of 100 fewer than stated: an error of .2 in every bin.
    rng = np.random.default_rng(2)
    held, values = [], []
    for _ in range(60):
        confidence = rng.uniform(0.6, 1, 300)
        found = measured(confidence, rng.random(300) < confidence - 0.2)
        held.append(found.corrected.low <= 0.2 <= found.corrected.high)
        values.append(found.corrected.value)
    assert np.mean(held) > 0.88
    assert np.mean(values) == pytest.approx(0.2, abs=0.01)


def test_images_of_a_patient_are_one_for_the_noise():
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.5, 1, 100)
    right = rng.random(100) < confidence
    four = measured(np.repeat(confidence, 4), np.repeat(right, 4), np.repeat(np.arange(100), 4))
    assert four.noise == pytest.approx(measured(confidence, right).noise, rel=0.2)
    assert four.plain == pytest.approx(measured(confidence, right).plain)


def test_what_there_is_of_nothing_and_of_one_patient():
    nothing = measured(np.array([]), np.array([], dtype=bool))
    assert nothing.corrected == Figure(None, None, None)
    assert nothing.plain is None
    one = measured(np.array([0.8, 0.7]), np.array([True, False]), np.zeros(2, dtype=int))
    assert one.corrected == Figure(None, None, None)
    assert 0.4 < one.plain <= 0.45


def test_sure_and_right_is_no_error():
    found = measured(np.ones(40), np.ones(40, dtype=bool))
    assert (found.plain, found.corrected.value, found.corrected.low) == (0, 0, 0)


def test_json_comes_back():
    rng = np.random.default_rng(4)
    found = measured(rng.uniform(0.5, 1, 50), rng.random(50) < 0.7)
    assert CalibrationError.from_json(json.loads(json.dumps(found.to_json()))) == found
