"""Every figure of a table of predictions on its own rows, without interval, computed by scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn import metrics

from chestxray.evaluation.weighted_metrics import Calibration, Key


def points(
    truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, positive: int | None
) -> dict[Key, float]:
    """Return every figure on the rows themselves; NaN for one that cannot be computed.

    `truth` and `predicted` are class numbers, int (rows,), `probabilities` float (rows, classes); `positive` is the
    number of the positive class, None for means over the classes that have rows.
    """
    classes = range(probabilities.shape[1])
    present = [k for k in classes if (truth == k).any()]
    by_class = {k: _against_rest(truth == k, predicted == k, probabilities[:, k]) for k in classes}
    values: dict[Key, float] = {(None, name): value for name, value in _whole(truth, predicted, probabilities).items()}
    for name in ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc"):
        if positive is not None:
            values[None, name] = by_class[positive][name]
            continue
        parts = [by_class[k][name] for k in present]
        # A class that has rows and is never predicted has no precision of its own; in the mean it is 0.
        parts = np.nan_to_num(parts).tolist() if name == "precision" else parts
        values[None, name] = float(np.mean(parts)) if parts else np.nan
    for k in classes:
        values |= {(k, name): value for name, value in by_class[k].items()}
    return values


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error with 15 bins of equal mass, as defined by `Calibration.error`.

    Args:
        confidence: float (rows,), probability of the most probable class.
        right: bool (rows,), whether that class is the true one.
    """
    return float(Calibration.of(confidence, right).error(np.ones((1, len(right))))[0])


def _whole(truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the headline figures that need all classes at once."""
    names = ("accuracy", "balanced_accuracy", "f1_macro", "mcc", "brier", "ece")
    if not len(truth):
        return dict.fromkeys(names, np.nan)
    classes = range(probabilities.shape[1])
    present = np.unique(truth)
    # Averages are over the classes that have rows. (balanced_accuracy_score warns where one has none.)
    recall = metrics.recall_score(truth, predicted, labels=present, average="macro", zero_division=0)
    f1 = metrics.f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
    # Rows read from a table may be rounded; scikit-learn warns unless they sum to one.
    whole = np.clip(probabilities, 0, 1)
    whole = whole / whole.sum(axis=1, keepdims=True)
    brier = metrics.brier_score_loss(truth, whole, labels=list(classes)) if len(classes) > 1 else np.nan
    right = probabilities.argmax(axis=1) == truth
    values = (
        metrics.accuracy_score(truth, predicted),
        recall,
        f1,
        metrics.matthews_corrcoef(truth, predicted) if len(present) > 1 else np.nan,
        brier,
        calibration_error(probabilities.max(axis=1), right),
    )
    return dict(zip(names, map(float, values), strict=True))


def _against_rest(true: np.ndarray, claimed: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Return the figures of one class against the rest; each argument is (rows,)."""
    some, rest = bool(true.any()), bool((~true).any())
    areas = some and rest
    values = {
        "sensitivity": metrics.recall_score(true, claimed) if some else np.nan,
        "specificity": metrics.recall_score(~true, ~claimed) if rest else np.nan,
        "precision": metrics.precision_score(true, claimed) if claimed.any() else np.nan,
        "f1": metrics.f1_score(true, claimed) if some else np.nan,
        "auroc": metrics.roc_auc_score(true, probability) if areas else np.nan,
        "auprc": metrics.average_precision_score(true, probability) if areas else np.nan,
        "brier": float(np.mean((probability - true) ** 2)) if len(true) else np.nan,
    }
    return {name: float(value) for name, value in values.items()}
