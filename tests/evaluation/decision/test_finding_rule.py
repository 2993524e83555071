"""Decisions on findings: each as in the task of two classes, on the rows where it is known."""

import dataclasses
import json

import numpy as np
import pytest

from chestxray.errors import DataError, InputError
from chestxray.evaluation.decision import finding_rule, finding_selection, selection, temperature_scaling
from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.recipe import Recipe
from drawn_findings import NAMES, example, made

RECIPE = Recipe()


def drawn(**options):
    """Validation whose probabilities are far too low and too extreme."""
    table = example(**{"rows": 600, "known": 0.8, "split": "validation"} | options)
    logits = 3 * np.log(table.probabilities / (1 - table.probabilities)) - 4
    return table.with_probabilities(1 / (1 + np.exp(-logits)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_each_finding_is_decided_as_one_of_two_classes():
    validation = drawn()
    weights = {"Edema": np.array([0.6, 3.0])}
    calibrated, decision = finding_selection.decide(validation, RECIPE, weights)
    assert decision.classes == NAMES
    for name in NAMES:
        table = validation.of_finding(name)
        calibration = temperature_scaling.fit(table, weights.get(name))
        own = temperature_scaling.calibrated(table, calibration)
        assert decision.findings[name] == selection.decide(own, dataclasses.replace(RECIPE, positive=name), calibration)
        np.testing.assert_allclose(calibrated.of_finding(name).probabilities, own.probabilities, atol=1e-12)
        assert calibration.method == temperature_scaling.OFFSETS, "Platt's form wins where the offset is wrong"
    np.testing.assert_array_equal(decision.decided(calibrated.probabilities), decision.applied(calibrated).predicted)


def test_the_calibration_is_a_scale_and_an_offset_of_the_logit():
    validation = drawn()
    for weights in (None, {name: np.array([0.6, 3.0]) for name in NAMES}):
        for recipe in (RECIPE, Recipe(calibrate=False)):
            calibrated, decision = finding_selection.decide(validation, recipe, weights)
            scale, offset = decision.scale_and_offset()
            logits = np.log(validation.probabilities / (1 - validation.probabilities))
            np.testing.assert_allclose(sigmoid(scale * logits + offset), calibrated.probabilities, atol=1e-10)
            np.testing.assert_allclose(
                decision.uncalibrated(calibrated.probabilities), validation.probabilities, atol=1e-9
            )
    assert scale.tolist() == [1, 1, 1]
    assert offset.tolist() == [0, 0, 0], "nothing is calibrated where the recipe says so"


def test_weights_are_undone_where_nothing_better_is_found():
    truth = np.array([[1.0], [0.0]] * 8)  # too few images of each class for offsets to be tried
    validation = made(truth, np.where(truth == 1, 0.8, 0.4), ("Mass",), split="validation")
    _, decision = finding_selection.decide(validation, RECIPE, {"Mass": np.array([1.0, 4.0])})
    assert decision.findings["Mass"].calibration.method == temperature_scaling.PRIOR_SHIFT
    scale, offset = decision.scale_and_offset()
    np.testing.assert_allclose(offset, -scale * np.log(4.0))


def test_a_finding_of_too_few_patients_says_that_nothing_was_chosen():
    table = drawn()
    truth = table.truth.copy()
    truth[:, 1] = np.where(np.arange(len(truth)) < 5, 1.0, 0.0)
    validation = made(truth, table.probabilities, NAMES, split="validation")
    calibrated, decision = finding_selection.decide(validation, Recipe(sensitivity=0.8, abstain=0.9))
    edema = decision.findings["Edema"]
    assert (edema.threshold, edema.calibration.method, edema.limit) == (0.5, temperature_scaling.NONE, None)
    assert edema.chosen_by == "not chosen: validation has 5 patients with it and 595 without; 6 of each are needed"
    assert edema.words == f"A film is called Edema at a probability of 0.500 or more; {edema.chosen_by}."
    assert (calibrated.probabilities[:, 1] == validation.probabilities[:, 1]).all()
    assert decision.findings["Mass"].threshold != 0.5


def test_known_weights_are_undone_where_nothing_can_be_fitted():
    table = drawn()
    truth = table.truth.copy()
    truth[:, 1] = np.where(np.arange(len(truth)) < 5, 1.0, 0.0)
    validation = made(truth, table.probabilities, NAMES, split="validation")
    # Weights of a finding that one film in twenty shows.
    weights = {"Edema": np.array([1 / (2 * 0.95), 1 / (2 * 0.05)])}
    calibrated, decision = finding_selection.decide(validation, Recipe(), weights)
    edema = decision.findings["Edema"]
    assert edema.threshold == pytest.approx(0.05) and not edema.chosen
    assert edema.calibration == temperature_scaling.unshifted(weights["Edema"])
    before, after = validation.probabilities[:, 1], calibrated.probabilities[:, 1]
    np.testing.assert_allclose(after / (1 - after), before / (1 - before) * 0.05 / 0.95, rtol=1e-9)
    assert (decision.decided(calibrated.probabilities)[:, 1] == (before >= 0.5)).all()


def test_a_sensitivity_is_promised_where_it_can_be():
    table = drawn()
    truth = table.truth.copy()
    truth[:, 0] = np.where(np.arange(len(truth)) < 12, 1.0, 0.0)
    validation = made(truth, table.probabilities, NAMES, split="validation")
    _, decision = finding_selection.decide(validation, Recipe(sensitivity=0.9))
    assert decision.findings["Edema"].promise is not None
    assert decision.findings["Mass"].promise is None
    assert decision.findings["Mass"].chosen_by == (
        "Youden's index, since 12 patients with it are too few to promise 0.9"
    )
    with pytest.raises(InputError, match="No finding has enough patients, "):
        finding_selection.decide(validation, Recipe(sensitivity=0.999))
    with pytest.raises(InputError, match="positive is for two classes"):
        finding_selection.decide(validation, Recipe(positive="Mass"))
    with pytest.raises(InputError, match="prevalence is for two classes"):
        finding_selection.check(validation.findings, Recipe(prevalence=0.1))


def test_answers_of_abstention_and_refusal():
    validation, decision = finding_selection.decide(drawn(), Recipe(abstain=0.8))
    refused = np.arange(len(validation.rows)) % 10 == 0
    found = decision.applied(validation, refused)
    said = found.rows
    assert (said.loc[refused, "decision"] == "").all()
    assert set(said["refused"]) == {"true", "false"}
    mass = said["abstained_Mass"] == "true"
    assert 0 < mass.sum() < len(said)
    assert not said.loc[mass, "decision"].str.contains("Mass").any()
    one = found.of_finding("Mass")
    assert (one.rows["decision"] == "").sum() == (
        (one.rows["abstained"] == "true") | (one.rows["refused"] == "true")
    ).sum()
    alone = decision.findings["Mass"].applied(validation.of_finding("Mass"), refused[one.rows.index])
    assert (alone.rows["decision"] == one.rows["decision"]).all(), "as in the task of two classes"
    plain = FindingDecision({name: dataclasses.replace(d, limit=None) for name, d in decision.findings.items()})
    answers = plain.applied(validation).rows
    none = ~plain.decided(validation.probabilities).any(axis=1)
    assert (answers.loc[none, "decision"] == "No Finding").all()
    with pytest.raises(DataError, match="different findings"):
        decision.applied(FindingPredictions(validation.rows, NAMES[:2]))


def test_it_is_read_as_it_was_written(tmp_path):
    _, decision = finding_selection.decide(drawn(), Recipe(abstain=0.9, sensitivity=0.7))
    decision = decision.with_features("relu")
    path = tmp_path / "decision.json"
    path.write_text(json.dumps(decision.to_json(), allow_nan=False))
    assert FindingDecision.read(path) == decision == finding_rule.read(path)
    assert decision.features == "relu"
    one = decision.findings["Mass"]
    path.write_text(json.dumps(one.to_json()))
    assert finding_rule.read(path) == one
    with pytest.raises(DataError, match="no decision on findings"):
        FindingDecision.read(path)


def without(content, *keys):
    for key in keys[:-1]:
        content = content[key]
    del content[keys[-1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(findings={}), "findings must be one or more"),
        (lambda c: c.update(findings=[1]), "findings must be a table"),
        (lambda c: without(c, "findings", "Mass", "thresholds"), "findings.Mass.thresholds is missing"),
        (lambda c: c["findings"]["Mass"].update(classes=["a"]), "findings.Mass: classes must be two"),
        (lambda c: c["findings"]["Mass"].update(positive=None), "findings.Mass.positive must be the finding"),
        (lambda c: c["findings"]["Mass"].update(features="conv"), "features must be the same"),
        (lambda c: c["findings"]["Mass"]["calibration"].update(temperature=0), "Mass.calibration.temperature must be"),
    ],
)
def test_damage_is_refused_in_one_line(tmp_path, change, message):
    content = finding_selection.decide(drawn(), RECIPE)[1].to_json()
    change(content)
    path = tmp_path / "decision.json"
    path.write_text(json.dumps(content))
    for read in (FindingDecision.read, finding_rule.read):
        with pytest.raises(DataError, match=message) as error:
            read(path)
        assert "\n" not in str(error.value)
