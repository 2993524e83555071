"""Writing the JSON files of results to a run's folder, from test predictions and a decision.

``metrics.json``: performance; ``by_source.json`` and ``by_group.json``: the same by subgroup; ``gaps.json``:
differences between subgroups; ``calibration.json``: calibration of the probabilities; ``operating_points.json``:
performance at the thresholds; ``decision_curve.json``: net benefit; ``patient_level.json``: results by patient;
``abstention.json``: conformal abstention; ``refusal.json``: images refused as out of distribution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data.index import Index, row_keys
from chestxray.evaluation.clinical import operating_points, patient_level
from chestxray.evaluation.decision import conformal, conformal_quantile
from chestxray.evaluation.decision.out_of_distribution import least_allowed
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import uncalibrated
from chestxray.evaluation.evaluate import Evaluation, evaluate
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired.subgroup_gaps import gaps
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.proportions import share, share_of_patients
from chestxray.evaluation.subgroups import groups
from chestxray.recipe import Recipe
from chestxray.storage.files import write_json

#: Measures of calibration error; lower is better.
CALIBRATION_ERRORS = ("ece", "brier")


@dataclass(frozen=True)
class Refusals:
    """Which images were refused, and the threshold of the distance beyond which they are.

    ``validation``, ``test``, ``others`` and ``mirrored`` are bool (images,), True for refused ones. ``others`` are
    not chest radiographs and should all be refused; ``kinds`` names the kind of each. ``mirrored`` are mirrored test
    films, for which no result is expected. ``allowed`` is the proportion of validation images that may be refused,
    ``judges`` the codes of the patients of validation, whose distances gave the threshold.
    """

    threshold: float
    allowed: float
    validation: np.ndarray
    judges: np.ndarray
    test: np.ndarray
    others: np.ndarray
    kinds: np.ndarray
    mirrored: np.ndarray


def assess(
    test: Predictions,
    index: Index,
    recipe: Recipe,
    decision: Decision,
    folder: Path,
    *,
    validation: Predictions | None = None,
    refusals: Refusals | None = None,
    corrected_gaps: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Write to `folder` each file of this module that applies, and return the evaluation in ``metrics.json``.

    `test` and `validation` have calibrated probabilities; without `validation` (an external test)
    the files describe the test only. `corrected_gaps` are the contents of ``gaps.json`` where their p-values are
    corrected together with those of other tests; None: they are computed. A file that no longer applies is deleted,
    except for ``refusal.json``, whose images need not be available again.

    Raises:
        InputError: ``recipe.by`` names no column of the data.
    """
    score = Scorer(recipe, decision.positive)
    whole = score(test)
    contents: dict[str, Any] = {
        "metrics": whole.to_json(),
        "by_source": _by_source(test, score),
        "by_group": {name: _by_column(test, index, name, score) for name in recipe.by},
        "gaps": _gaps(test, index, recipe.by, whole.positive) if corrected_gaps is None else corrected_gaps,
        "calibration": _calibration(test, validation, whole, decision, score) if recipe.calibrate else None,
        "operating_points": operating_points.contents(test, validation, decision, score),
        "decision_curve": operating_points.decision_curve(test, decision, score),
        "patient_level": patient_level.figures(test, decision, score),
        "abstention": None if decision.limit is None else _abstention(test, validation, decision, score),
        "decision": decision.to_json(),
    }
    if refusals is not None:
        contents["refusal"] = refusal(refusals, test.clusters, score)
    for name, content in contents.items():
        if content:
            write_json(folder / f"{name}.json", content)
        else:
            (folder / f"{name}.json").unlink(missing_ok=True)
    return whole


@dataclass(frozen=True)
class Scorer:
    """Evaluates predictions as the recipe says; of two classes, ``positive`` is the one of sensitivity."""

    recipe: Recipe
    positive: str | None

    def __call__(self, predictions: Predictions, positive: str | None = None) -> Evaluation:
        """Return every figure of `predictions`, for the positive class `positive` if given."""
        return evaluate(
            predictions,
            positive=positive or self.positive,
            replicates=self.recipe.replicates,
            seed=self.recipe.seed,
            metrics=self.recipe.metric,
        )

    def share(self, flags: np.ndarray, clusters: np.ndarray) -> dict[str, float | None]:
        """Return the proportion of True in `flags`, bool (rows,), with its confidence interval."""
        return share(flags, clusters, replicates=self.recipe.replicates, seed=self.recipe.seed).to_json()

    def share_of_patients(self, flags: np.ndarray, clusters: np.ndarray) -> dict[str, float | None]:
        """Return the same proportion with every patient weighted equally."""
        return share_of_patients(flags, clusters, replicates=self.recipe.replicates, seed=self.recipe.seed).to_json()


def _by_source(test: Predictions, score: Scorer) -> dict[str, Any] | None:
    # The positive class of the whole test, so that the figures of all sources are for the same class.
    parts = {name: part for name, part in _parts(test, test.rows["source"]).items() if name}
    return {name: score(part).to_json() for name, part in parts.items()} if len(parts) > 1 else None


def _gaps(test: Predictions, index: Index, by: Sequence[str], positive: str | None) -> dict[str, Any] | None:
    return gaps(test, group_columns(test, index, by), None if positive is None else test.classes.index(positive))


