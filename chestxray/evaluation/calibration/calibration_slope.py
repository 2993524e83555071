"""Calibration intercept and slope (Cox 1958), from logistic recalibration of the stated probabilities.

The slope is 1 where probabilities are as spread out as they should be, less than 1 where they are too
extreme (the model is too sure), more where they are too moderate. The intercept, calibration-in-the-large,
is 0 where a class is as frequent as it is predicted to be, above 0 where it is more frequent. Both are
what reporting guidelines recommend (Van Calster et al. 2019). Of more than two classes the slope is the one
that all logits share, with an intercept of its own for each class (Van Hoorde et al. 2014).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from chestxray.evaluation.calibration.logistic_regression import fit
from chestxray.evaluation.intervals import LEVEL, Figure

#: Lower bound of probabilities before the logarithm: about float32's resolution near 1.
LEAST = 1e-7
_NOTHING = Figure(None, None, None)


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Return the logarithms of `probabilities` (rows, classes): logits up to a constant a row."""
    return np.log(np.clip(probabilities, LEAST, None))


def slope(probabilities: np.ndarray, truth: np.ndarray, clusters: np.ndarray, support: float) -> Figure:
    """Return the calibration slope of `probabilities` (rows, classes) with its 95% interval.

    All parts are None where it does not exist: perfect separation, one class, equal probabilities in all rows.

    Args:
        probabilities: float (rows, classes).
        truth: class numbers, int (rows,); classes without rows are left out.
        clusters: patients as codes, int (rows,).
        support: effective number of patients of the class that has fewest.
    """
    if len(np.unique(truth)) < 2:
        return _NOTHING
    shown, truth = _present(logits(probabilities), truth)
    # One intercept a class but the first, which the others are measured from.
    own = np.broadcast_to(np.eye(shown.shape[1])[:, 1:], (*shown.shape, shown.shape[1] - 1))
    found = fit(np.concatenate([shown[..., None], own], axis=2), truth, clusters)
    return _NOTHING if found is None else _wald(found.coefficients[0], found.covariance[0, 0], support)


def intercept(probability: np.ndarray, positive: np.ndarray, clusters: np.ndarray, support: float) -> Figure:
    """Return the calibration intercept, with a slope of 1, of a class against the rest, with its 95% interval.

    `probability`, float (rows,), is that of the class and `positive`, bool (rows,), says where it is true;
    the rest as for `slope`.
    """
    both = logits(np.stack([1 - probability, probability], axis=1))
    found = fit(np.broadcast_to([[0.0], [1.0]], (len(both), 2, 1)), positive.astype(np.int64), clusters, both)
    return _NOTHING if found is None else _wald(found.coefficients[0], found.covariance[0, 0], support)


def _present(shown: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits and class codes of only those classes that have rows."""
    names, codes = np.unique(truth, return_inverse=True)
    return shown[:, names], codes


def _wald(value: float, variance: float, support: float) -> Figure:
    value = float(value)
    if not support > 1 or not variance > 0:
        return Figure(value, None, None)
    half = float(stats.t.ppf((1 + LEVEL) / 2, support - 1)) * math.sqrt(variance)
    return Figure(value, value - half, value + half)
