"""Logistic regression on features of each class, with a covariance clustered by patient.

The conditional logit of McFadden (1974): a row has a vector of features for each class; their products with one vector
of coefficients are the linear predictors of a softmax. With two classes, one of them with features of 0, it is plain
logistic regression. The covariance is the sandwich estimator of Huber and White with the scores summed by patient
(Liang and Zeger 1986) and the usual correction for few clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Most Newton steps, and the change of a coefficient at which they end.
_STEPS, _CLOSE = 50, 1e-10
#: A linear predictor beyond this means that the classes are separated and the coefficients diverge.
_SEPARATED = 500.0


@dataclass(frozen=True)
class Fit:
    """``coefficients`` (features,) with their ``covariance`` (features, features)."""

    coefficients: np.ndarray
    covariance: np.ndarray


def fit(features: np.ndarray, truth: np.ndarray, clusters: np.ndarray, offset: np.ndarray | None = None) -> Fit | None:
    """Return the maximum-likelihood coefficients, None where they do not exist.

    They do not exist where the classes are separated, a class has no rows, or features are collinear.

    Args:
        features: float (rows, classes, features).
        truth: class numbers, int (rows,).
        clusters: patients as codes, int (rows,).
        offset: float (rows, classes), added to the linear predictors, without a coefficient.
    """
    rows, _, size = features.shape
    patients = len(np.unique(clusters))
    if patients < 2 or rows <= size or len(np.unique(truth)) < 2:
        return None
    start = np.zeros((rows, features.shape[1])) if offset is None else offset
    coefficients = np.zeros(size)
    for _ in range(_STEPS):
        scores, information = _derivatives(features, truth, start + features @ coefficients)
        step = _solved(information, scores.sum(axis=0))
        if step is None:
            return None
        coefficients = coefficients + _damped(features, truth, start, coefficients, step)
        if np.abs(features @ coefficients).max() > _SEPARATED:
            return None
        if np.abs(step).max() < _CLOSE * max(1.0, np.abs(coefficients).max()):
            break
    else:
        return None
    scores, information = _derivatives(features, truth, start + features @ coefficients)
    bread = _solved(information, np.eye(size))
    if bread is None:
        return None
    codes = np.unique(clusters, return_inverse=True)[1]
    by_patient = np.zeros((patients, size))
    np.add.at(by_patient, codes, scores)
    few = patients / (patients - 1) * (rows - 1) / (rows - size)
    return Fit(coefficients, few * bread @ (by_patient.T @ by_patient) @ bread)


def _derivatives(features: np.ndarray, truth: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the score of each row, (rows, features), and the Fisher information, (features, features)."""
    probabilities = np.exp(sums - np.logaddexp.reduce(sums, axis=1, keepdims=True))
    expected = np.einsum("rk,rkf->rf", probabilities, features)
    scores = features[np.arange(len(truth)), truth] - expected
    weighted = features * probabilities[..., None]
    information = np.tensordot(weighted, features, axes=([0, 1], [0, 1])) - expected.T @ expected
    return scores, information


def _damped(
    features: np.ndarray, truth: np.ndarray, start: np.ndarray, coefficients: np.ndarray, step: np.ndarray
) -> np.ndarray:
    """Return the step, halved until it does not lower the likelihood."""
    rows = np.arange(len(truth))

    def likelihood(at: np.ndarray) -> float:
        sums = start + features @ at
        return float((sums[rows, truth] - np.logaddexp.reduce(sums, axis=1)).sum())

    before = likelihood(coefficients)
    for _ in range(30):
        if likelihood(coefficients + step) >= before - 1e-9:
            return step
        step = step / 2
    return step


def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    if not np.isfinite(matrix).all() or np.linalg.cond(matrix) > 1e12:
        return None
    return np.linalg.solve(matrix, right)
