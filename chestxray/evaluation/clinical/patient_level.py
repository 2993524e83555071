"""Patient-level figures: predictions with one row a patient instead of one row an image.

Two ways of combining a patient's images are reported, since both are in use and which is better depends
on the data: the mean of the probabilities and, with two classes, the image with the highest probability.
The decision rule is the one chosen for images; no threshold is chosen anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.evaluate import Evaluation
from chestxray.evaluation.predictions import PREFIX, Predictions

#: The figures reported for patients.
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
    """Return predictions with one row a patient, decided by `decision`, and the number of patients left out.

    Probabilities are means over the patient's images or, with `highest` and two classes, those of the image with
    the highest probability of the positive class. A patient is positive with one positive image; with more than
    two classes, patients with images of several are left out. An image of an unknown patient counts as a patient.
    """
    rows = images.rows.reset_index(drop=True)
    codes = images.clusters
    probabilities = images.probabilities
    first = np.unique(codes, return_index=True)[1]
    if highest:
        assert decision.positive is not None, "the highest of two classes"
        score = rows[PREFIX + decision.positive].to_numpy()
        # The image with the highest score of each patient.
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
    """Return the class of each patient by code, and whether it is undetermined: images of several classes."""
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
    """Return the content of ``patient_level.json``; None where no patient has several test images.

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
