"""Images -> patients: the predictions of a test with one row a patient, and their figures.

A clinician asks of a patient, not of a film. Two ways of putting a patient's images together are told,
since either is in use and which is better depends on the data: their mean probabilities, and, of two
classes, the image with the highest one, as if a single suspicious film were enough. The decision is the
one that the run makes of an image: the threshold was chosen for images, and nothing is chosen anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.evaluate import Evaluation
from chestxray.evaluation.predictions import PREFIX, Predictions

#: The figures told of patients.
FIGURES = (
    "auroc",
    "auprc",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "f1_macro",
    "mcc",
)


def by_patient(images: Predictions, decision: Decision, *, highest: bool = False) -> tuple[Predictions, int]:
    """One row a patient, as `decision` decides on them, and how many patients were left out.

    Probabilities are means over the patient's images, or those of the image with the ``highest`` one of the
    positive class, of two. A patient is positive with one positive image; with more than two classes,
    patients with images of several are left out. An image of unknown patient is a patient.
    """
    rows = images.rows.reset_index(drop=True)
    codes = images.clusters
    probabilities = images.probabilities
    first = np.unique(codes, return_index=True)[1]
    if highest:
        assert decision.positive is not None, "the highest of two classes"
        score = rows[PREFIX + decision.positive].to_numpy()
        # Of each patient the last in order of score.
        order = np.lexsort((score, codes))
        chosen = order[np.append(np.flatnonzero(np.diff(codes[order])), len(order) - 1)]
        joined = probabilities[chosen]
    else:
        sums = np.stack([np.bincount(codes, weights=column) for column in probabilities.T], axis=1)
        joined = sums / np.bincount(codes)[:, None]
    labels, mixed = _labels(images.truth, codes, images.classes, decision.positive)
    table = rows.iloc[first][["path", "patient", "split", "source"]].reset_index(drop=True)
    table["label"] = labels
    table = table[~mixed].reset_index(drop=True)
    order_ = [images.classes.index(name) for name in decision.classes]
    made = Predictions.from_probabilities(table, images.classes, joined[~mixed])
    decided = decision.decided(joined[~mixed][:, order_])
    made.rows["predicted"] = np.asarray(decision.classes, dtype=object)[decided]
    return made, int(mixed.sum())


def _labels(
    truth: np.ndarray, codes: np.ndarray, classes: tuple[str, ...], positive: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """The class of each patient by code, and whether none can be told."""
    least, most = (np.full(codes.max() + 1, edge) for edge in (len(classes), -1))
    np.minimum.at(least, codes, truth)
    np.maximum.at(most, codes, truth)
    mixed = least != most
    if positive is not None:
        number = classes.index(positive)
        return np.asarray(classes, dtype=object)[np.where(mixed, number, most)], np.zeros(len(mixed), dtype=bool)
    return np.asarray(classes, dtype=object)[most], mixed


def figures(
    test: Predictions, decision: Decision, evaluate: Callable[[Predictions], Evaluation]
) -> dict[str, Any] | None:
    """The contents of ``patient_level.json``; None where no patient has several test images, and every figure
    is one of patients already.

    `evaluate` evaluates a table of predictions as the run's recipe says.
    """
    sizes = np.bincount(test.clusters) if len(test.rows) else np.zeros(0, dtype=int)
    if not (sizes > 1).any():
        return None
    ways = {"mean": False} | ({"highest": True} if decision.positive is not None else {})
    found: dict[str, Any] = {
        "images": len(test.rows),
        "patients": len(sizes),
        "with_several_images": int((sizes > 1).sum()),
        "most_images": int(sizes.max()),
    }
    for name, highest in ways.items():
        patients, left_out = by_patient(test, decision, highest=highest)
        evaluation = evaluate(patients)
        found["left_out"] = left_out
        found[name] = {
            "test": {figure: evaluation.test[figure].to_json() for figure in FIGURES},
            "confusion": {"classes": list(evaluation.classes), "counts": [list(row) for row in evaluation.counts]},
        }
    return found
