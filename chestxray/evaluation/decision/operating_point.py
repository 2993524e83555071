"""Decision thresholds, chosen on validation and reported on the test.

A threshold that reaches a wanted sensitivity on validation misses it on other patients about half of the
time. A threshold that guarantees it with a confidence is chosen by fixed-sequence testing (Learn then Test;
Angelopoulos et al. 2021): from the lowest threshold up, thresholds are accepted as long as the exact binomial
test rejects the hypothesis "the sensitivity is lower", that is, while the lower limit of Clopper and Pearson
(1934) is above the wanted one. Sensitivity falls with the threshold, so that testing in this order needs no
correction. Each patient counts equally, with the proportion of the patient's images found.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from chestxray.errors import InputError
from chestxray.evaluation.predictions import PREFIX, Predictions

#: Name of all other classes in a decision about one class.
REST = "(rest)"


def choose(
    scores: np.ndarray,
    positive: np.ndarray,
    sensitivity: float | None = None,
    *,
    confidence: float = 0.0,
    clusters: np.ndarray | None = None,
) -> float:
    """Return the threshold at and above which a score is called positive.

    `scores` float (rows,), `positive` bool (rows,). Without `sensitivity`: the threshold of the largest
    sensitivity + specificity (Youden 1950), among equals the one in the widest gap between scores. With it: the
    highest threshold that has at least that sensitivity on other patients, each counting equally, with this
    `confidence`; with a confidence of 0, on these rows alone. `clusters`, codes of the patients, int (rows,),
    default to a patient a row. The threshold lies halfway between neighbouring scores. 0.5 where all rows are
    positive or none is.

    Raises:
        InputError: too few patients with a positive row for that confidence.

    >>> choose(np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, False, True, True]))
    0.5
    """
    if positive.all() or not positive.any():
        return 0.5
    values = np.unique(scores)
    # Proportions at the threshold values[i]: positive rows called positive, and negative rows called negative.
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
    """Return, for each of `values` in ascending order, the mean over patients of the proportion of their `scores` at
    or above it, and the number of patients.
    """
    codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)[1:]
    order = np.argsort(scores, kind="stable")
    missed = np.concatenate([[0.0], np.cumsum((1 / (len(sizes) * sizes[codes]))[order])])
    return 1 - missed[np.searchsorted(scores[order], values, side="left")], len(sizes)


def p_values(found: np.ndarray, patients: int, sensitivity: float) -> np.ndarray:
    """Return p-values of finding at least the proportions `found` (any shape) of `patients` if `sensitivity` is true.

    The upper tail of a binomial distribution, interpolated by the incomplete beta function where a proportion is
    not a whole number of patients (scipy's binomtest takes whole numbers alone). At most 1 - confidence where the
    one-sided limit of Clopper and Pearson is at least `sensitivity`.
    """
    from scipy.special import betainc

    hits = np.clip(np.asarray(found, dtype=np.float64), 0, 1) * patients
    return np.where(hits > 1e-9, betainc(np.maximum(hits, 1e-9), patients - hits + 1, sensitivity), 1.0)


def patients_needed(sensitivity: float, confidence: float) -> int | None:
    """Return the least number of patients with the finding with which `sensitivity` can be promised with
    `confidence`, if all of them are found; None where no number is enough.

    >>> patients_needed(0.9, 0.95), patients_needed(0.95, 0.95), patients_needed(1.0, 0.95)
    (29, 59, None)
    """
    if sensitivity >= 1:
        return None
    return max(1, math.ceil(math.log(1 - confidence) / math.log(sensitivity) - 1e-9))


def require_enough(patients: int, sensitivity: float, confidence: float) -> None:
    """Raise `InputError` unless `patients` with the finding are enough to promise `sensitivity` with `confidence`."""
    needed = patients_needed(sensitivity, confidence) if confidence else 0
    if needed is not None and patients >= needed:
        return
    enough = "no number of them is enough" if needed is None else f"{needed} would be needed"
    raise InputError(
        f"A sensitivity of at least {sensitivity:g} cannot be promised with confidence {confidence:g}: validation has "
        f"{patients:,} patient{'' if patients == 1 else 's'} with the finding, {enough}. Allowed: more validation "
        "images (--validation-share), a lower --sensitivity or --confidence, or --confidence 0, which requires it on "
        "validation alone and promises nothing for other patients."
    )


def decided(predictions: Predictions, label: str, threshold: float) -> Predictions:
    """Return the decision about one class at a threshold as predictions of two classes, `REST` and `label`."""
    score = predictions.rows[PREFIX + label].to_numpy()
    rows = predictions.rows[["path", "patient", "split", "source"]].copy()
    rows["label"] = np.where(predictions.rows["label"] == label, label, REST)
    rows["predicted"] = np.where(score >= threshold, label, REST)
    rows = rows.join(pd.DataFrame({PREFIX + REST: 1 - score, PREFIX + label: score}, index=rows.index))
    return Predictions(rows, (REST, label))
