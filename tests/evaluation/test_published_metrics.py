"""Figures of plugins are treated as our own: values, intervals, paired tests, means over classes and findings."""

import dataclasses

import numpy as np
import pytest

import method_plugins
from chestxray.errors import InputError, PluginError
from chestxray.evaluation.evaluate import Evaluation, evaluate
from chestxray.evaluation.finding_predictions import TRUTH, FindingPredictions
from chestxray.evaluation.findings_evaluation import FindingsEvaluation, evaluate_findings
from chestxray.evaluation.paired.comparison import compare
from chestxray.evaluation.paired.finding_comparison import compare_findings
from chestxray.evaluation.predictions import PREFIX, Predictions
from drawn_findings import NAMES, example
from simulated import predictions

METRICS = ("pairs", "wrong")


@pytest.fixture(autouse=True)
def _installed(tmp_path, monkeypatch):
    method_plugins.install(tmp_path / "site", monkeypatch)


@pytest.mark.parametrize("classes", [("NORMAL", "PNEUMONIA"), ("a", "b", "c")])
def test_a_figure_of_a_plugin_is_in_the_evaluation_beside_our_own(classes):
    given = predictions(0.8, 60, classes=classes, patients=np.arange(60) // 2)
    found = evaluate(given, replicates=200, metrics=METRICS)
    plain = evaluate(given, replicates=200)
    assert {name: found.test[name] for name in plain.test} == dict(plain.test)
    assert found.test["pairs"].value == pytest.approx(plain.test["auroc"].value)
    for label in classes:
        assert found.per_class[label]["pairs"].value == pytest.approx(plain.per_class[label]["auroc"].value)
        assert "wrong" not in found.per_class[label]
    for name, low, high in (("pairs", 0, 1), ("wrong", 0, 100)):
        figure = found.test[name]
        assert low <= figure.low < figure.value < figure.high <= high
    assert found.published["wrong"]["better"] == "lower"
    assert found.published["pairs"]["distribution"] == "method-plugins"
    assert Evaluation.from_json(found.to_json()) == found
    assert "published" not in plain.to_json()


@pytest.mark.parametrize("classes", [("NORMAL", "PNEUMONIA"), ("a", "b", "c")])
def test_rows_of_one_class_or_none_have_what_can_be_computed(classes):
    given = predictions(0.8, 60, classes=classes)
    for rows in (given.rows[given.rows["label"] == classes[0]], given.rows.iloc[:0]):
        found = evaluate(Predictions(rows, classes), replicates=100, metrics=METRICS).test
        assert found["pairs"].value is None
        assert (found["wrong"].value is None) == rows.empty


def test_the_interval_of_the_same_figure_is_nearly_that_of_our_own():
    found = evaluate(predictions(0.8, 100), replicates=1000, metrics=("pairs",)).test
    for end in ("low", "high"):
        assert getattr(found["pairs"], end) == pytest.approx(getattr(found["auroc"], end), abs=0.02)


def test_models_are_compared_by_the_figure_of_a_plugin():
    both = {"one": predictions(0.3, 150), "other": predictions(1.5, 150)}
    by_ours, by_theirs = (compare(both, name, replicates=400) for name in ("auroc", "pairs"))
    assert by_theirs.pairs[0].difference.value == pytest.approx(by_ours.pairs[0].difference.value)
    assert by_theirs.pairs[0].p == pytest.approx(by_ours.pairs[0].p, abs=0.01)
    assert by_theirs.pairs[0].test == "paired bootstrap clustered by patient"
    fewest = compare(both, "wrong", replicates=200)
    assert [standing.model for standing in fewest.standings] == ["other", "one"]
    assert fewest.standings[0].figure.value < fewest.standings[1].figure.value


def test_models_of_many_classes_and_several_seeds_are_compared_by_it():
    classes = ("a", "b", "c")
    seeds = {name: [predictions(skill + i / 10, 90, classes=classes) for i in range(2)]
             for name, skill in (("one", 0.3), ("other", 1.5))}  # fmt: skip
    by_ours, by_theirs = (compare(seeds, name, replicates=200) for name in ("auroc", "pairs"))
    assert by_theirs.pairs[0].difference.value == pytest.approx(by_ours.pairs[0].difference.value)
    assert by_theirs.pairs[0].difference.low == pytest.approx(by_ours.pairs[0].difference.low)


def test_findings_have_it_each_and_in_the_mean():
    given = example(rows=120)
    found = evaluate_findings(given, replicates=200, metrics=METRICS)
    for one in (found.findings[name].test for name in found.scored):
        assert one["pairs"].value == pytest.approx(one["auroc"].value)
    assert found.test["pairs"].value == pytest.approx(found.test["auroc"].value)
    assert found.test["pairs"].low == pytest.approx(found.test["auroc"].low, abs=0.03)
    assert 0 < found.test["wrong"].low < found.test["wrong"].high < 100
    assert FindingsEvaluation.from_json(found.to_json()).to_json() == found.to_json()


def test_models_of_findings_are_compared_by_it():
    both = {"one": example(rows=120), "other": example(rows=120)}
    better = both["other"].rows.copy()
    for name in NAMES:
        better[PREFIX + name] = np.where(better[TRUTH + name] == 1, 0.6, 0.4) * 0.9 + 0.1 * better[PREFIX + name]
    both["other"] = FindingPredictions(better, NAMES)
    ours, theirs = (compare_findings(both, name, replicates=200) for name in ("auroc", "pairs"))
    assert theirs.mean.pairs[0].difference.value == pytest.approx(ours.mean.pairs[0].difference.value)
    assert theirs.mean.pairs[0].p == pytest.approx(ours.mean.pairs[0].p, abs=0.01)
    wrong = compare_findings(both, "wrong", replicates=200).mean
    assert [standing.model for standing in wrong.standings] == ["other", "one"]
    assert wrong.standings[1].figure.high > 1
    with pytest.raises(InputError, match=r"Unknown metric of findings.*f1, pairs, wrong"):
        compare_findings(both, "pear")


def test_an_unknown_name_is_one_line_with_ours_and_the_installed_ones():
    both = {"one": predictions(0.3), "other": predictions(1.5)}
    with pytest.raises(InputError, match=r"Did you mean pairs\? Allowed: .*auroc.*Installed: pairs, wrong\.") as raised:
        compare(both, "pear")
    assert "\n" not in str(raised.value)
    with pytest.raises(PluginError, match="Unknown metric 'absent'"):
        evaluate(both["one"], metrics=("absent",))
    with pytest.raises(InputError, match="auroc is in every evaluation"):
        evaluate(both["one"], metrics=("auroc",))


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        (lambda truth, probability, weights: 1 / 0, "failed with ZeroDivisionError"),
        (lambda truth, probability, weights: np.ones(3), r"must return \(replicates,\)"),
        (lambda truth, probability, weights: np.full(len(weights), 1.5), "must keep its bounds, 0 to 1. Received: 1.5"),
    ],
)
def test_a_plugin_that_breaks_its_contract_is_named(compute, said, monkeypatch):
    monkeypatch.setattr(method_plugins, "pairs", dataclasses.replace(method_plugins.pairs, compute=compute))
    with pytest.raises(PluginError, match=f"metric plugin pairs is broken: compute {said}"):
        evaluate(predictions(0.8, 30), replicates=100, metrics=("pairs",))
