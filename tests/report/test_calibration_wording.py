"""What is said of intercept, slope and calibration error."""

import pytest

from chestxray.evaluation.evaluate import evaluate
from chestxray.report.calibration_wording import in_figure, sentences
from drawn_predictions import example


def figure(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


ECE = {"corrected": figure(0.02, 0.0, 0.05), "plain": 0.076, "noise": 0.0771, "noise_up_to": 0.101}
NOTHING = figure(None)


@pytest.mark.parametrize(
    ("slope", "words"),
    [
        (figure(0.6, 0.5, 0.7), "too extreme, the model is too sure of itself"),
        (figure(1.5, 1.2, 1.8), "too moderate (underconfident)"),
        (figure(0.9, 0.7, 1.1), "in line with 1"),
        (figure(0.9), "Calibration slope 0.90: 1 is as it should be."),
        (NOTHING, "slope is not available"),
    ],
)
def test_slope(slope, words):
    first, *_ = sentences({"slope": slope, "intercept": NOTHING, "ece": ECE}, "MASS")
    assert words in first


@pytest.mark.parametrize(
    ("intercept", "words"),
    [
        (figure(0.5, 0.2, 0.8), "MASS is more frequent here than the probabilities say"),
        (figure(-0.5, -0.8, -0.2), "MASS is less frequent"),
        (figure(0.1, -0.2, 0.4), "in line with 0"),
    ],
)
def test_intercept(intercept, words):
    told = sentences({"slope": figure(1.0, 0.9, 1.1), "intercept": intercept, "ece": ECE}, "MASS")
    assert words in told[1]
    assert len(told) == 3


def test_the_error_stands_beside_what_noise_makes():
    *_, last = sentences({"slope": figure(1.0, 0.9, 1.1), "intercept": NOTHING, "ece": ECE}, None)
    assert last == (
        "Expected calibration error 0.020 (95% interval 0.000 to 0.050), corrected for noise. Uncorrected it is 0.076; "
        "a perfectly calibrated model would get 0.077 on as many images of as many patients, and up to 0.101 in 95 of "
        "100 tests."
    )


def test_an_earlier_version_has_nothing_to_say():
    assert sentences(None, "MASS") == []
    assert in_figure(None) == "smooth curve, 95% band"


def test_what_an_evaluation_measured_is_said():
    measures = evaluate(example(), replicates=100).to_json()["calibration"]
    assert len(sentences(measures, "PNEUMONIA")) == 3
    assert in_figure(measures).count("\n") == 2
