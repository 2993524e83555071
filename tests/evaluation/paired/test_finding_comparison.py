"""Models compared on findings."""

import json

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from chestxray.errors import DataError, InputError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.findings_evaluation import evaluate_findings
from chestxray.evaluation.paired.comparison import compare
from chestxray.evaluation.paired.finding_comparison import compare_findings
from drawn_findings import NAMES, example, made

METRICS = ("auroc", "auprc", "sensitivity", "specificity", "precision", "f1")


def model(skill, rows=300, seed=0, known=0.8, a_patient=2, findings=NAMES):
    """A model of some skill on the films of `example`."""
    table = example(rows, findings, seed=0, known=1.0, a_patient=a_patient)
    hidden = np.random.default_rng(9).random(table.truth.shape) >= known
    own = np.random.default_rng([seed, int(100 * skill)]).normal(size=table.truth.shape)
    logits = 0.7 * own + skill * (table.truth - 0.5)
    truth = np.where(hidden, np.nan, table.truth)
    return made(truth, 1 / (1 + np.exp(-logits)), findings, np.arange(rows) // a_patient)


@pytest.mark.parametrize("metric", METRICS)
def test_each_finding_is_compared_as_one_of_two_classes_and_corrected_over_all(metric):
    tables = {"good": model(2), "bad": model(0.8), "worse": model(0.4)}
    found = compare_findings(tables, metric, replicates=200)
    pairs = []
    for name in NAMES:
        alone = compare({m: t.of_finding(name) for m, t in tables.items()}, metric, positive=name, replicates=200)
        ours = found.findings[name]
        assert [s.figure for s in ours.standings] == [s.figure for s in alone.standings]
        assert [(p.p, p.difference, p.test) for p in ours.pairs] == [(p.p, p.difference, p.test) for p in alone.pairs]
        pairs += ours.pairs
    expected = multipletests([pair.p for pair in pairs], method="holm")[1]
    assert [pair.p_holm for pair in pairs] == pytest.approx(expected.tolist())
    assert [s.model for s in found.mean.standings] == ["good", "bad", "worse"]
    for standing in found.mean.standings:
        own = evaluate_findings(tables[standing.model], replicates=200).test[metric]
        assert standing.figure.value == pytest.approx(own.value)
        assert [standing.figure.low, standing.figure.high] == pytest.approx([own.low, own.high], abs=1e-5)
    json.dumps(found.to_json(), allow_nan=False)


def test_the_mean_tells_models_apart_that_no_finding_does():
    names = tuple("abcdefgh")
    tables = {"good": model(1.5, known=1.0, findings=names), "bad": model(1.1, known=1.0, findings=names)}
    found = compare_findings(tables, replicates=300)
    (pair,) = found.mean.pairs
    assert pair.test == "paired bootstrap clustered by patient"
    assert pair.apart
    assert pair.difference.low > 0
    assert sum(one.pairs[0].apart for one in found.findings.values()) < len(names)
    for one in found.findings.values():
        assert one.pairs[0].difference.high - one.pairs[0].difference.low > pair.difference.high - pair.difference.low


def test_the_mean_of_one_finding_is_nearly_delong():
    tables = {"good": model(1.2, findings=("Mass",)), "bad": model(0.8, findings=("Mass",))}
    found = compare_findings(tables, replicates=2000)
    one, mean = found.findings["Mass"].pairs[0], found.mean.pairs[0]
    assert mean.difference.value == pytest.approx(one.difference.value)
    assert mean.difference.low == pytest.approx(one.difference.low, abs=0.01)


def test_a_model_does_not_differ_from_itself():
    found = compare_findings({"one": model(1), "other": model(1)}, replicates=100)
    for one in (found.mean, *found.findings.values()):
        assert (one.pairs[0].p, one.pairs[0].apart, one.pairs[0].difference.value) == (1.0, False, 0)
        assert len({standing.letters for standing in one.standings}) == 1


def test_two_exclusive_findings_are_the_two_classes():
    films = np.arange(200)
    truth = (np.random.default_rng(0).random(200) < 0.4).astype(float)
    tables, alone = {}, {}
    for seed, (name, skill) in enumerate({"good": 2.0, "bad": 0.7}.items()):
        given = 1 / (1 + np.exp(-(np.random.default_rng(seed).normal(size=200) + skill * (truth - 0.5))))
        both = np.stack([given, 1 - given], axis=1)
        tables[name] = made(np.stack([truth, 1 - truth], axis=1), both, ("Sick", "Well"), films // 2)
        alone[name] = tables[name].of_finding("Sick")
    found, classes = compare_findings(tables), compare(alone, positive="Sick")
    (pair,) = classes.pairs
    for name in ("Sick", "Well"):
        ours = found.findings[name].pairs[0]
        assert (ours.p, ours.test) == (pytest.approx(pair.p), pair.test)
        assert (ours.difference.low, ours.difference.high) == pytest.approx((pair.difference.low, pair.difference.high))
    mean = found.mean.pairs[0].difference
    assert mean.value == pytest.approx(pair.difference.value)
    # One by the bootstrap, one by DeLong.
    assert (mean.low, mean.high) == pytest.approx((pair.difference.low, pair.difference.high), abs=0.01)


def test_several_trainings_and_folds():
    seeds = {"good": [model(1.5, seed=s) for s in range(3)], "bad": [model(0.9, seed=s) for s in range(3)]}
    found = compare_findings(seeds, replicates=200)
    assert found.mean.design == "seeds"
    single = [evaluate_findings(table, replicates=100).test["auroc"].value for table in seeds["good"]]
    assert found.mean.standings[0].repeats == pytest.approx(tuple(single))
    assert found.mean.standings[0].figure.value == pytest.approx(np.mean(single))
    assert found.mean.pairs[0].apart

    def in_folds(table):
        return FindingPredictions(table.rows.assign(fold=np.arange(len(table.rows)) // 2 % 5), NAMES)

    found = compare_findings({m: in_folds(tables[0]) for m, tables in seeds.items()}, replicates=200)
    assert found.mean.design == "folds"
    of_folds = [evaluate_findings(in_folds(seeds["good"][0]), replicates=100)]
    assert found.mean.standings[0].figure.value == pytest.approx(of_folds[0].test["auroc"].value, abs=0.03)
    assert found.mean.standings[0].figure.low < found.mean.standings[0].figure.value
    assert found.mean.pairs[0].difference.value > 0


def test_unscored_findings_are_named():
    tables = {}
    for name, skill in (("good", 2), ("bad", 1)):
        table = model(skill, known=1.0, a_patient=1)
        truth = table.truth.copy()
        truth[:, 1] = np.arange(len(truth)) < 3
        tables[name] = made(truth, table.probabilities, NAMES)
    found = compare_findings(tables, replicates=100)
    assert found.not_scored == {"Edema": "3 patients with it and 297 without; 6 of each are needed"}
    assert set(found.pairs_to_frame()["finding"]) == {"", "Mass", "Effusion"}
    assert "Mass" in found._repr_html_()
    assert list(found.to_frame()["model"]) == ["good", "bad"]


def test_what_cannot_be_compared():
    one = model(1)
    with pytest.raises(InputError, match=r"Unknown metric of findings\. Did you mean auroc"):
        compare_findings({"a": one, "b": one}, "auro")
    with pytest.raises(InputError, match=r"two models or more\. Received: 1"):
        compare_findings({"a": one})
    with pytest.raises(InputError, match="Without any: b"):
        compare_findings({"a": one, "b": []})
    with pytest.raises(DataError, match="different findings: Mass, Edema, Effusion and Mass"):
        compare_findings({"a": one, "b": model(1, findings=("Mass",))})
    with pytest.raises(DataError, match="different labels of Mass for"):
        compare_findings({"a": one, "b": model(1, known=0.5)})
    few = made(np.zeros((20, 1)), np.zeros((20, 1)), ("Mass",))
    with pytest.raises(DataError, match=r"No finding can be compared\. Mass: 0 patients with it"):
        compare_findings({"a": few, "b": few})
