"""Temperature scaling (Guo et al. 2017): one number, fitted on validation, that makes the stated
probabilities as sure as the model is right. It changes no order and no predicted class.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize

from chestxray.prediction import PREFIX, Predictions

#: A temperature outside these says that validation was too small or too easy to learn it from.
BOUNDS = (0.2, 20.0)


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature of the smallest negative log-likelihood, within `BOUNDS`.

    `probabilities`: float (rows, classes) at temperature 1; `truth`: class numbers (rows,). Where a
    model makes no mistake on validation the likelihood has no optimum, and the bound is returned.

    >>> sure = np.array([[0.99, 0.01]] * 10)
    >>> round(fit_temperature(sure, np.array([0] * 8 + [1] * 2)), 1)  # right in 8 of 10
    3.3
    """
    logits = _logits(probabilities)
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[rows, truth]).mean())

    found = optimize.minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def rescaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities float (rows, classes) as they are at another temperature than 1."""
    scaled = _logits(probabilities) / temperature
    return np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))


def calibrated(predictions: Predictions, temperature: float) -> Predictions:
    """The same predictions at another temperature."""
    columns = [PREFIX + name for name in predictions.classes]
    rows = predictions.rows.copy()
    rows[columns] = rescaled(predictions.probabilities, temperature)
    return Predictions(rows, predictions.classes)


def at_bound(temperature: float) -> bool:
    """Whether the fit ended at a bound and the temperature means little."""
    return not BOUNDS[0] * 1.01 < temperature < BOUNDS[1] / 1.01


def _logits(probabilities: np.ndarray) -> np.ndarray:
    # Logits but for a constant a row, which softmax does not see. Float32's least number for a 0.
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-38))
