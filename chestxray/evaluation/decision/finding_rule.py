"""The decision rule of a run of findings: a rule of two classes for each finding, chosen on validation.

Written as ``decision.json``. This module needs neither pandas nor SciPy: a server imports it. `finding_selection`
chooses the rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from chestxray.errors import DataError
from chestxray.evaluation.decision import conformal
from chestxray.evaluation.decision.rule import Decision, DecisionJson
from chestxray.evaluation.decision.temperature_scaling import NONE
from chestxray.storage import schema

if TYPE_CHECKING:
    from chestxray.evaluation.finding_predictions import FindingPredictions


class FindingDecisionJson(TypedDict):
    """A `FindingDecision` as ``decision.json`` and exported files have it."""

    task: Literal["findings"]
    findings: dict[str, DecisionJson]


@dataclass(frozen=True)
class FindingDecision:
    """A rule of two classes for each finding, in the order of the model's outputs; the finding is the positive one."""

    findings: Mapping[str, Decision]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the findings, in order."""
        return tuple(self.findings)

    @property
    def thresholds(self) -> np.ndarray:
        """Calibrated probability from which each finding is called present, float64 (findings,)."""
        return np.array([decision.thresholds[name] for name, decision in self.findings.items()])

    @property
    def features(self) -> str | None:
        """The layer whose pooled output distinguishes radiographs from other images, None where nothing is refused."""
        return next(iter(self.findings.values())).features

    def with_features(self, features: str | None) -> FindingDecision:
        """Return the rule with another layer that distinguishes radiographs."""
        changed = {name: dataclasses.replace(one, features=features) for name, one in self.findings.items()}
        return FindingDecision(changed)

    def scale_and_offset(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the calibration as numbers for each finding, each float64 (findings,).

        With the logit z of a finding's uncalibrated probability, its calibrated probability is
        ``sigmoid(scale * z + offset)`` (Platt 1999).
        """
        scales, offsets = [], []
        for name, decision in self.findings.items():
            calibration, positive = decision.calibration, decision.classes.index(name)
            scales.append(1 / calibration.temperature)
            added = calibration.offsets
            offsets.append(added[positive] - added[1 - positive] if added else 0.0)
        return np.array(scales), np.array(offsets)

    def calibrated(self, probabilities: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, float64 (rows, findings), from uncalibrated ones."""
        return self._mapped(probabilities, "applied")

    def uncalibrated(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the uncalibrated probabilities, float64 (rows, findings), from calibrated ones."""
        return self._mapped(probabilities, "undone")

    def _mapped(self, probabilities: np.ndarray, how: Literal["applied", "undone"]) -> np.ndarray:
        given = np.asarray(probabilities, dtype=np.float64)
        columns = [
            column
            if decision.calibration.method == NONE
            else getattr(decision.calibration, how)(np.stack([1 - column, column], axis=1))[:, 1]
            for decision, column in zip(self.findings.values(), given.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """Return which findings are called present, bool (rows, findings), from calibrated probabilities, float (rows,
        findings).
        """
        return np.asarray(probabilities) >= self.thresholds

    def abstained(self, probabilities: np.ndarray) -> np.ndarray:
        """Return from which findings the model abstains, bool (rows, findings), from calibrated probabilities, float
        (rows, findings); False where it always answers.
        """
        given = np.asarray(probabilities, dtype=np.float64)
        called = self.decided(given).astype(int)
        found = np.zeros(given.shape, dtype=bool)
        for i, rule in enumerate(self.findings.values()):
            if rule.limit is not None:
                inside = conformal.sets(np.stack([1 - given[:, i], given[:, i]], axis=1), rule.limit)
                found[:, i] = ~conformal.answered(inside, called[:, i])
        return found

    @property
    def words(self) -> str:
        """The rules, a sentence each."""
        return " ".join(decision.words for decision in self.findings.values())

    def applied(self, predictions: FindingPredictions, refused: np.ndarray | None = None) -> FindingPredictions:
        """Return `predictions`, whose probabilities are calibrated, with the decisions of this rule.

        ``predicted_<finding>`` is the decision, whether or not it is given as an answer; ``decision`` names the
        findings that are answered to be present, ``No Finding`` where all are answered to be absent, empty where the
        image is refused. ``refused`` and, where the model may abstain, ``abstained_<finding>`` are ``true`` or
        ``false``. `refused`: bool (rows,); None keeps the column of the table.
        """
        from chestxray.data import findings as states
        from chestxray.evaluation.finding_predictions import (
            ABSTAINED,
            PREDICTED,
            FindingPredictions,
            require_same_findings,
        )

        require_same_findings(predictions.findings, self.classes, "Predictions and decision")
        rows = predictions.rows.copy()
        answers = np.empty((len(rows), len(predictions.findings)), dtype=np.int8)
        for i, name in enumerate(predictions.findings):
            found = self.findings[name].applied(predictions.of_finding_everywhere(name), refused).rows
            called = (found["predicted"] == name).to_numpy()
            rows[PREDICTED + name] = called.astype(np.int8)
            rows["refused"] = found["refused"]
            if self.findings[name].limit is not None:
                rows[ABSTAINED + name] = found["abstained"]
            answers[:, i] = np.where(called, states.PRESENT, states.ABSENT)
            answers[(found["abstained"] == "true").to_numpy(), i] = states.UNCERTAIN
        answers[(rows["refused"] == "true").to_numpy()] = states.UNKNOWN
        rows["decision"] = states.labels(answers, predictions.findings)
        return FindingPredictions(rows, predictions.findings)

    def to_json(self) -> dict[str, Any]:
        """The contents of ``decision.json``."""
        return {"task": "findings", "findings": {name: one.to_json() for name, one in self.findings.items()}}

    @classmethod
    def from_json(cls, content: Any) -> FindingDecision:
        """Return the rule from what `to_json` gave. Raises ValueError, with a sentence, for content of another form."""
        fields = schema.conform(content, FindingDecisionJson)
        if not fields["findings"]:
            raise ValueError("findings must be one or more. Received: none")
        found = {}
        for name, given in fields["findings"].items():
            try:
                found[name] = Decision.from_json(given)
            except ValueError as error:
                raise ValueError(f"{schema.inside('findings', name)}: {error}") from error
            if found[name].positive != name:
                place = schema.inside(schema.inside("findings", name), "positive")
                raise ValueError(f"{place} must be the finding. Received: {found[name].positive!r}")
        if len({one.features for one in found.values()}) > 1:
            raise ValueError("features must be the same layer, or null, for all findings")
        return cls(found)

    @classmethod
    def read(cls, path: Path) -> FindingDecision:
        """Read a ``decision.json`` of findings.

        Raises:
            DataError: the file is damaged, or of one class an image.
        """
        found = read(path)
        if not isinstance(found, FindingDecision):
            raise DataError(f"{path} decides on one class an image: it is no decision on findings.")
        return found


#: The decision rule of either task.
Rule = Decision | FindingDecision


def read(path: Path) -> Rule:
    """Read a ``decision.json`` of either task.

    Raises:
        DataError: the file is damaged.
    """
    content = schema.read(path)
    try:
        return from_json(content)
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}.") from error


def from_json(content: Any) -> Rule:
    """Return the rule of either task from what its `to_json` gave. Raises ValueError for content of another form."""
    if isinstance(content, Mapping) and content.get("task") == "findings":
        return FindingDecision.from_json(content)
    return Decision.from_json(content)
