"""Intercept, slope and error of a test, together."""

import json

import numpy as np
import pytest
import statsmodels.api as sm

from chestxray.evaluation.calibration.calibration_error import calibration_error
from chestxray.evaluation.calibration.calibration_measures import CalibrationMeasures, measure
from chestxray.evaluation.intervals import Figure

CLASSES = ("NORMAL", "COVID", "PNEUMONIA")


def drawn(rows=600, classes=3, sure=1.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 1.5
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (rng.random(rows)[:, None] > true.cumsum(axis=1)).sum(axis=1)
    told = np.exp(sure * logits) / np.exp(sure * logits).sum(axis=1, keepdims=True)
    return truth, told


def measured(truth, told, classes, positive, clusters=None):
    clusters = np.arange(len(truth)) if clusters is None else clusters
    answers = told.max(axis=1), told.argmax(axis=1) == truth
    error = calibration_error(*answers, clusters, replicates=200, seed=0)
    return measure(truth, told, clusters, classes, positive, error)


def test_slope_and_intercept_are_those_of_a_logistic_regression():
    truth, told = drawn(classes=2, sure=1.7)
    found = measured(truth, told, CLASSES[:2], 1)
    logit = np.log(told[:, 1] / told[:, 0])
    slope = sm.Logit(truth, sm.add_constant(logit)).fit(disp=0).params[1]
    intercept = sm.GLM(truth, np.ones(len(truth)), family=sm.families.Binomial(), offset=logit).fit().params[0]
    assert found.slope.value == pytest.approx(slope, abs=1e-5)
    assert found.intercept.value == pytest.approx(intercept, abs=1e-5)
    assert found.slope.high < 1, "too sure is found"
    assert found.intercept == found.per_class["COVID"]["intercept"]


def test_of_more_classes_each_is_held_against_the_rest():
    truth, told = drawn()
    found = measured(truth, told, CLASSES, None)
    assert found.intercept == Figure(None, None, None)
    assert found.slope.low < 1 < found.slope.high
    for k, label in enumerate(CLASSES):
        alone = np.stack([1 - told[:, k], told[:, k]], axis=1)
        one = measured((truth == k).astype(int), alone, ("rest", label), 1)
        assert found.per_class[label]["slope"].value == pytest.approx(one.slope.value)
        assert found.per_class[label]["intercept"] == one.intercept


def test_it_is_read_as_it_was_written():
    truth, told = drawn(rows=40)
    found = measured(truth, told, CLASSES, None, np.arange(40) // 2)
    assert CalibrationMeasures.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_class_without_images_has_no_figures():
    truth, told = drawn(rows=60)
    truth[truth == 2] = 0
    found = measured(truth, told, CLASSES, None)
    assert found.per_class["PNEUMONIA"]["slope"].low is None
    json.dumps(found.to_json(), allow_nan=False)
