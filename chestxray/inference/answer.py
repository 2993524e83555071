"""Answers for images: the class that is decided on, or of each finding whether it is present; or why nothing is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chestxray.errors import DataError, InputError
from chestxray.evaluation.decision import conformal
from chestxray.evaluation.decision.finding_rule import FindingDecision, Rule
from chestxray.evaluation.decision.rule import Decision
from chestxray.inference.engine import Engine, Outputs
from chestxray.inference.finding_answer import FindingAnswer, of_findings
from chestxray.inference.image_answer import PREFIX, ImageAnswer

if TYPE_CHECKING:
    from chestxray.evaluation.finding_predictions import FindingPredictions
    from chestxray.evaluation.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class Answer(ImageAnswer):
    """The answer of a model of classes for one image.

    ``probabilities``: calibrated, by class; empty where the image cannot be read. ``decision``: the class decided by
    the run's rule, None where nothing is decided: see `ImageAnswer`, or the model ``abstained`` since the conformal
    set ``classes_in_set`` is not that class alone. ``abstained`` and ``classes_in_set`` are None where the run always
    answers.
    """

    probabilities: dict[str, float] = field(default_factory=dict)
    decision: str | None = None
    classes_in_set: tuple[str, ...] | None = None
    abstained: bool | None = None

    @property
    def _silent(self) -> bool:
        return bool(self.abstained)

    @property
    def _words(self) -> str:
        if self.abstained and self.classes_in_set and len(self.classes_in_set) == 1:
            return (
                f"The model abstains: {self.classes_in_set[0]} is the likely class, and its probability of "
                f"{self.probabilities[self.classes_in_set[0]]:.3f} is on the other side of the threshold."
            )
        if self.abstained and self.classes_in_set:
            return f"The model abstains: it cannot tell {' from '.join(self.classes_in_set)} surely enough."
        if self.abstained:
            return "The model abstains: no class is likely enough."
        return f"{self.decision}, with a probability of {self.probabilities[str(self.decision)]:.3f}."

    @property
    def _content(self) -> dict[str, Any]:
        return {"decision": self.decision, "probabilities": self.probabilities or None, **self._abstention}

    def _columns(self, classes: Sequence[str]) -> dict[str, Any]:
        chances = {PREFIX + name: self.probabilities.get(name) for name in classes}
        return {"decision": self.decision, **chances, **self._abstention}

    @property
    def _abstention(self) -> dict[str, Any]:
        inside = None if self.classes_in_set is None else list(self.classes_in_set)
        return {"set": inside, "abstained": self.abstained}


def columns(rule: Rule) -> tuple[str, ...]:
    """Return the names of a row's columns, in order, of answers by `rule`."""
    return tuple(unreadable("", "", rule).cells(rule.classes))


def unreadable(path: str, reason: str, rule: Rule) -> ImageAnswer:
    """Return the answer by `rule` for a file that cannot be read for `reason`."""
    kind = FindingAnswer if isinstance(rule, FindingDecision) else Answer
    return kind(path=path, unreadable=reason)


#: Maps calibrated probabilities, float (rows, classes), to those that are reported; decisions use the calibrated ones.
Adjustment = Callable[[np.ndarray], np.ndarray]


def answers(
    paths: Sequence[str],
    outputs: Outputs,
    engine: Engine,
    rule: Rule | None = None,
    adjustment: Adjustment | None = None,
) -> list[ImageAnswer]:
    """Return an answer for each of `paths` from the corresponding row of `outputs`.

    `rule` is that of the engine with other limits of abstention, see `abstaining`; default: the engine's own.
    `adjustment` changes the reported probabilities of classes, for example for another prevalence, and no decision.
    """
    rule, threshold = rule or engine.decision, engine.refusal_threshold
    images = []
    for i, path in enumerate(paths):
        image: dict[str, Any] = {"path": path, "refused": None, "refusal_threshold": threshold}
        if outputs.distances is not None and threshold is not None:
            image |= {
                "refused": bool(outputs.distances[i] > threshold),
                "distance": round(float(outputs.distances[i]), 5),
            }
        images.append(image)
    if isinstance(rule, FindingDecision):
        return list(of_findings(images, outputs.probabilities, rule))
    return list(_of_classes(images, outputs.probabilities, rule, adjustment))


