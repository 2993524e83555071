"""Test predictions and a decision -> what the run's folder says of them, a JSON file a question.

``metrics.json``: how good; ``by_source.json`` and ``by_group.json``: for whom; ``calibration.json``:
are the probabilities true; ``operating_points.json``: at the thresholds; ``abstention.json``: where
it may abstain; ``refusal.json``: what it takes for no radiograph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chestxray import abstention
from chestxray.calibration import uncalibrated
from chestxray.decision import Decision
from chestxray.evaluation import Evaluation, evaluate
from chestxray.files import write_json
from chestxray.index import Index, row_keys
from chestxray.intervals import Figure
from chestxray.prediction import Predictions
from chestxray.recipe import Recipe
from chestxray.shares import share
from chestxray.subgroups import groups
from chestxray.thresholds import decided

#: What a calibration is judged by: less is better.
CALIBRATION_ERRORS = ("ece", "brier")
#: The rule that most tables of others go by.
LARGEST = "the larger probability"


@dataclass(frozen=True)
class Refusals:
    """Who was refused: bool (rows,) of each kind of picture, and the threshold of distance. ``kinds`` names
    the kind of each of ``others``, all of which should be refused; of ``mirrored`` films nothing is asked.
    """

    threshold: float
    allowed: float
    validation: np.ndarray
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
) -> Evaluation:
    """Write every file that this module names and that has something to say; return ``metrics.json``.

    `test` and `validation` have calibrated probabilities; without `validation` (an external test)
    only the test stands in the files. A file that has nothing to say any more is removed, but for
    ``refusal.json``, which speaks of pictures that need not be at hand again.

    Raises:
        InputError: ``recipe.by`` names no column of the data.
    """
    score = Scorer(recipe, decision.positive)
    whole = score(test)
    contents: dict[str, Any] = {
        "metrics": whole.to_json(),
        "by_source": _by_source(test, score),
        "by_group": {name: _by_column(test, index, name, score) for name in recipe.by},
        "calibration": _calibration(test, validation, whole, decision, score) if recipe.calibrate else None,
        "operating_points": _operating_points(test, validation, decision, score),
        "abstention": None if decision.limit is None else _abstention(test, decision, score),
        "decision": decision.to_json(),
    }
    if refusals is not None:
        contents["refusal"] = _refusal(refusals, test, score)
    for name, content in contents.items():
        if content:
            write_json(folder / f"{name}.json", content)
        else:
            (folder / f"{name}.json").unlink(missing_ok=True)
    return whole


@dataclass(frozen=True)
class Scorer:
    """Evaluates predictions as the recipe says, of two classes about ``positive``."""

    recipe: Recipe
    positive: str | None

    def __call__(self, predictions: Predictions, positive: str | None = None) -> Evaluation:
        """Every figure of `predictions`, about another class where `positive` is given."""
        return evaluate(
            predictions,
            positive=positive or self.positive,
            replicates=self.recipe.replicates,
            seed=self.recipe.seed,
        )

    def share(self, flags: np.ndarray, clusters: np.ndarray) -> dict[str, float | None]:
        """The share of true flags with its interval."""
        return share(flags, clusters, replicates=self.recipe.replicates, seed=self.recipe.seed).to_json()


def _by_source(test: Predictions, score: Scorer) -> dict[str, Any] | None:
    # The whole test's positive class, so that the figures of all sources speak of the same one.
    parts = {name: part for name, part in _parts(test, test.rows["source"]).items() if name}
    return {name: score(part).to_json() for name, part in parts.items()} if len(parts) > 1 else None


def _by_column(test: Predictions, index: Index, column: str, score: Scorer) -> dict[str, Any]:
    parts = _parts(test, groups(index.rows, column).set_axis(row_keys(index.rows)).reindex(row_keys(test.rows)))
    return {name or "not known": score(part).to_json() for name, part in parts.items()}


def _parts(test: Predictions, keys: pd.Series) -> dict[str, Predictions]:
    grouped = test.rows.groupby(keys.to_numpy(), sort=True)
    return {str(name): Predictions(rows.reset_index(drop=True), test.classes) for name, rows in grouped}


def _calibration(
    test: Predictions, validation: Predictions | None, whole: Evaluation, decision: Decision, score: Scorer
) -> dict[str, Any]:
    def told(evaluation: Evaluation) -> dict[str, Any]:
        return {name: evaluation.test[name].to_json() for name in CALIBRATION_ERRORS}

    def before(predictions: Predictions) -> dict[str, Any]:
        return told(score(uncalibrated(predictions, decision.calibration)))

    fitted = decision.calibration
    found: dict[str, Any] = {
        "method": fitted.method,
        "temperature": fitted.temperature,
        "offsets": dict(zip(decision.classes, fitted.offsets, strict=False)),
        "at_bound": fitted.at_bound,
        "test": {"before": before(test), "after": told(whole)},
    }
    found["worse"] = [name for name in CALIBRATION_ERRORS if _rose(found["test"], name)]
    if validation is not None:
        found["rows"] = len(validation.rows)
        found["validation"] = {"before": before(validation), "after": told(score(validation))}
    return found


def _rose(test: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    before, after = (test[when][name]["value"] for when in ("before", "after"))
    return before is not None and after is not None and after > before


def _operating_points(
    test: Predictions, validation: Predictions | None, decision: Decision, score: Scorer
) -> dict[str, Any]:
    names = ("sensitivity", "specificity", "precision", "accuracy", "balanced_accuracy")
    deployed = decision.threshold
    shown = [(label, threshold, decision.chosen_by) for label, threshold in decision.thresholds.items()]
    if decision.positive is not None:
        # Beside the one that decides, what most tables of others go by.
        shown.append((decision.positive, 0.5, LARGEST))
    points = []
    for label, threshold, rule in shown:

        def figures(predictions: Predictions, label: str = label, threshold: float = threshold) -> dict[str, Any]:
            found = score(decided(predictions, label, threshold), label).test
            return {name: found[name].to_json() for name in names}

        point = {"label": label, "threshold": threshold, "chosen_by": rule, "test": figures(test)}
        point["decides"] = deployed is not None and rule != LARGEST
        points.append(point | ({} if validation is None else {"validation": figures(validation)}))
    return {"rule": decision.words, "points": points}


def _abstention(test: Predictions, decision: Decision, score: Scorer) -> dict[str, Any]:
    assert decision.limit is not None
    inside = abstention.sets(test.probabilities, decision.limit)
    answers = abstention.answered(inside, decision.decided(test.probabilities))
    covered = inside[np.arange(len(inside)), test.truth]
    right = test.predicted == test.truth
    clusters = test.clusters
    return {
        "coverage": decision.coverage,
        "limit": decision.limit,
        "empty_promise": decision.limit >= 1,
        "test": {
            "coverage": score.share(covered, clusters),
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


def _refusal(refusals: Refusals, test: Predictions, score: Scorer) -> dict[str, Any]:
    def of(flags: np.ndarray) -> dict[str, Any]:
        return {"pictures": len(flags), "refused": score.share(flags, np.arange(len(flags)))}

    return {
        "threshold": refusals.threshold,
        "allowed": refusals.allowed,
        "validation": {"pictures": len(refusals.validation), "refused": _plain(refusals.validation)},
        "test": {"pictures": len(refusals.test), "refused": score.share(refusals.test, test.clusters)},
        "others": of(refusals.others),
        "by_kind": {
            kind: of(refusals.others[refusals.kinds == kind]) for kind in dict.fromkeys(refusals.kinds.tolist())
        },
        "mirrored": of(refusals.mirrored),
    }


def _plain(flags: np.ndarray) -> Mapping[str, float | None]:
    return Figure(float(flags.mean()) if len(flags) else None, None, None).to_json()
