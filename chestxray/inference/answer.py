"""The answer for one image: probabilities and the decided class, or the reason why nothing is decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chestxray.errors import DataError, InputError
from chestxray.evaluation.decision import conformal
from chestxray.evaluation.decision.rule import Decision
from chestxray.inference.engine import Engine, Outputs

if TYPE_CHECKING:
    from chestxray.evaluation.predictions import Predictions

PREFIX = "probability_"


@dataclass(frozen=True)
class Answer:
    """The answer for one image.

    ``probabilities``: calibrated, by class; empty where the image cannot be read. ``decision``: the class decided by
    the run's rule, None where nothing is decided, because the image is ``unreadable`` (the reason, else empty), is
    ``refused`` as out of distribution, or the model ``abstained`` since the conformal set ``classes_in_set`` is not
    that class alone. ``refused`` and ``distance`` are None where the run refuses nothing, ``abstained`` and
    ``classes_in_set`` where it always answers.
    """

    path: str
    probabilities: dict[str, float]
    decision: str | None
    classes_in_set: tuple[str, ...] | None
    abstained: bool | None
    refused: bool | None
    distance: float | None
    refusal_threshold: float | None
    unreadable: str

    @property
    def words(self) -> str:
        """The answer in a sentence."""
        if self.unreadable:
            return f"This image cannot be read: {self.unreadable}."
        if self.refused:
            return (
                "This does not look like the chest radiographs that the model was trained on: its distance from "
                f"them is {self.distance:.2f}, allowed are up to {self.refusal_threshold:.2f}. Nothing is decided."
            )
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

    def to_json(self) -> dict[str, Any]:
        """Return the answer for JSON; null for what the run does not compute and for empty values."""
        return {
            "path": self.path,
            "decision": self.decision,
            "probabilities": self.probabilities or None,
            "set": None if self.classes_in_set is None else list(self.classes_in_set),
            "abstained": self.abstained,
            "refused": self.refused,
            "distance": self.distance,
            "unreadable": self.unreadable or None,
        }

    def row(self, classes: Sequence[str]) -> dict[str, str]:
        """Return the answer as a row of a table with the columns of `columns`: text, empty where JSON has null. Classes
        of a set are separated by ``|``; an empty set is ``-``.
        """
        inside = None if self.classes_in_set is None else "|".join(self.classes_in_set) or "-"
        return {
            "path": self.path,
            "decision": self.decision or "",
            **{PREFIX + name: _number(self.probabilities.get(name)) for name in classes},
            "set": inside or "",
            "abstained": _flag(self.abstained),
            "refused": _flag(self.refused),
            "distance": _number(self.distance),
            "unreadable": self.unreadable,
        }


def columns(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a row's columns, in order."""
    return tuple(unreadable("", "").row(classes))


def unreadable(path: str, reason: str) -> Answer:
    """Return the answer for a file that cannot be read for `reason`."""
    return Answer(path, {}, None, None, None, None, None, None, reason)


#: Maps calibrated probabilities, float (rows, classes), to those that are reported; decisions use the calibrated ones.
Adjustment = Callable[[np.ndarray], np.ndarray]


def answers(
    paths: Sequence[str], outputs: Outputs, engine: Engine, limit: float | None, adjustment: Adjustment | None = None
) -> list[Answer]:
    """Return an answer for each of `paths` from the corresponding row of `outputs`.

    `limit` is the conformal quantile of abstention, see `limit_for`; None: the model always answers. `adjustment`
    changes the reported probabilities, for example for another prevalence, and no decision.
    """
    probabilities, far = outputs.probabilities, outputs.distances
    shown = probabilities if adjustment is None else adjustment(probabilities.astype(np.float64))
    decided = engine.decision.decided(probabilities)
    inside = None if limit is None else conformal.sets(probabilities.astype(np.float64), limit)
    sure = None if inside is None else conformal.answered(inside, decided)
    given = []
    for i, path in enumerate(paths):
        refused = None
        if far is not None and engine.refusal_threshold is not None:
            refused = bool(far[i] > engine.refusal_threshold)
        likely = None
        if inside is not None:
            likely = tuple(name for name, is_in in zip(engine.classes, inside[i], strict=True) if is_in)
        abstained = None if sure is None else not sure[i]
        given.append(
            Answer(
                path=path,
                probabilities={
                    name: round(float(value), 7) for name, value in zip(engine.classes, shown[i], strict=True)
                },
                decision=None if refused or abstained else engine.classes[decided[i]],
                classes_in_set=likely,
                abstained=abstained,
                refused=refused,
                distance=None if refused is None or far is None else round(float(far[i]), 5),
                refusal_threshold=engine.refusal_threshold,
                unreadable="",
            )
        )
    return given


def answered(
    paths: Sequence[str],
    reasons: Sequence[str],
    outputs: Outputs | None,
    engine: Engine,
    limit: float | None,
    adjustment: Adjustment | None = None,
) -> list[Answer]:
    """Return an answer for each of `paths`; only those with an empty item in `reasons` have a row in `outputs`."""
    readable = [path for path, reason in zip(paths, reasons, strict=True) if not reason]
    given = iter([] if outputs is None else answers(readable, outputs, engine, limit, adjustment))
    return [unreadable(path, reason) if reason else next(given) for path, reason in zip(paths, reasons, strict=True)]


def limit_for(folder: Path, decision: Decision, coverage: float | None) -> float | None:
    """Return the conformal quantile of abstention: the run's own, or that of `coverage` (above 0, below 1) on the
    calibrated validation predictions in `folder`.

    Raises:
        InputError: `coverage` is out of range, or the folder has no validation predictions.
        DataError: these are damaged, or have other classes.
    """
    if coverage is None:
        return decision.limit
    if not 0 < coverage < 1:
        raise InputError(f"abstain must be a coverage above 0 and below 1. Received: {coverage:g}.")
    if coverage == decision.coverage and decision.limit is not None:
        return decision.limit
    validation = validation_of(folder, decision, "abstain")
    return conformal.quantile(validation.probabilities, validation.truth, coverage, validation.clusters)


def validation_of(folder: Path, decision: Decision, asked: str) -> Predictions:
    """Return the calibrated validation predictions in `folder`, with the classes in the order of `decision`.

    `asked` names the option that needs them, for the error message.

    Raises:
        InputError: the folder has none.
        DataError: these are damaged, or have other classes.
    """
    from chestxray.evaluation.predictions import Predictions

    path = folder / "predictions.csv"
    if not path.is_file():
        raise InputError(f"{folder} has no predictions.csv, and {asked} is learned from its validation predictions.")
    validation = Predictions.read(path).of("validation")
    if not len(validation.rows):
        raise InputError(f"{folder} has no validation predictions, and {asked} is learned from them.")
    if set(validation.classes) != set(decision.classes):
        raise DataError(
            f"{path} is of the classes {', '.join(validation.classes)}, the decision of {', '.join(decision.classes)}."
        )
    return Predictions(validation.rows, decision.classes)


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _flag(value: bool | None) -> str:
    return "" if value is None else str(value).lower()