def group_columns(test: Predictions | FindingPredictions, index: Index, by: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the group of each row of `test` by its source and by each of the columns `by` of `index`, str (rows,);
    ``""`` where it is not known.
    """
    columns = {"source": test.rows["source"], **{name: _groups(test, index, name) for name in by}}
    return {name: values.fillna("").astype(str).to_numpy() for name, values in columns.items()}


def _groups(test: Predictions | FindingPredictions, index: Index, column: str) -> pd.Series:
    return groups(index, column).set_axis(row_keys(index.rows)).reindex(row_keys(test.rows))


def _by_column(test: Predictions, index: Index, column: str, score: Scorer) -> dict[str, Any]:
    parts = _parts(test, _groups(test, index, column))
    return {name or "not known": score(part).to_json() for name, part in parts.items()}


def _parts(test: Predictions, keys: pd.Series) -> dict[str, Predictions]:
    grouped = test.rows.groupby(keys.to_numpy(), sort=True)
    return {str(name): Predictions(rows.reset_index(drop=True), test.classes) for name, rows in grouped}


def _calibration(
    test: Predictions, validation: Predictions | None, whole: Evaluation, decision: Decision, score: Scorer
) -> dict[str, Any]:
    def calibration_figures(evaluation: Evaluation) -> dict[str, Any]:
        assert evaluation.calibration is not None
        measured = {"slope": evaluation.calibration.slope, "intercept": evaluation.calibration.intercept}
        figures = {name: figure for name, figure in measured.items() if figure.value is not None}
        figures |= {name: evaluation.test[name] for name in CALIBRATION_ERRORS}
        return {name: figure.to_json() for name, figure in figures.items()}

    def before(predictions: Predictions) -> dict[str, Any]:
        return calibration_figures(score(uncalibrated(predictions, decision.calibration)))

    fitted = decision.calibration
    found: dict[str, Any] = {
        "method": fitted.method,
        "temperature": fitted.temperature,
        "offsets": dict(zip(decision.classes, fitted.offsets, strict=False)),
        "at_bound": fitted.at_bound,
        "test": {"before": before(test), "after": calibration_figures(whole)},
    }
    found["worse"] = [name for name in CALIBRATION_ERRORS if _rose(found["test"], name)]
    if validation is not None:
        found["rows"] = len(validation.rows)
        found["validation"] = {"before": before(validation), "after": calibration_figures(score(validation))}
    return found


def _rose(test: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    """Return whether a figure is higher after calibration by more than its confidence interval allows."""
    before, after = test["before"][name]["value"], test["after"][name]["low"]
    return before is not None and after is not None and after > before


def _abstention(test: Predictions, validation: Predictions | None, decision: Decision, score: Scorer) -> dict[str, Any]:
    assert decision.limit is not None and decision.coverage is not None
    inside = conformal.sets(test.probabilities, decision.limit)
    answers = conformal.answered(inside, decision.decided(test.probabilities))
    covered = inside[np.arange(len(inside)), test.truth]
    right = test.predicted == test.truth
    clusters = test.clusters
    found: dict[str, Any] = {
        "coverage": decision.coverage,
        "limit": decision.limit,
        "empty_promise": decision.limit >= 1,
        "patients_needed": conformal_quantile.patients_needed(decision.coverage),
    }
    if validation is not None:
        judges = validation.clusters
        low, high = conformal_quantile.spread(judges, decision.coverage)
        found["validation"] = {"patients": len(np.unique(judges)), "rows": len(judges), "spread": [low, high]}
    return found | {
        "test": {
            "coverage": score.share(covered, clusters),
            "coverage_of_patients": score.share_of_patients(covered, clusters),
            "answered": score.share(answers, clusters),
            "accuracy_of_answers": score.share(right[answers], clusters[answers]),
            "accuracy_of_all": score.share(right, clusters),
        },
        "by_class": {
            label: score.share(covered[test.truth == k], clusters[test.truth == k])
            for k, label in enumerate(test.classes)
        },
        "set_sizes": {str(size): int(count) for size, count in enumerate(np.bincount(inside.sum(axis=1)))},
    }


def refusal(refusals: Refusals, clusters: np.ndarray, score: Scorer) -> dict[str, Any]:
    """Return the content of ``refusal.json``; `clusters` are the codes of the patients of the test, int (images,)."""

    def of(flags: np.ndarray) -> dict[str, Any]:
        return {"pictures": len(flags), "refused": score.share(flags, np.arange(len(flags)))}

    promised: dict[str, Any] = {}
    if len(refusals.judges):
        least = least_allowed(refusals.judges)
        promised = {
            "patients": len(np.unique(refusals.judges)),
            "least_allowed": least,
            "capped": least > refusals.allowed + 1e-12,
            "patients_needed": conformal_quantile.patients_needed(1 - refusals.allowed),
        }
    return {
        "threshold": refusals.threshold,
        "allowed": refusals.allowed,
        "validation": {"pictures": len(refusals.validation), "refused": _plain(refusals.validation)} | promised,
        "test": {"pictures": len(refusals.test), "refused": score.share(refusals.test, clusters)},
        "others": of(refusals.others),
        "by_kind": {
            kind: of(refusals.others[refusals.kinds == kind]) for kind in dict.fromkeys(refusals.kinds.tolist())
        },
        "mirrored": of(refusals.mirrored),
    }


def _plain(flags: np.ndarray) -> Mapping[str, float | None]:
    return Figure(float(flags.mean()) if len(flags) else None, None, None).to_json()