def _of_classes(
    images: Sequence[dict[str, Any]], probabilities: np.ndarray, rule: Decision, adjustment: Adjustment | None
) -> list[Answer]:
    shown = probabilities if adjustment is None else adjustment(probabilities.astype(np.float64))
    decided = rule.decided(probabilities)
    inside = None if rule.limit is None else conformal.sets(probabilities.astype(np.float64), rule.limit)
    sure = None if inside is None else conformal.answered(inside, decided)
    given = []
    for i, image in enumerate(images):
        likely = None
        if inside is not None:
            likely = tuple(name for name, is_in in zip(rule.classes, inside[i], strict=True) if is_in)
        abstained = None if sure is None else not sure[i]
        given.append(
            Answer(
                **image,
                probabilities={
                    name: round(float(value), 7) for name, value in zip(rule.classes, shown[i], strict=True)
                },
                decision=None if image["refused"] or abstained else rule.classes[decided[i]],
                classes_in_set=likely,
                abstained=abstained,
            )
        )
    return given


def answered(
    paths: Sequence[str],
    reasons: Sequence[str],
    outputs: Outputs | None,
    engine: Engine,
    rule: Rule | None = None,
    adjustment: Adjustment | None = None,
) -> list[ImageAnswer]:
    """Return an answer for each of `paths`; only those with an empty item in `reasons` have a row in `outputs`."""
    readable = [path for path, reason in zip(paths, reasons, strict=True) if not reason]
    given = iter([] if outputs is None else answers(readable, outputs, engine, rule, adjustment))
    by = rule or engine.decision
    return [
        unreadable(path, reason, by) if reason else next(given) for path, reason in zip(paths, reasons, strict=True)
    ]


def abstaining(folder: Path, rule: Rule, coverage: float | None) -> Rule:
    """Return `rule` with the limits of abstention of `coverage` (above 0, below 1) on the calibrated validation
    predictions in `folder`; None keeps the run's own. A finding whose threshold validation could not choose is always
    answered, as in the run.

    Raises:
        InputError: `coverage` is out of range, or the folder has no validation predictions.
        DataError: these are damaged, or have other classes.
    """
    if coverage is None:
        return rule
    if not 0 < coverage < 1:
        raise InputError(f"abstain must be a coverage above 0 and below 1. Received: {coverage:g}.")
    if isinstance(rule, Decision):
        if coverage == rule.coverage and rule.limit is not None:
            return rule
        return _limited(rule, validation_of(folder, rule, "abstain"), coverage)
    chosen = [one for one in rule.findings.values() if one.chosen]
    if all(coverage == one.coverage and one.limit is not None for one in chosen):
        return rule
    validation = findings_validation_of(folder, rule, "abstain")
    return FindingDecision(
        {
            name: _limited(one, validation.of_finding(name), coverage) if one.chosen else one
            for name, one in rule.findings.items()
        }
    )


def _limited(rule: Decision, validation: Predictions, coverage: float) -> Decision:
    limit = conformal.quantile(validation.probabilities, validation.truth, coverage, validation.clusters)
    return dataclasses.replace(rule, coverage=coverage, limit=limit)


def validation_of(folder: Path, decision: Decision, asked: str) -> Predictions:
    """Return the calibrated validation predictions in `folder`, with the classes in the order of `decision`.

    `asked` names the option that needs them, for the error message.

    Raises:
        InputError: the folder has none.
        DataError: these are damaged, or have other classes.
    """
    from chestxray.evaluation.predictions import Predictions

    path = _table(folder, asked)
    validation = Predictions.read(path).of("validation")
    _check_validation(path, len(validation.rows), validation.classes, decision.classes, asked)
    return Predictions(validation.rows, decision.classes)


def findings_validation_of(folder: Path, decision: FindingDecision, asked: str) -> FindingPredictions:
    """Return the calibrated validation predictions of findings in `folder`; arguments and errors as `validation_of`."""
    from chestxray.evaluation.finding_predictions import FindingPredictions

    path = _table(folder, asked)
    validation = FindingPredictions.read(path).of("validation")
    _check_validation(path, len(validation.rows), validation.findings, decision.classes, asked)
    return FindingPredictions(validation.rows, decision.classes)


def _table(folder: Path, asked: str) -> Path:
    path = folder / "predictions.csv"
    if not path.is_file():
        raise InputError(f"{folder} has no predictions.csv, and {asked} is learned from its validation predictions.")
    return path


def _check_validation(path: Path, rows: int, found: Sequence[str], wanted: Sequence[str], asked: str) -> None:
    if not rows:
        raise InputError(f"{path.parent} has no validation predictions, and {asked} is learned from them.")
    if set(found) != set(wanted):
        raise DataError(f"{path} is of the classes {', '.join(found)}, the decision of {', '.join(wanted)}.")
