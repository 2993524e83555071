"""Figures at each threshold of a decision rule, regions of the ROC curve, and the decision curve.

The contents of ``operating_points.json`` and ``decision_curve.json``; docs/run-folder.md has their fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from chestxray.evaluation.clinical import net_benefit
from chestxray.evaluation.clinical.predictive_values import npv, ppv
from chestxray.evaluation.clinical.roc_regions import MOST_FALSE, SENSITIVITIES, regions
from chestxray.evaluation.decision import operating_point, optimism
from chestxray.evaluation.decision.operating_point import decided
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.predictions import PREFIX, Predictions

if TYPE_CHECKING:
    from chestxray.runs.results import Scorer

#: Name of the rule by which most published figures are computed: a threshold of 0.5.
LARGEST = "the larger probability"
FIGURES = ("sensitivity", "specificity", "precision", "accuracy", "balanced_accuracy")


def contents(test: Predictions, validation: Predictions | None, decision: Decision, score: Scorer) -> dict[str, Any]:
    """Return the content of ``operating_points.json``: figures at each threshold, and regions of each ROC curve.

    `validation` adds its own figures and their optimism; `score` evaluates a table as the run's recipe says.
    """
    shown = [(label, threshold, decision.chosen_by) for label, threshold in decision.thresholds.items()]
    if decision.positive is not None:
        # For comparison with published figures, besides the threshold that decides.
        shown.append((decision.positive, 0.5, LARGEST))
    points = []
    for label, threshold, rule in shown:
        point: dict[str, Any] = {"label": label, "threshold": threshold, "chosen_by": rule}
        point["test"] = _figures(test, label, threshold, score)
        point["decides"] = decision.threshold is not None and rule != LARGEST
        if validation is not None:
            point["validation"] = _figures(validation, label, threshold, score)
            if rule != LARGEST and (flattered := _optimism(validation, label, decision)):
                point["validation"]["optimism"] = flattered
        points.append(point)
    labels = list(dict.fromkeys(label for label, _, _ in shown))
    return {"rule": decision.words, "points": points, "roc": [_regions(test, label, score) for label in labels]}


def decision_curve(test: Predictions, decision: Decision, score: Scorer) -> dict[str, Any] | None:
    """Return the content of ``decision_curve.json``: net benefit for the positive of two classes, at its proportion in
    the test and, where the recipe states one, at that prevalence. None with more classes, or where the test has
    rows of one class alone.
    """
    positive = None if decision.positive is None else (test.rows["label"] == decision.positive).to_numpy()
    if positive is None or positive.all() or not positive.any():
        return None
    probability = test.rows[PREFIX + str(decision.positive)].to_numpy(dtype=np.float64)
    found: dict[str, Any] = {"label": decision.positive}
    for name, share in {"test": None, "stated": score.recipe.prevalence}.items():
        if name == "stated" and share is None:
            continue
        points = net_benefit.curve(
            probability, positive, test.clusters, prevalence=share, replicates=score.recipe.replicates,
            seed=score.recipe.seed,
        )  # fmt: skip
        useful = net_benefit.useful(points)
        found[name] = {
            "prevalence": float(positive.mean()) if share is None else share,
            "useful": None if useful is None else list(useful),
            "points": [
                {
                    "threshold": point.threshold, "model": point.model.to_json(),
                    "everyone": point.everyone.to_json(), "gain": point.gain.to_json(),
                }
                for point in points
            ],
        }  # fmt: skip
    return found


def _figures(predictions: Predictions, label: str, threshold: float, score: Scorer) -> dict[str, Any]:
    table = decided(predictions, label, threshold)
    found = score(table, label).test
    positive, called = (table.rows[name].to_numpy() == label for name in ("label", "predicted"))
    clusters = table.clusters
    figures: dict[str, Any] = {name: found[name].to_json() for name in FIGURES}
    figures["npv"] = score.share(~positive[~called], clusters[~called])
    figures["sensitivity_of_patients"] = score.share_of_patients(called[positive], clusters[positive])
    if score.recipe.prevalence is not None and label == score.positive:
        share, at = score.recipe.prevalence, (found["sensitivity"], found["specificity"])
        figures["at_prevalence"] = {
            "prevalence": share, "ppv": ppv(*at, share).to_json(), "npv": npv(*at, share).to_json(),
        }  # fmt: skip
    return figures


def _optimism(validation: Predictions, label: str, decision: Decision) -> dict[str, float] | None:
    """Return the optimism of validation's figures at the threshold chosen on it. None for a threshold promised with
    a confidence, which allows for it.
    """
    if decision.promise is not None and decision.promise.confidence:
        return None
    wanted = None if decision.promise is None else decision.promise.sensitivity
    return optimism.of_threshold(
        validation.rows[PREFIX + label].to_numpy(),
        (validation.rows["label"] == label).to_numpy(),
        validation.clusters,
        lambda scores, positive, clusters: operating_point.choose(scores, positive, wanted, clusters=clusters),
    )


def _regions(test: Predictions, label: str, score: Scorer) -> dict[str, Any]:
    asked = score.recipe.sensitivity
    sensitivities = sorted({*SENSITIVITIES, *([] if asked is None else [asked])})
    specificities, partial = regions(
        test.rows[PREFIX + label].to_numpy(),
        (test.rows["label"] == label).to_numpy(),
        test.clusters,
        sensitivities=sensitivities,
        replicates=score.recipe.replicates,
        seed=score.recipe.seed,
    )

    def at_sensitivity(sensitivity: float, figure: Figure) -> dict[str, Any]:
        return {"sensitivity": sensitivity, "specificity": figure.to_json()}

    return {
        "label": label,
        "specificity_at": [at_sensitivity(*pair) for pair in zip(sensitivities, specificities, strict=True)],
        "partial_auroc": {"most_false": MOST_FALSE, "figure": partial.to_json()},
    }
