"""Shares of the classes without labels: against a plain loop, the truth, and scikit-learn's confusion matrix."""

import numpy as np
import pandas as pd
import pytest

from chestxray.evaluation.clinical.prevalence_shift import (
    Known,
    adjusted,
    by_confusion,
    by_maximisation,
    estimate,
    label_shift,
)
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.predictions import Predictions

CLASSES = ("clear", "sick")


def drawn(generator, rows, share, believed):
    """States, and probabilities that are calibrated where the share of the sick is `believed`."""
    state = generator.random(rows) < share
    odds = believed / (1 - believed) * np.exp(2 * (generator.normal(size=rows) + 2 * state - 1))
    sick = odds / (1 + odds)
    return state.astype(int), np.column_stack([1 - sick, sick])


def saerens(probabilities, shares):
    """Equations 2.6 and 2.7 of Saerens, Latinne and Decaestecker (2002), row by row."""
    found = shares
    for _ in range(3000):
        after = []
        for row in probabilities:
            weighed = found / shares * row
            after.append(weighed / weighed.sum())
        found = np.mean(after, axis=0)
    return found


def test_maximisation_is_the_papers_and_weights_stand_for_rows():
    generator = np.random.default_rng(0)
    probabilities = drawn(generator, 60, 0.2, 0.5)[1]
    shares, times = np.array([[0.5, 0.5], [0.4, 0.6]]), np.stack([np.ones(60), generator.integers(0, 3, 60)])
    found = by_maximisation(probabilities, shares, times)
    assert found[0] == pytest.approx(saerens(probabilities, shares[0]), abs=1e-4)
    assert found[1] == pytest.approx(
        saerens(np.repeat(probabilities, times[1].astype(int), axis=0), shares[1]), abs=1e-4
    )


def test_the_confusion_matrix_is_turned_around():
    confusion = np.array([[[80.0, 20.0], [10.0, 90.0]]])
    decided = np.repeat([0, 1], [590, 410])
    found = by_confusion(decided, confusion, np.ones((1, 1000)))[0]
    assert found @ (confusion[0] / 100) == pytest.approx([0.59, 0.41])
    assert found[1] == pytest.approx(0.3)
    useless = np.array([[[50.0, 50.0], [50.0, 50.0]]])
    assert np.isnan(by_confusion(decided, useless, np.ones((1, 1000)))).all()
    everything = by_confusion(np.ones(10, dtype=int), confusion, np.ones((1, 10)))[0]
    assert everything.tolist() == [0.0, 1.0], "never below 0 or above 1"


def test_both_estimates_and_their_intervals_find_another_prevalence():
    generator = np.random.default_rng(1)
    held = np.zeros(2)
    for _ in range(60):
        state, validated = drawn(generator, 300, 0.5, 0.5)
        known = Known(state, validated.argmax(axis=1), np.arange(300), 2)
        _, probabilities = drawn(generator, 400, 0.1, 0.5)
        found = estimate(probabilities, probabilities.argmax(axis=1), np.arange(400), known, replicates=200)
        held += [way[1].low <= 0.1 <= way[1].high for way in (found.maximisation, found.confusion)]
    assert (held >= 0.88 * 60).all()


def test_put_right_the_probabilities_are_calibrated_again():
    generator = np.random.default_rng(2)
    state, probabilities = drawn(generator, 20_000, 0.1, 0.5)
    right = adjusted(probabilities, np.array([0.5, 0.5]), np.array([0.9, 0.1]))
    assert probabilities[:, 1].mean() > 0.15
    assert right[:, 1].mean() == pytest.approx(state.mean(), abs=0.005)
    np.testing.assert_allclose(adjusted(right, np.array([0.9, 0.1]), np.array([0.5, 0.5])), probabilities, atol=1e-12)


def test_a_test_elsewhere_is_told_with_and_without_labels():
    generator = np.random.default_rng(3)

    def table(rows, share):
        state, probabilities = drawn(generator, rows, share, 0.5)
        names = pd.DataFrame({"path": [f"/{i}" for i in range(rows)], "patient": "", "split": "test", "source": "x"})
        names["label"] = np.asarray(CLASSES, dtype=object)[state]
        return Predictions.from_probabilities(names, CLASSES, probabilities)

    validation, test = table(400, 0.5), table(600, 0.1)
    whole = evaluate(test, replicates=100)
    found = label_shift(test, validation, whole, replicates=100, seed=0)
    assert "label shift" in found["assumption"]
    sick = found["estimated"]["maximisation"]["sick"]
    assert sick["low"] <= 0.1 <= sick["high"]
    assert found["labels"]["sick"]["value"] == pytest.approx((test.truth == 1).mean())
    errors = found["corrected"]
    assert errors["after"]["brier"]["value"] < errors["before"]["brier"]["value"]
    assert errors["before"]["brier"]["value"] == whole.test["brier"].value
    one = Predictions(validation.rows[validation.truth == 0].reset_index(drop=True), CLASSES)
    assert label_shift(test, one, whole, replicates=100, seed=0) is None
