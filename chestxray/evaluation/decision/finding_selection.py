"""Selects the decision rule of a run of findings on its validation rows, each finding as a task of two classes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

import numpy as np

from chestxray.data import findings as states
from chestxray.errors import InputError
from chestxray.evaluation.decision import selection, temperature_scaling
from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.decision.rule import NOT_CHOSEN, Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.finding_predictions import FindingPredictions, Known
from chestxray.evaluation.predictions import Predictions
from chestxray.recipe import Recipe

log = logging.getLogger(__name__)


def check(findings: tuple[str, ...], recipe: Recipe) -> None:
    """Raise `InputError` for choices of `recipe` that findings do not allow."""
    for name, value in (("positive", recipe.positive), ("prevalence", recipe.prevalence)):
        if value is not None:
            raise InputError(
                f"{name} is for two classes; with findings each of them has figures of its own. "
                f"Received: {value!r}, with the findings {', '.join(findings)}."
            )


def check_promise(validation: FindingPredictions, recipe: Recipe) -> None:
    """Raise `InputError` for a sensitivity that validation has too few patients to promise for any finding.

    Probabilities are not used, so that this can be checked before training.
    """
    if recipe.sensitivity is not None:
        of_each = {name: _refusal_to_promise(validation.of_finding(name), name, recipe) for name in validation.findings}
        if all(of_each.values()):
            least = max(validation.findings, key=lambda name: Known.of(validation.of_finding(name), name).patients_with)
            raise InputError(f"No finding has enough patients, {least} the most. {of_each[least]}")


def decide(
    validation: FindingPredictions,
    recipe: Recipe,
    class_weights: Mapping[str, np.ndarray] | None = None,
    before: FindingDecision | None = None,
) -> tuple[FindingPredictions, FindingDecision]:
    """Return `validation` with calibrated probabilities, and the decision rule that `recipe` asks for, chosen on it.

    For a finding with too few patients (`Known.too_few`) nothing is fitted: only the shift of `class_weights` is
    undone, and its threshold is the probability that was 0.5 before, with such weights the proportion of the training
    films that show it. One with too few for the promised sensitivity has Youden's threshold. Its ``chosen_by`` says so.

    Args:
        validation: the rows of validation, with uncalibrated probabilities.
        recipe: ``calibrate``, ``sensitivity``, ``confidence`` and ``abstain`` are used.
        class_weights: for findings that were trained with weights in the cross-entropy, the weights of absent and
            present, float (2,).
        before: the rule of a model that had one already: its threshold is kept for a finding with too few patients.

    Raises:
        InputError: choices of `recipe` that findings do not allow, or a sensitivity that can be promised for none.
    """
    calibrations = {
        name: _calibration(validation.of_finding(name), name, recipe, (class_weights or {}).get(name))
        for name in validation.findings
    }
    undecided = FindingDecision({name: _undecided(name, calibration) for name, calibration in calibrations.items()})
    calibrated = validation.with_probabilities(undecided.calibrated(validation.probabilities))
    return calibrated, decide_again(calibrated, recipe, undecided, before)


def _calibration(table: Predictions, name: str, recipe: Recipe, class_weights: np.ndarray | None) -> Calibration:
    if not recipe.calibrate:
        return Calibration()
    if not Known.of(table, name).too_few:
        return temperature_scaling.fit(table, class_weights)
    return Calibration() if class_weights is None else temperature_scaling.unshifted(class_weights)


def decide_again(
    validation: FindingPredictions, recipe: Recipe, known: FindingDecision, before: FindingDecision | None = None
) -> FindingDecision:
    """Return the decision rule that `recipe` asks for, with the calibration and the refusal of `known`.

    `validation` has probabilities that `known` calibrated; otherwise as `decide`.
    """
    check(validation.findings, recipe)
    check_promise(validation, recipe)
    chosen = {
        name: _of_finding(
            validation.of_finding(name), name, recipe, known.findings[name].calibration,
            None if before is None else before.findings[name],
        )
        for name in validation.findings
    }  # fmt: skip
    return FindingDecision(chosen).with_features(known.features)


def _of_finding(
    table: Predictions, name: str, recipe: Recipe, calibration: Calibration, before: Decision | None
) -> Decision:
    if too_few := Known.of(table, name).too_few:
        undecided = _undecided(name, calibration, f"{NOT_CHOSEN}: validation has {too_few}")
        if before is not None:
            why = before.chosen_by.removeprefix(f"{NOT_CHOSEN}: ")
            because = f"{undecided.chosen_by}; the threshold is the one before ({why})"
            undecided = dataclasses.replace(undecided, thresholds=dict(before.thresholds), chosen_by=because)
        said = "Nothing is fitted for %s, whose threshold is %.3f: validation has %s."
        log.info(said, name, undecided.threshold, too_few)
        return undecided
    own = dataclasses.replace(recipe, positive=name)
    refusal = _refusal_to_promise(table, name, recipe) if recipe.sensitivity is not None else ""
    if refusal:
        own = dataclasses.replace(own, sensitivity=None, confidence=None)
    decision = selection.decide(table, own, calibration)
    if not refusal:
        return decision
    patients = Known.of(table, name).patients_with
    because = f"Youden's index, since {patients} patients with it are too few to promise {recipe.sensitivity:g}"
    return dataclasses.replace(decision, chosen_by=because)


def _refusal_to_promise(table: Predictions, name: str, recipe: Recipe) -> str:
    """Return why the sensitivity of `recipe` cannot be promised for a finding, ``""`` where it can."""
    try:
        selection.check_promise(table, dataclasses.replace(recipe, positive=name))
    except InputError as error:
        return str(error)
    return ""


def _undecided(name: str, calibration: Calibration, chosen_by: str = "") -> Decision:
    """Return the rule of a finding for which nothing was chosen: present where it was before the calibration."""
    classes = (states.absent(name), name)
    threshold = float(calibration.applied(np.array([[0.5, 0.5]]))[0, 1])
    return Decision(classes, name, calibration, thresholds={name: threshold}, chosen_by=chosen_by)
