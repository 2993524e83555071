"""Predictions -> Evaluation."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from chestxray.data.index import Patients
from chestxray.errors import DataError, InputError
from chestxray.evaluation.evaluate import Evaluation, abnormal, evaluate
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.weighted_metrics import HEADLINE, PER_CLASS
from drawn_predictions import example, made

NOTHING = Figure(None, None, None)


def test_two_classes_against_scikit_learn():
    predictions = example(threshold=0.3)
    test = evaluate(predictions, replicates=100).test
    truth, predicted, p = predictions.truth, predictions.predicted, predictions.probabilities
    expected = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
        "sensitivity": metrics.recall_score(truth, predicted),
        "specificity": metrics.recall_score(truth, predicted, pos_label=0),
        "precision": metrics.precision_score(truth, predicted),
        "f1": metrics.f1_score(truth, predicted),
        "f1_macro": metrics.f1_score(truth, predicted, average="macro"),
        "auroc": metrics.roc_auc_score(truth, p[:, 1]),
        "auprc": metrics.average_precision_score(truth, p[:, 1]),
        "mcc": metrics.matthews_corrcoef(truth, predicted),
        "brier": metrics.brier_score_loss(truth, p[:, 1]),
    }
    assert {name: test[name].value for name in expected} == pytest.approx(expected)
    for name in HEADLINE:
        # An error that noise alone makes as often is none.
        assert test[name].low < test[name].value < test[name].high or (name, test[name].low) == ("ece", 0), name


def test_four_classes_against_scikit_learn():
    predictions = example(classes=("a", "b", "c", "d"))
    evaluation = evaluate(predictions, replicates=100)
    truth, predicted, p = predictions.truth, predictions.predicted, predictions.probabilities
    expected = {
        "sensitivity": metrics.recall_score(truth, predicted, average="macro"),
        "precision": metrics.precision_score(truth, predicted, average="macro"),
        "f1": metrics.f1_score(truth, predicted, average="macro"),
        "auroc": metrics.roc_auc_score(truth, p, multi_class="ovr"),
        "auprc": metrics.average_precision_score(np.eye(4)[truth], p),
        "brier": metrics.brier_score_loss(truth, p),
    }
    assert {name: evaluation.test[name].value for name in expected} == pytest.approx(expected)
    assert evaluation.positive is None
    assert evaluation.per_class["c"]["brier"].value == pytest.approx(metrics.brier_score_loss(truth == 2, p[:, 2]))
    assert np.array_equal(evaluation.counts, metrics.confusion_matrix(truth, predicted))


def test_thresholded_predictions_leave_the_areas_alone():
    usual, cautious = (evaluate(example(threshold=t), replicates=100).test for t in (0.5, 0.1))
    assert cautious["sensitivity"].value > usual["sensitivity"].value
    for name in ("auroc", "auprc", "brier", "ece"):
        assert cautious[name] == usual[name]


def test_json_has_the_form_of_the_documentation_and_comes_back():
    evaluation = evaluate(example(patients=np.arange(120) // 3), replicates=100, seed=7)
    content = evaluation.to_json()
    again = json.loads(json.dumps(content, allow_nan=False))
    assert Evaluation.from_json(again) == evaluation
    counts = ["rows", "patients", "images_of_unknown_patients"]
    assert list(content) == ["test", "per_class", "confusion", *counts, "positive", "interval", "calibration"]
    assert tuple(content["test"]) == HEADLINE
    assert tuple(content["per_class"]["NORMAL"]) == PER_CLASS
    assert content["confusion"]["classes"] == ["NORMAL", "PNEUMONIA"]
    assert [content[name] for name in (*counts, "positive")] == [120, 40, 0, "PNEUMONIA"]
    assert content["interval"] == {
        "level": 0.95,
        "method": "logit-t bootstrap clustered by patient",
        "replicates": 100,
    }


def test_an_unknown_patient_is_no_patient():
    some = example(patients=np.arange(120) // 4)
    some.rows.loc[40:, "patient"] = ""
    content = evaluate(some, replicates=100).to_json()
    assert (content["patients"], content["images_of_unknown_patients"]) == (10, 80)
    content = evaluate(example(), replicates=100).to_json()
    assert (content["patients"], content["images_of_unknown_patients"]) == (None, 120)


def test_json_of_something_else_is_refused():
    with pytest.raises(DataError, match=r"not the content of a metrics\.json"):
        Evaluation.from_json({"test": {}})


@pytest.mark.parametrize(
    ("classes", "number"),
    [
        (("NORMAL", "PNEUMONIA"), 1),
        (("COVID", "Normal"), 0),
        (("No Finding", "effusion"), 1),
        (("tuberculosis", "no_findings"), 0),
        (("clear", "zoster"), 1),
        (("cat", "dog"), 1),
        (("healthy", "normal"), 1),
        (("Negative for Pneumonia", "negative"), 0),
    ],
)
def test_the_abnormal_class(classes, number):
    assert abnormal(classes) == number


def test_positive_class_given():
    predictions = example()
    evaluation = evaluate(predictions, positive="NORMAL", replicates=100)
    assert evaluation.positive == "NORMAL"
    assert evaluation.test["sensitivity"] == evaluation.per_class["NORMAL"]["sensitivity"]
    with pytest.raises(InputError, match=r"Allowed: NORMAL, PNEUMONIA. Received: 'PNEUMONA'"):
        evaluate(predictions, positive="PNEUMONA")


def test_a_class_without_rows():
    predictions = example(classes=("a", "b", "c"))
    predictions = Predictions(
        predictions.rows[predictions.rows["label"] != "c"].reset_index(drop=True), ("a", "b", "c")
    )
    evaluation = evaluate(predictions, replicates=100)
    for name in ("sensitivity", "f1", "auroc", "auprc"):
        assert evaluation.per_class["c"][name] == NOTHING
    assert evaluation.per_class["c"]["specificity"].value < 1
    parts = [evaluation.per_class[k]["auroc"].value for k in ("a", "b")]
    assert evaluation.test["auroc"].value == pytest.approx(np.mean(parts))


def test_one_class_alone():
    predictions = example()
    predictions = Predictions(
        predictions.rows[predictions.rows["label"] == "PNEUMONIA"].reset_index(drop=True), predictions.classes
    )
    test = evaluate(predictions, replicates=100).test
    assert test["auroc"] == test["auprc"] == test["specificity"] == test["mcc"] == NOTHING
    assert test["sensitivity"] == test["accuracy"]


def test_a_class_never_predicted_has_no_precision():
    test = evaluate(example(threshold=1.1), replicates=100).test
    assert test["precision"] == NOTHING
    assert test["sensitivity"].value == test["sensitivity"].low == 0
    assert test["sensitivity"].high == pytest.approx(1 - 0.025 ** (1 / 60))
    # None of the draws moves it, but other patients of either class might.
    assert test["mcc"].low < test["mcc"].value == 0 < test["mcc"].high


def test_no_rows_and_one_row():
    predictions = example()
    empty = evaluate(predictions.of("train"))
    assert set(empty.test.values()) == {NOTHING}
    assert (empty.rows, empty.patients, empty.counts) == (0, Patients(None, 0), ((0, 0), (0, 0)))
    one = evaluate(Predictions(predictions.rows[:1], predictions.classes), replicates=100)
    assert one.test["accuracy"].value in (0.0, 1.0)
    assert one.test["accuracy"].high - one.test["accuracy"].low == pytest.approx(0.975)


def test_all_images_of_one_patient_have_no_interval():
    accuracy = evaluate(example(patients=np.zeros(120, dtype=int)), replicates=100).test["accuracy"]
    assert accuracy.value is not None
    assert accuracy.low is accuracy.high is None


def test_several_images_a_patient_widen_the_interval():
    predictions = example(rows=60)
    rows = pd.concat([predictions.rows] * 4, ignore_index=True)
    rows["path"] = [f"/{i}.png" for i in range(len(rows))]
    apart = Predictions(rows, predictions.classes)
    together = Predictions(rows.assign(patient=np.tile(np.arange(60), 4).astype(str)), predictions.classes)
    widths = [(lambda f: f.high - f.low)(evaluate(p, replicates=500).test["auroc"]) for p in (apart, together)]
    # Four like images are one: twice as wide, and more for being few.
    assert 1.7 < widths[1] / widths[0] < 3
    errors = [evaluate(p, replicates=100).calibration.error for p in (apart, together, predictions)]
    assert [error.plain for error in errors[:2]] == pytest.approx([errors[2].plain] * 2)
    assert errors[0].noise < 0.7 * errors[1].noise


def test_patients_of_one_image_are_the_same_as_unknown_ones():
    unknown, known = (evaluate(example(patients=p), replicates=100) for p in (None, np.arange(120)))
    assert dataclasses.replace(unknown, patients=known.patients) == known


@settings(max_examples=5)
@given(st.integers(0, 1000), st.sampled_from([("n", "p"), ("a", "b", "c")]))
def test_the_order_of_rows_does_not_matter(seed, classes):
    predictions = example(rows=40, classes=classes, patients=np.arange(40) // 2, seed=seed)
    shuffled = Predictions(predictions.rows.sample(frac=1, random_state=seed).reset_index(drop=True), classes)
    assert evaluate(shuffled, replicates=100) == evaluate(predictions, replicates=100)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 4))
def test_no_table_is_too_odd(seed, rows, classes):
    rng = np.random.default_rng(seed)
    names = tuple("abcd"[:classes])
    probabilities = (
        np.eye(classes)[rng.integers(0, classes, rows)] if seed % 2 else np.full((rows, classes), 1 / classes)
    )
    predictions = made(rng.integers(0, classes, rows), probabilities, names, rng.integers(0, 4, rows))
    evaluation = evaluate(predictions, replicates=100)
    json.dumps(evaluation.to_json(), allow_nan=False)
    figures = {
        **evaluation.test,
        **{(k, n): f for k, c in evaluation.per_class.items() for n, f in c.items()},
    }
    for name, figure in figures.items():
        if figure.low is not None:
            assert figure.low <= figure.value <= figure.high
            assert figure.low >= (-1 if name == "mcc" else 0)
            assert figure.high <= (2 if name == "brier" and classes > 2 else 1)


def test_what_cannot_be_evaluated():
    predictions = example()
    for column, value, message in [
        ("label", "MASS", "label of the predictions names unknown classes.*Received: MASS"),
        ("predicted", "MASS", "predicted of the predictions names unknown classes"),
        ("probability_NORMAL", np.nan, "1 rows .* the first of them /00000.png"),
        ("probability_NORMAL", 1.5, "from 0 to 1"),
        ("probability_NORMAL", 0.0, "sum to 1"),
    ]:
        rows = predictions.rows.copy()
        rows.loc[0, column] = value
        if message == "sum to 1":
            rows.loc[0, "probability_PNEUMONIA"] = 0.0
        with pytest.raises(DataError, match=message):
            evaluate(Predictions(rows, predictions.classes))


def test_rounded_probabilities_are_no_warning():
    rows = example().rows.round(3)
    assert evaluate(Predictions(rows, ("NORMAL", "PNEUMONIA")), replicates=100).test["brier"].value > 0


def test_calibration_comes_with_the_figures():
    predictions = example(rows=300)
    sure = predictions.probabilities**3
    sure = made(predictions.truth, sure / sure.sum(axis=1, keepdims=True), predictions.classes)
    well, extreme = (evaluate(p, replicates=100).calibration for p in (predictions, sure))
    assert extreme.slope.value == pytest.approx(well.slope.value / 3, rel=1e-3)
    assert extreme.slope.high < 1
    for found in (well, extreme):
        # Of two classes each says of the other what it says of itself.
        both = [found.per_class[label] for label in predictions.classes]
        assert both[0]["slope"].value == pytest.approx(both[1]["slope"].value)
        assert both[0]["intercept"].value == pytest.approx(-both[1]["intercept"].value)
        assert found.intercept == both[1]["intercept"]
    many = evaluate(example(classes=("a", "b", "c")), replicates=100).calibration
    assert many.intercept == NOTHING
    assert many.slope.low < many.slope.value < many.slope.high


def test_metrics_of_an_earlier_version_are_read():
    content = evaluate(example(), replicates=100).to_json()
    del content["calibration"]
    again = Evaluation.from_json(content)
    assert again.calibration is None
    assert again.to_json() == content
