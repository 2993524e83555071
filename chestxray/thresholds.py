"""Thresholds of decision: chosen on validation, to be reported on test."""

from __future__ import annotations

import numpy as np
import pandas as pd

from chestxray.prediction import PREFIX, Predictions

#: The two classes of a decision about one class.
REST = "(rest)"


def choose(scores: np.ndarray, positive: np.ndarray, sensitivity: float | None = None) -> float:
    """The threshold at and above which a score is called positive.

    `scores` float (rows,), `positive` bool (rows,). Without `sensitivity` the threshold of the
    largest sensitivity + specificity (Youden 1950), of equally good ones the one in the widest gap
    between scores; else the highest one that finds at least that share of the positive rows. It
    stands halfway between neighbouring scores. 0.5 where all rows are of one kind.

    >>> choose(np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, False, True, True]))
    0.5
    """
    if positive.all() or not positive.any():
        return 0.5
    values = np.unique(scores)
    # Called positive from values[i] on: so many of each kind stand there or above.
    above = np.searchsorted(np.sort(scores[positive]), values, side="left")
    found = 1 - above / positive.sum()
    below = np.searchsorted(np.sort(scores[~positive]), values, side="left") / (~positive).sum()
    gap = np.diff(values, prepend=values[0])
    if sensitivity is not None:
        best = int(np.flatnonzero(found >= sensitivity - 1e-12)[-1])
    else:
        youden = found + below
        good = np.flatnonzero(youden >= youden.max() - 1e-12)
        best = int(good[np.argmax(gap[good])])
    return float(values[best] - gap[best] / 2)


def decided(predictions: Predictions, label: str, threshold: float) -> Predictions:
    """The decision about one class as predictions of two classes, `REST` and `label`."""
    score = predictions.rows[PREFIX + label].to_numpy()
    rows = predictions.rows[["path", "patient", "split", "source"]].copy()
    rows["label"] = np.where(predictions.rows["label"] == label, label, REST)
    rows["predicted"] = np.where(score >= threshold, label, REST)
    rows = rows.join(pd.DataFrame({PREFIX + REST: 1 - score, PREFIX + label: score}, index=rows.index))
    return Predictions(rows, (REST, label))
