"""Arrays of any program get the evaluation of our own runs."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics

import chestxray
from chestxray.errors import DataError, InputError
from chestxray.evaluation import evaluate as evaluation
from chestxray.evaluation.findings_evaluation import evaluate_findings
from drawn_findings import NAMES as FINDINGS
from drawn_findings import example as of_findings
from drawn_predictions import made

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 3, 90)
LOGITS = RNG.normal(size=(90, 3)) + np.eye(3)[TRUTH]
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
NAMES = ("COVID", "NORMAL", "PNEUMONIA")
PATIENTS = np.arange(90) // 3


def test_it_is_the_evaluation_of_a_run_with_the_same_predictions():
    own = evaluation.evaluate(made(TRUTH, PROBABILITIES, NAMES, PATIENTS), replicates=200)
    labels = np.array(NAMES)[TRUTH]
    for given in (TRUTH, labels, labels.tolist()):
        found = chestxray.evaluate(given, PROBABILITIES, groups=PATIENTS, classes=NAMES, replicates=200)
        assert found == own
    assert chestxray.evaluate(labels, PROBABILITIES, groups=PATIENTS, replicates=200) == own, "names in their order"
    floats = TRUTH.astype(np.float32)  # as a loss of PyTorch wants them
    assert chestxray.evaluate(floats, PROBABILITIES, groups=PATIENTS, classes=NAMES, replicates=200) == own


def test_figures_are_those_of_scikit_learn():
    frame = chestxray.evaluate(TRUTH, PROBABILITIES, replicates=100).to_frame()
    assert list(frame.columns) == ["value", "low", "high"]
    assert frame.loc["auroc", "value"] == pytest.approx(metrics.roc_auc_score(TRUTH, PROBABILITIES, multi_class="ovr"))
    assert frame.loc["accuracy", "value"] == pytest.approx((PROBABILITIES.argmax(axis=1) == TRUTH).mean())
    counts = chestxray.evaluate(TRUTH, PROBABILITIES, replicates=100).counts_to_frame()
    assert (counts.to_numpy() == metrics.confusion_matrix(TRUTH, PROBABILITIES.argmax(axis=1))).all()


def test_of_two_classes_one_column_will_do_and_a_threshold_decides():
    truth, score = (TRUTH > 0).astype(int), 1 - PROBABILITIES[:, 0]
    both = np.stack([1 - score, score], axis=1)
    assert chestxray.evaluate(truth, score, replicates=100) == chestxray.evaluate(truth, both, replicates=100)
    found = chestxray.evaluate(truth, score, threshold=0.8, replicates=100)
    assert found.test["sensitivity"].value == pytest.approx(((score >= 0.8) & (truth == 1)).sum() / truth.sum())
    sick_first = chestxray.evaluate(truth, score, classes=["sick", "healthy"], threshold=0.2, replicates=100)
    assert sick_first.positive == "sick"
    assert sick_first.test["sensitivity"].value == pytest.approx(
        ((1 - score >= 0.2) & (truth == 0)).sum() / (truth == 0).sum()
    )


def test_patients_make_the_interval_wider_and_unknown_ones_are_their_own():
    truth, score = np.tile(TRUTH > 0, 4).astype(int), np.tile(1 - PROBABILITIES[:, 0], 4)
    width = {}
    for name, groups in {"rows": None, "patients": np.tile(np.arange(90), 4)}.items():
        figure = chestxray.evaluate(truth, score, groups=groups, replicates=300).test["auroc"]
        width[name] = figure.high - figure.low
    assert width["patients"] > 1.6 * width["rows"]
    known = chestxray.evaluate(TRUTH, PROBABILITIES, groups=[None, np.nan, "", *range(87)], replicates=100)
    assert (known.patients.known, known.patients.unknown) == (87, 3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"y_prob": PROBABILITIES[:80]}, r"a row for each of the 90.*Received: \(80, 3\)"),
        ({"y_prob": PROBABILITIES[:, :2]}, "from 0 to 1, or their names. Received: 0 to 2"),
        ({"y_true": TRUTH.reshape(9, 10)}, r"y_true must be \(n,\)"),
        ({"y_true": ["flu"] * 90, "classes": NAMES}, "Allowed: COVID, NORMAL, PNEUMONIA. Received: flu"),
        ({"groups": PATIENTS[:5]}, "each of the 90 images. Received: 5"),
        ({"classes": ("a", "a", "b")}, "each once"),
        ({"classes": ("a",)}, "two names or more"),
        ({"y_prob": ["a"] * 90}, "y_prob must be an array of numbers: could not convert"),
        ({"y_prob": [[0.1, 0.9], [1.0]]}, "y_prob must be an array of numbers"),
        ({"y_true": np.append(TRUTH[:89], np.nan)}, "numbers of classes, or their names. Received: nan"),
        ({"threshold": 0.5}, "threshold is for two classes"),
        ({"positive": "COVID", "classes": NAMES}, "positive is for two classes"),
        ({"y_true": TRUTH > 0, "y_prob": PROBABILITIES[:, 0], "threshold": 7}, "from 0 to 1. Received: 7"),
    ],
)
def test_a_mistake_is_told_in_a_line(changes, told):
    with pytest.raises(InputError, match=told):
        chestxray.evaluate(**({"y_true": TRUTH, "y_prob": PROBABILITIES} | changes))


def test_logits_are_no_probabilities():
    with pytest.raises(DataError, match="probabilities from 0 to 1"):
        chestxray.evaluate(TRUTH, LOGITS)


def test_it_shows_itself_in_a_notebook_without_running_what_a_class_is_called():
    odd = ("<script>x</script>", "NORMAL", "PNEUMONIA")
    page = chestxray.evaluate(TRUTH, PROBABILITIES, classes=odd, replicates=100)._repr_html_()
    assert "<table" in page and "90 images" in page
    assert "<script" not in page


def test_the_statistics_need_no_tensorflow():
    code = (
        "import sys, chestxray as cx; cx.evaluate([0, 1, 0, 1], [.1, .9, .4, .3], replicates=100);"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_findings_are_those_of_a_run_with_the_same_predictions():
    table = of_findings()
    own = evaluate_findings(table, replicates=100)
    for truth in (table.truth, np.where(np.isnan(table.truth), None, table.truth).tolist()):
        given = {"groups": table.clusters, "findings": list(FINDINGS), "replicates": 100}
        assert chestxray.evaluate(truth, table.probabilities, **given) == own
    strict = chestxray.evaluate(table.truth, table.probabilities, findings=FINDINGS, threshold=[0.9, 0.5, 0.5])
    found = {name: one.test["sensitivity"].value for name, one in strict.findings.items()}
    assert found["Mass"] < own.findings["Mass"].test["sensitivity"].value
    assert found["Edema"] == own.findings["Edema"].test["sensitivity"].value


@pytest.mark.parametrize(
    ("truth", "prob", "options", "message"),
    [
        ([[0, 1]], [[0.5, 0.5]], {"findings": ["a"]}, r"must be \(n, 1\).*Received: \(1, 2\) and \(1, 2\)"),
        ([0, 1], [[0.5], [0.5]], {"findings": ["a"]}, r"must be \(n, 1\)"),
        ([[0, -1]], [[0.5, 0.5]], {"findings": ["a", "b"]}, "NaN for not known. Received: -1"),
        ([["x"]], [[0.5]], {"findings": ["a"]}, "y_true must be an array of numbers"),
        ([[0, 1]], [[0.5, 0.5]], {"findings": ["a", "a"]}, "each once. Received: a, a"),
        ([[0]], [[0.5]], {"findings": []}, "Received: none"),
        ([[0]], [[0.5]], {"findings": ["a"], "positive": "a"}, "classes and positive are for one class"),
        ([[0]], [[0.5]], {"findings": ["a"], "threshold": 2}, "threshold must be a probability"),
        ([[0]], [[0.5]], {"findings": ["a"], "threshold": [0.1, 0.2]}, "one for each of 1 findings"),
        ([[0]], [[0.5]], {"findings": ["a"], "groups": [1, 2]}, "groups must name the patient"),
        ([0, 1], [0.2, 0.7], {"threshold": [0.1, 0.2]}, "threshold must be a number"),
        ([[0, 1]], [[0.5, 0.5]], {}, "give their names as findings"),
    ],
)
def test_wrong_arrays_of_findings_are_refused(truth, prob, options, message):
    with pytest.raises(InputError, match=message):
        chestxray.evaluate(truth, prob, **options)


def test_what_is_no_probability_of_a_finding_is_refused():
    truth = np.tile([[0], [1]], (10, 1))
    with pytest.raises(DataError, match="no probabilities"):
        chestxray.evaluate(truth, truth * 2.0, findings=["a"])
