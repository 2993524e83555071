"""Predictions of findings -> FindingsEvaluation."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from chestxray.data.index import Patients
from chestxray.errors import DataError
from chestxray.evaluation import findings_evaluation
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.finding_means import MEANS
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.findings_evaluation import FindingsEvaluation, evaluate_findings
from chestxray.evaluation.intervals import Figure
from drawn_findings import NAMES, example, made
from drawn_predictions import made as of_classes

NAN = np.nan
NOTHING = Figure(None, None, None)


def test_each_figure_of_a_finding_is_that_of_scikit_learn_on_the_rows_where_it_is_known():
    table = example()
    found = evaluate_findings(table, replicates=100)
    for i, name in enumerate(NAMES):
        known = ~np.isnan(table.truth[:, i])
        truth, p, called = table.truth[known, i], table.probabilities[known, i], table.predicted[known, i]
        expected = {
            "accuracy": metrics.accuracy_score(truth, called),
            "sensitivity": metrics.recall_score(truth, called),
            "specificity": metrics.recall_score(truth, called, pos_label=0),
            "precision": metrics.precision_score(truth, called),
            "f1": metrics.f1_score(truth, called),
            "auroc": metrics.roc_auc_score(truth, p),
            "auprc": metrics.average_precision_score(truth, p),
            "mcc": metrics.matthews_corrcoef(truth, called),
            "brier": metrics.brier_score_loss(truth, p),
        }
        test = found.findings[name].test
        assert {figure: test[figure].value for figure in expected} == pytest.approx(expected)
        counts = found.findings[name].known
        assert (counts.rows, counts.positive) == (known.sum(), truth.sum())
        assert counts.prevalence == pytest.approx(truth.mean())
        assert counts.patients == len(np.unique(table.clusters[known]))


def test_means_are_those_of_scikit_learn():
    table = example(known=1.0)
    found = evaluate_findings(table, replicates=100)
    truth, p, called = table.truth, table.probabilities, table.predicted
    expected = {
        "auroc": metrics.roc_auc_score(truth, p, average="macro"),
        "auprc": metrics.average_precision_score(truth, p, average="macro"),
        "sensitivity": metrics.recall_score(truth, called, average="macro"),
        "specificity": metrics.recall_score(1 - truth, ~called, average="macro"),
        "precision": metrics.precision_score(truth, called, average="macro"),
        "f1": metrics.f1_score(truth, called, average="macro"),
        "brier": np.mean([metrics.brier_score_loss(t, q) for t, q in zip(truth.T, p.T, strict=True)]),
    }
    assert {name: found.test[name].value for name in expected} == pytest.approx(expected)
    assert tuple(found.test) == MEANS
    for name in expected:
        assert found.test[name].low < found.test[name].value < found.test[name].high
    assert found.prevalence == pytest.approx(truth.mean())
    assert found.exact_match.figure.value == pytest.approx(metrics.accuracy_score(truth, called))
    assert found.exact_match.of_no_finding == pytest.approx((truth == 0).all(axis=1).mean())
    any_truth, any_p = truth.any(axis=1), 1 - np.prod(1 - p, axis=1)
    assert found.any_finding.test["auroc"].value == pytest.approx(metrics.roc_auc_score(any_truth, any_p))
    assert found.any_finding.test["f1"].value == pytest.approx(metrics.f1_score(any_truth, called.any(axis=1)))
    both = metrics.multilabel_confusion_matrix(truth, called)
    for i, name in enumerate(NAMES):
        assert np.array_equal(found.findings[name].evaluation.counts, both[i])


def test_two_exclusive_findings_are_the_task_of_two_classes():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 150)
    p = 1 / (1 + np.exp(-rng.normal(size=150) - 2 * truth + 1))
    both = np.stack([1 - p, p], axis=1)
    patients = np.arange(150) // 2
    classes = evaluate(of_classes(truth, both, ("Mass", "Edema"), patients), positive="Edema", replicates=200)
    found = evaluate_findings(made(np.eye(2)[truth], both, ("Mass", "Edema"), patients), replicates=200)
    assert found.findings["Edema"].test == classes.test
    mass = evaluate(of_classes(truth, both, ("Mass", "Edema"), patients), positive="Mass", replicates=200)
    same = {name: figure.value for name, figure in mass.test.items()}
    assert {name: figure.value for name, figure in found.findings["Mass"].test.items()} == pytest.approx(same)
    for name in ("auroc", "sensitivity"):
        limits = [found.findings["Mass"].test[name].low, found.findings["Mass"].test[name].high]
        assert limits == pytest.approx([mass.test[name].low, mass.test[name].high])
    assert found.exact_match.figure.value == classes.test["accuracy"].value
    # Both findings have one area and one Brier score: so has their mean, with the same interval.
    for name, tolerance in (("auroc", 1e-6), ("brier", 1e-9)):
        one, mean = classes.test[name], found.test[name]
        assert [mean.value, mean.low, mean.high] == pytest.approx([one.value, one.low, one.high], abs=tolerance)
    assert found.test["sensitivity"].value == pytest.approx(classes.test["balanced_accuracy"].value)


def test_rows_that_are_not_known_are_rows_left_out():
    table = example(known=0.6)
    found = evaluate_findings(table, replicates=100)
    for name in NAMES:
        assert found.findings[name].evaluation == evaluate(table.of_finding(name), positive=name, replicates=100)
        alone = made(table.truth[:, [NAMES.index(name)]], table.probabilities[:, [NAMES.index(name)]], (name,))
        kept = alone.rows.assign(patient=table.rows["patient"])
        left = FindingPredictions(kept[kept[f"truth_{name}"].notna()].reset_index(drop=True), (name,))
        assert evaluate_findings(left, replicates=100).findings[name] == found.findings[name]
    nothing = np.isnan(table.truth).all(axis=1)
    assert nothing.any()
    left = FindingPredictions(table.rows[~nothing].reset_index(drop=True), NAMES)
    without = evaluate_findings(left, replicates=100)
    assert without.findings == found.findings
    assert without.test == found.test, "rows of which nothing is known change nothing"
    assert without.exact_match == found.exact_match
    assert without.any_finding == found.any_finding


def test_silence_is_no_absence():
    table = example(known=0.5)
    taken = made(np.nan_to_num(table.truth), table.probabilities, NAMES)
    one, other = (evaluate_findings(t, replicates=100).findings["Mass"].known for t in (table, taken))
    assert one.rows < other.rows
    assert one.prevalence > other.prevalence


def test_a_finding_of_few_patients_is_not_scored():
    table = example(known=1.0)
    truth = table.truth.copy()
    truth[:, 2] = 0
    truth[:30, 2] = 1
    patients = np.where(np.arange(240) < 30, np.arange(240) % 5, np.arange(240))
    found = evaluate_findings(made(truth, table.probabilities, NAMES, patients), replicates=100)
    assert found.scored == NAMES[:2]
    assert found.findings["Effusion"].evaluation is None
    assert found.findings["Effusion"].not_scored == "5 patients with it and 210 without; 6 of each are needed"
    two = made(truth[:, :2], table.probabilities[:, :2], NAMES[:2], patients)
    assert evaluate_findings(two, replicates=100).test == found.test
    assert evaluate_findings(two, replicates=100).exact_match == found.exact_match
    assert "Effusion is not scored: 5 patients" in found._repr_html_()


def test_means_know_that_findings_go_together():
    """One finding named twice is no more certain than once; two independent ones are."""
    table = example(known=1.0, rows=400, findings=("Mass", "Edema"))
    truth, p = table.truth, table.probabilities
    patients = np.arange(400) // 2
    once = evaluate_findings(made(truth[:, :1], p[:, :1], ("Mass",), patients), replicates=300)
    twice = evaluate_findings(made(truth[:, [0, 0]], p[:, [0, 0]], ("Mass", "Edema"), patients), replicates=300)
    apart = evaluate_findings(made(truth, p, ("Mass", "Edema"), patients), replicates=300)
    for name in ("auroc", "auprc", "sensitivity", "specificity", "f1", "brier"):
        widths = [run.test[name].high - run.test[name].low for run in (once, twice, apart)]
        assert widths[0] == pytest.approx(widths[1], rel=0.02), name
        assert widths[2] < 0.9 * widths[0], name


def test_the_mean_of_one_finding_is_its_figure():
    found = evaluate_findings(example(findings=("Mass",)), replicates=200)
    for name in MEANS:
        one, mean = found.findings["Mass"].test[name], found.test[name]
        assert mean.value == pytest.approx(one.value)
        assert [mean.low, mean.high] == pytest.approx([one.low, one.high], abs=0.02)


def test_pairs_of_findings_are_counted():
    truth = np.array([[1, 1, NAN], [1, 0, 0], [0, 1, 1], [NAN, 1, 0.0]])
    p = np.array([[0.9, 0.8, 0.9], [0.9, 0.7, 0.1], [0.1, 0.2, 0.9], [0.8, 0.9, 0.6]])
    pairs = evaluate_findings(made(truth, p), replicates=100).co_occurrence
    assert pairs.truth == ((2, 1, 0), (1, 3, 1), (0, 1, 1))
    assert pairs.known == ((3, 3, 2), (3, 4, 3), (2, 3, 3))
    assert pairs.answers == ((3, 3, 2), (3, 3, 2), (2, 2, 3))
    assert pairs.confused == ((0, 1, 0), (0, 0, 1), (0, 0, 0))
    assert pairs.to_frame("truth").loc["Mass", "Edema"] == 1


def test_any_finding_is_known_where_one_is_present_or_all_are_absent():
    truth = np.array([[1, NAN, NAN], [0, 0, 0], [0, NAN, 0], [NAN, NAN, NAN]])
    table = findings_evaluation.of_any(made(truth, np.full((4, 3), 0.5)))
    assert table.rows["label"].tolist() == ["any finding", "No Finding"]
    assert table.probabilities[:, 1].tolist() == [0.875, 0.875]


def test_json_comes_back():
    found = evaluate_findings(example(a_patient=3), replicates=100, seed=7)
    content = found.to_json()
    again = json.loads(json.dumps(content, allow_nan=False))
    assert FindingsEvaluation.from_json(again) == found == findings_evaluation.from_json(again)
    assert list(content) == [
        *("task", "test", "prevalence", "scored", "findings", "any_finding", "exact_match", "co_occurrence"),
        *("rows", "patients", "images_of_unknown_patients", "interval"),
    ]
    assert (content["task"], content["rows"], content["patients"]) == ("findings", 240, 80)
    one = evaluate(example().of_finding("Mass"), replicates=100)
    assert findings_evaluation.from_json(one.to_json()) == one
    for damage in ({"task": "findings"}, {"task": "classes"}, {}):
        with pytest.raises(DataError, match="not the metrics"):
            FindingsEvaluation.from_json(damage)


def test_tables_for_people():
    found = evaluate_findings(example(), replicates=100)
    assert list(found.to_frame().index) == list(MEANS)
    assert found.findings_to_frame().loc[("Mass", "auroc"), "value"] == found.findings["Mass"].test["auroc"].value
    assert found.known_to_frame().loc["Mass", "rows"] == found.findings["Mass"].known.rows
    page = found._repr_html_()
    assert "mean of 3" in page
    assert "any finding" in page


def test_no_rows_and_nothing_known():
    for table in (example().of("train"), made(np.full((9, 3), NAN), np.full((9, 3), 0.5))):
        found = evaluate_findings(table, replicates=100)
        assert set(found.test.values()) == {NOTHING}
        assert found.scored == ()
        assert (found.exact_match.rows, found.exact_match.figure) == (0, NOTHING)
        json.dumps(found.to_json(), allow_nan=False)
        assert len(found.to_frame()) == len(MEANS)
        assert len(found.findings_to_frame()) == 0
        assert "not scored" in found._repr_html_()
    assert found.patients == Patients(None, 9)


@settings(max_examples=3)
@given(st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(seed):
    table = example(rows=40, seed=seed)
    shuffled = FindingPredictions(table.rows.sample(frac=1, random_state=seed).reset_index(drop=True), NAMES)
    assert evaluate_findings(shuffled, replicates=100) == evaluate_findings(table, replicates=100)


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 4))
def test_no_table_is_too_odd(seed, rows, findings):
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, NAN], (rows, findings), p=[0.6, 0.3, 0.1])
    p = (rng.random((rows, findings)) < 0.5).astype(float) if seed % 2 else np.full((rows, findings), 0.5)
    if seed % 3 == 0:
        p = np.nan_to_num(truth)
    names = tuple("abcd"[:findings])
    found = evaluate_findings(made(truth, p, names, rng.integers(0, rows, rows)), replicates=100)
    json.dumps(found.to_json(), allow_nan=False)
    for figure in found.test.values():
        if figure.low is not None:
            assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_what_is_no_probability_is_refused():
    table = example()
    table.rows.loc[0, "probability_Mass"] = 1.5
    table.rows.loc[0, "truth_Mass"] = 1
    with pytest.raises(DataError, match="no probabilities"):
        evaluate_findings(table, replicates=100)
