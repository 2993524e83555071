"""Thresholds of decision: chosen on validation, to be reported on test.

A threshold that reaches a wanted sensitivity on validation misses it on other patients about as often
as not. One that promises it is chosen by fixed-sequence testing (Learn then Test; Angelopoulos et al.
2021): from the lowest threshold up, each is kept whose hypothesis "the sensitivity is lower" the exact
binomial test rejects, which is where the lower limit of Clopper and Pearson (1934) is above what was
wanted. The sensitivity falls with the threshold, so that testing in this order needs no correction.
Images of one patient count as if they were all found or all missed together (Kish's effective number).
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from chestxray.errors import InputError
from chestxray.evaluation.predictions import PREFIX, Predictions

#: The two classes of a decision about one class.
REST = "(rest)"


def choose(
    scores: np.ndarray,
    positive: np.ndarray,
    sensitivity: float | None = None,
    *,
    confidence: float = 0.0,
    clusters: np.ndarray | None = None,
) -> float:
    """The threshold at and above which a score is called positive.

    `scores` float (rows,), `positive` bool (rows,). Without `sensitivity` the threshold of the
    largest sensitivity + specificity (Youden 1950), of equally good ones the one in the widest gap
    between scores. With it, the highest one that finds at least that share of the positive rows of
    other patients, who count alike, with this `confidence`; with a confidence of 0, of these rows alone.
    `clusters`, codes of the patients int (rows,), default to a patient a row. The threshold stands
    halfway between neighbouring scores. 0.5 where all rows are of one kind.

    Raises:
        InputError: too few patients with a positive row for that promise.

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
    if sensitivity is None:
        youden = found + below
        good = np.flatnonzero(youden >= youden.max() - 1e-12)
        best = int(good[np.argmax(gap[good])])
    elif not confidence:
        best = int(np.flatnonzero(found >= sensitivity - 1e-12)[-1])
    else:
        codes = np.arange(len(scores)) if clusters is None else clusters
        found, patients = _found_of_patients(scores[positive], codes[positive], values)
        require_enough(patients, sensitivity, confidence)
        best = int(np.flatnonzero(p_values(found, patients, sensitivity) <= 1 - confidence + 1e-12)[-1])
    return float(values[best] - gap[best] / 2)


def _found_of_patients(scores: np.ndarray, clusters: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, int]:
    """For each of `values`, rising, the mean over patients of the share of their `scores` at or above it,
    and the number of patients.
    """
    codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)[1:]
    order = np.argsort(scores, kind="stable")
    missed = np.concatenate([[0.0], np.cumsum((1 / (len(sizes) * sizes[codes]))[order])])
    return 1 - missed[np.searchsorted(scores[order], values, side="left")], len(sizes)


def p_values(found: np.ndarray, patients: int, sensitivity: float) -> np.ndarray:
    """How likely at least the shares `found` (any shape) of `patients` are where `sensitivity` is the true one.

    The upper tail of a binomial, between those of its neighbours where a share of the patients is no whole
    number. At most 1 - confidence where the one-sided limit of Clopper and Pearson is at least `sensitivity`.
    """
    from scipy.special import betainc

    hits = np.clip(np.asarray(found, dtype=np.float64), 0, 1) * patients
    return np.where(hits > 1e-9, betainc(np.maximum(hits, 1e-9), patients - hits + 1, sensitivity), 1.0)


def patients_needed(sensitivity: float, confidence: float) -> int | None:
    """Fewest patients with the finding from whom `sensitivity` can be promised with `confidence`, all of
    them found; None where no number is enough.

    >>> patients_needed(0.9, 0.95), patients_needed(0.95, 0.95), patients_needed(1.0, 0.95)
    (29, 59, None)
    """
    if sensitivity >= 1:
        return None
    return max(1, math.ceil(math.log(1 - confidence) / math.log(sensitivity) - 1e-9))


def require_enough(patients: int, sensitivity: float, confidence: float) -> None:
    """Refuse a promise for which there are too few patients with the finding. Raises `InputError`."""
    needed = patients_needed(sensitivity, confidence) if confidence else 0
    if needed is not None and patients >= needed:
        return
    enough = "no number of them is enough" if needed is None else f"{needed} would be needed"
    raise InputError(
        f"A sensitivity of at least {sensitivity:g} cannot be promised with confidence {confidence:g}: validation has "
        f"{patients:,} patient{'' if patients == 1 else 's'} with the finding, {enough}. Allowed: more validation "
        "images (--validation-share), a lower --sensitivity or --confidence, or --confidence 0, which asks for it on "
        "validation alone and promises nothing."
    )


def decided(predictions: Predictions, label: str, threshold: float) -> Predictions:
    """The decision about one class as predictions of two classes, `REST` and `label`."""
    score = predictions.rows[PREFIX + label].to_numpy()
    rows = predictions.rows[["path", "patient", "split", "source"]].copy()
    rows["label"] = np.where(predictions.rows["label"] == label, label, REST)
    rows["predicted"] = np.where(score >= threshold, label, REST)
    rows = rows.join(pd.DataFrame({PREFIX + REST: 1 - score, PREFIX + label: score}, index=rows.index))
    return Predictions(rows, (REST, label))
