"""Generalisation gap of findings: of each finding that both tests score, and of the mean over these same findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chestxray.data.multiple_testing import holm
from chestxray.evaluation.finding_means import MEANS
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.findings_evaluation import FindingsEvaluation, evaluate_findings
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired.generalisation_gap import Area, between, p_value


@dataclass(frozen=True)
class Side:
    """One side: its predictions with the decisions applied, and their evaluation."""

    predictions: FindingPredictions
    evaluation: FindingsEvaluation

    @classmethod
    def of(cls, predictions: FindingPredictions, *, replicates: int, seed: int) -> Side:
        """Evaluate `predictions`."""
        return cls(predictions, evaluate_findings(predictions, replicates=replicates, seed=seed))

    def means(self, findings: tuple[str, ...], *, replicates: int, seed: int) -> Mapping[str, Figure]:
        """Return the means over `findings`, all of which are scored."""
        if set(findings) == set(self.evaluation.scored):
            return self.evaluation.test
        part = FindingPredictions(self.predictions.rows, findings)
        return evaluate_findings(part, replicates=replicates, seed=seed).test


def finding_generalisation(internal: Side, external: Side, *, replicates: int, seed: int) -> dict[str, Any]:
    """Return the internal minus the external figures, ready for JSON.

    ``figures`` has the means over the findings that are scored on both sides, ``findings`` the AUROC of each of these
    with its gap, p-value, and p-value corrected over them (Holm 1979); ``not_compared`` says why the others are left
    out. A mean over other findings on one side than on the other would compare findings, not hospitals.
    """
    inside, outside = internal.evaluation, external.evaluation
    shared = tuple(name for name in inside.classes if name in inside.scored and name in outside.scored)
    findings: dict[str, dict[str, Any]] = {}
    for name in shared:
        sides = [_area(side, name) for side in (internal, external)]
        findings[name] = _compared(*(side.figure for side in sides)) | {"p": p_value(*sides)}
    for item, corrected in zip(findings.values(), holm([item["p"] for item in findings.values()]), strict=True):
        item["p_holm"] = corrected
    here, there = (
        side.means(shared, replicates=replicates, seed=seed) if shared else {} for side in (internal, external)
    )
    return {
        "figures": {name: _compared(here[name], there[name]) for name in MEANS if shared},
        "findings": findings,
        "not_compared": {name: _reason(name, inside, outside) for name in inside.classes if name not in shared},
    }


def _area(side: Side, name: str) -> Area:
    return Area.of(side.evaluation.findings[name].test["auroc"], side.predictions.of_finding(name))


def _compared(here: Figure, there: Figure) -> dict[str, Any]:
    return {"internal": here.to_json(), "external": there.to_json(), "gap": between(here, there).to_json()}


def _reason(name: str, inside: FindingsEvaluation, outside: FindingsEvaluation) -> str:
    sides = {
        "the run's own test has": inside.findings[name].not_scored,
        "these data have": outside.findings[name].not_scored,
    }
    return "; ".join(f"{side} {why}" for side, why in sides.items() if why)
