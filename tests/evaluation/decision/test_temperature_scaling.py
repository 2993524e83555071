import numpy as np
import pandas as pd
import pytest

from chestxray.evaluation.decision import temperature_scaling
from chestxray.evaluation.decision.temperature_scaling import Calibration, calibrated, fit, uncalibrated
from chestxray.evaluation.predictions import Predictions

NAMES = ("a", "b", "c")


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def drawn(seed, n, classes=3, common=0.0):
    """Logits whose softmax are true probabilities, the first class more common by `common`, and outcomes."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (n, classes))
    logits[:, 0] += common
    truth = (softmax(logits).cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    return logits, np.minimum(truth, classes - 1)


def made(logits, truth, patients=None) -> Predictions:
    classes = NAMES[: logits.shape[1]]
    rows = pd.DataFrame(
        {
            "path": [f"/{i}.png" for i in range(len(truth))],
            "patient": "" if patients is None else [str(p) for p in patients],
            "split": "validation",
            "source": "made",
            "label": [classes[k] for k in truth],
        }
    )
    return Predictions.from_probabilities(rows, classes, softmax(logits))


def loss(predictions):
    return -np.log(predictions.probabilities[np.arange(len(predictions.rows)), predictions.truth]).mean()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    logits, truth = drawn(0, 20_000)
    found = fit(made(logits * temperature, truth))
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.method == temperature_scaling.TEMPERATURE


def test_calibration_lowers_the_error_and_a_temperature_keeps_every_order():
    logits, truth = drawn(1, 4000)
    before = made(logits * 4, truth)
    after = calibrated(before, fit(before))
    assert loss(after) < loss(before) - 0.1
    np.testing.assert_array_equal(before.probabilities.argmax(axis=1), after.probabilities.argmax(axis=1))
    np.testing.assert_allclose(after.probabilities.sum(axis=1), 1)


def test_what_is_applied_is_the_softmax_of_the_calibrated_logits_and_can_be_undone():
    logits = np.random.default_rng(0).normal(0, 4, (50, 3))
    chosen = Calibration(2.5, (0.5, -1.0, 0.5), temperature_scaling.OFFSETS)
    np.testing.assert_allclose(chosen.applied(softmax(logits)), softmax(logits / 2.5 + [0.5, -1.0, 0.5]))
    np.testing.assert_allclose(chosen.undone(chosen.applied(softmax(logits))), softmax(logits))
    there = made(logits, np.zeros(50, dtype=int))
    back = uncalibrated(calibrated(there, chosen), chosen)
    np.testing.assert_allclose(back.probabilities, there.probabilities)


def test_the_frequencies_that_class_weights_pretend_are_undone():
    logits, truth = drawn(2, 6000, classes=2, common=2.0)
    share = (truth == 1).mean()
    weights = len(truth) / (2 * np.bincount(truth))
    # What a network learns under these weights (Menon et al. 2021), and twice too sure.
    trained = made(2 * (logits + np.log(weights)), truth)
    assert calibrated(trained, fit(trained, None)).probabilities[:, 1].mean() == pytest.approx(share, abs=0.01)
    temperature_alone = Calibration(2.0, method=temperature_scaling.TEMPERATURE)
    assert calibrated(trained, temperature_alone).probabilities[:, 1].mean() > 1.3 * share
    found = fit(made(logits + np.log(weights), truth), weights)
    assert found.method == temperature_scaling.PRIOR_SHIFT
    assert found.temperature == pytest.approx(1, rel=0.06)
    assert np.diff(found.offsets)[0] == pytest.approx(-np.diff(np.log(weights))[0], rel=0.06)


def test_few_images_keep_the_known_shift_and_no_offsets_of_their_own():
    logits, truth = drawn(3, 120, classes=2, common=2.5)
    assert np.bincount(truth).min() >= temperature_scaling.FEWEST_OF_A_CLASS
    weights = len(truth) / (2 * np.bincount(truth))
    found = fit(made(logits + np.log(weights), truth), weights)
    assert found.method == temperature_scaling.PRIOR_SHIFT
    few = fit(made(logits[:40] + 5, truth[:40]))
    assert few.method == temperature_scaling.TEMPERATURE, "a class has too few images to fit a number to"


def test_offsets_are_fitted_where_they_are_needed_and_seldom_where_they_are_not():
    needed, chosen = 0, 0
    for seed in range(30):
        logits, truth = drawn(seed, 400)
        needed += fit(made(logits + np.array([1.0, 0.0, -1.0]), truth)).method == temperature_scaling.OFFSETS
        chosen += fit(made(logits, truth)).method == temperature_scaling.OFFSETS
    assert needed == 30
    assert chosen <= 6


def test_patients_count_and_not_their_images_when_forms_are_compared():
    """Forty patients, ten images each with one outcome: the same table as forty images."""
    logits, truth = drawn(11, 60)
    alone = fit(made(logits, truth))
    many = fit(made(np.repeat(logits, 10, axis=0), np.repeat(truth, 10), np.repeat(np.arange(60), 10)))
    assert alone.method == many.method == temperature_scaling.TEMPERATURE
    unknown = [
        fit(made(np.repeat(drawn(s, 60)[0], 10, axis=0), np.repeat(drawn(s, 60)[1], 10))).method for s in range(12)
    ]
    known = [
        fit(
            made(np.repeat(drawn(s, 60)[0], 10, axis=0), np.repeat(drawn(s, 60)[1], 10), np.repeat(np.arange(60), 10))
        ).method
        for s in range(12)
    ]
    assert unknown.count(temperature_scaling.OFFSETS) > known.count(temperature_scaling.OFFSETS) + 3


def test_a_faultless_validation_ends_at_the_bound_and_is_known():
    sure = made(np.tile([2.0, 0.0], (10, 1)), np.zeros(10, dtype=int))
    assert fit(sure).at_bound
    assert not Calibration(1.0, method=temperature_scaling.TEMPERATURE).at_bound
