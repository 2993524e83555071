"""Smooth calibration curve, observed against stated probability, with a band clustered by patient.

A curve from groups of images depends on where the borders of the groups lie. Here the outcome is regressed on a natural
cubic spline of the stated probability's logit (Harrell 2015, ch. 10; Austin and Steyerberg 2014), whose
linear case is the logistic recalibration of Cox (1958).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from chestxray.evaluation.calibration.calibration_slope import logits
from chestxray.evaluation.calibration.logistic_regression import fit
from chestxray.evaluation.intervals import LEVEL

#: Quantiles of the stated probabilities at which knots are placed (Harrell 2015), by the least number of patients
#: with the rarer outcome; with fewer than 30 the curve is a straight line on the logit scale.
_KNOTS = {100: (0.05, 0.35, 0.65, 0.95), 30: (0.1, 0.5, 0.9)}
_POINTS = 100


@dataclass(frozen=True)
class Curve:
    """``observed`` at each ``stated`` probability with the limits of its pointwise 95% band, all (points,)."""

    stated: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve(stated: np.ndarray, happened: np.ndarray, clusters: np.ndarray) -> Curve | None:
    """Return the smooth calibration curve between the 1% and 99% quantiles of `stated`; None where it cannot be fitted.

    Args:
        stated: float (rows,), a probability.
        happened: bool (rows,), whether the class is the true one.
        clusters: patients as codes, int (rows,).
    """
    fewer = min(len(np.unique(clusters[happened])), len(np.unique(clusters[~happened])))
    if fewer < 2:
        return None
    shown = _logit(stated)
    quantiles = next((places for least, places in _KNOTS.items() if fewer >= least), ())
    knots = np.unique(np.quantile(shown, quantiles)) if quantiles else np.empty(0)
    found = None
    for kept in (knots, np.empty(0)) if len(knots) > 2 else (np.empty(0),):
        knots, basis = kept, natural_spline(shown, kept)
        found = fit(np.stack([np.zeros_like(basis), basis], axis=1), happened.astype(np.int64), clusters)
        if found is not None:
            break
    if found is None:
        return None
    # Beyond these quantiles the curve would depend on one or two images.
    first, last = np.quantile(stated, [0.01, 0.99]).tolist()
    places = np.linspace(first, last, _POINTS)
    at = natural_spline(_logit(places), knots)
    middle = at @ found.coefficients
    error = np.sqrt(np.maximum(np.einsum("pi,ij,pj->p", at, found.covariance, at), 0))
    half = float(stats.t.ppf((1 + LEVEL) / 2, max(fewer - 1, 1))) * error
    return Curve(places, _expit(middle), _expit(middle - half), _expit(middle + half))


def natural_spline(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return the basis of a natural cubic spline, linear beyond its `knots`, float (values, columns).

    The columns are a constant, `values` and, with three or more knots, the cubic terms.

    >>> natural_spline(np.array([0.0, 1.0]), np.empty(0)).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    columns = [np.ones_like(values), values]
    if len(knots) > 2:
        last, before = knots[-1], knots[-2]
        scale = (last - knots[0]) ** 2

        def cubed(knot: float) -> np.ndarray:
            return np.maximum(values - knot, 0) ** 3

        for knot in knots[:-2]:
            rest = cubed(before) * (last - knot) - cubed(last) * (before - knot)
            columns.append((cubed(knot) - rest / (last - before)) / scale)
    return np.stack(columns, axis=1)


def _logit(probability: np.ndarray) -> np.ndarray:
    both = logits(np.stack([1 - probability, probability], axis=1))
    return both[:, 1] - both[:, 0]


def _expit(sums: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(sums / 2))
