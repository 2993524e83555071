"""Calibration of a model's probabilities by temperature scaling, fitted on validation.

Temperature scaling (Guo et al. 2017) divides the logits by one number. A model that was trained with
class weights predicts class frequencies shifted by the weights; since the weights are known,
that shift is undone first (Saerens et al. 2002; Menon et al. 2021). Where an offset for each class,
added to the logits, improves the likelihood in cross-validation on validation, offsets are
fitted together with the temperature (bias-corrected temperature scaling, Alexandari et al. 2020).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict

import numpy as np

from chestxray.storage.schema import Within

if TYPE_CHECKING:
    from chestxray.evaluation.predictions import Predictions

#: Bounds of the temperature: a fit at one of them means that validation is too small or too easy for it.
BOUNDS = (0.2, 20.0)
#: Largest offset of a class: e^10 is more than any data set's frequencies differ by.
MOST_OFFSET = 10.0
#: Folds of validation in which the forms of calibration are compared, and least number of images a class for that.
FOLDS, FEWEST_OF_A_CLASS = 5, 10

#: Names of the forms in files and reports.
NONE, TEMPERATURE = "none", "temperature"
PRIOR_SHIFT = "weights or sampling undone, temperature"
UNSHIFTED = "weights or sampling undone"
OFFSETS = "temperature and class offsets"


class CalibrationJson(TypedDict):
    """A `Calibration` as ``decision.json`` has it."""

    temperature: Annotated[float, Within(sys.float_info.min)]
    offsets: list[float]
    method: str


@dataclass(frozen=True)
class Calibration:
    """Calibrated logits are ``logits / temperature + offsets``.

    ``offsets`` has a number for each class in order, or none where nothing is added. ``method`` is
    `NONE`, `TEMPERATURE`, `PRIOR_SHIFT`, `UNSHIFTED` or `OFFSETS`.
    """

    temperature: float = 1.0
    offsets: tuple[float, ...] = ()
    method: str = NONE

    def applied(self, probabilities: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, float64 (rows, classes), from uncalibrated ones.

        >>> Calibration(temperature=2.0).applied(np.array([[0.8, 0.2]])).round(3).tolist()
        [[0.667, 0.333]]
        """
        return _softmax(_logits(probabilities) / self.temperature + self._added)

    def undone(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the uncalibrated probabilities, float64 (rows, classes), from calibrated ones."""
        return _softmax((_logits(probabilities) - self._added) * self.temperature)

    @property
    def at_bound(self) -> bool:
        """Whether the fitted temperature is at one of `BOUNDS` and so is unreliable."""
        fitted = self.method != NONE
        return fitted and not BOUNDS[0] * 1.01 < self.temperature < BOUNDS[1] / 1.01

    @classmethod
    def from_json(cls, fields: CalibrationJson) -> Calibration:
        """Return the calibration from its JSON fields, which were checked before."""
        return cls(fields["temperature"], tuple(fields["offsets"]), fields["method"])

    @property
    def _added(self) -> np.ndarray | float:
        return np.asarray(self.offsets) if self.offsets else 0.0


def fit(validation: Predictions, class_weights: np.ndarray | None = None) -> Calibration:
    """Fit the calibration on `validation`, whose probabilities are uncalibrated.

    Without `class_weights`, float (classes,), this is the temperature of the least negative log-likelihood;
    with class weights of the cross-entropy, the same after their shift is undone. Offsets are fitted as well
    where, in cross-validation with whole patients, they improve the log-likelihood by more than its standard
    error, and each class has `FEWEST_OF_A_CLASS` images.
    """
    logits, truth = _logits(validation.probabilities), validation.truth
    shift = np.zeros(logits.shape[1]) if class_weights is None else np.log(class_weights)
    if _gains_from_offsets(logits, truth, shift, validation.clusters):
        temperature, offsets = _fit_both(logits, truth)
        return Calibration(temperature, tuple(float(value) for value in offsets), OFFSETS)
    temperature = _fit_temperature(logits - shift, truth)
    if class_weights is None:
        return Calibration(temperature, method=TEMPERATURE)
    offsets = _centred(-shift / temperature)
    return Calibration(temperature, tuple(float(value) for value in offsets), PRIOR_SHIFT)


def unshifted(class_weights: np.ndarray) -> Calibration:
    """Return the calibration that undoes the shift of `class_weights`, float (classes,), which are known, and fits
    nothing.
    """
    return Calibration(1.0, tuple(float(value) for value in _centred(-np.log(class_weights))), UNSHIFTED)


def calibrated(predictions: Predictions, calibration: Calibration) -> Predictions:
    """Return the predictions with calibrated probabilities; the column ``predicted`` is unchanged."""
    return _with(predictions, calibration.applied(predictions.probabilities))


def uncalibrated(predictions: Predictions, calibration: Calibration) -> Predictions:
    """Return calibrated predictions with their uncalibrated probabilities: the reverse of `calibrated`."""
    return _with(predictions, calibration.undone(predictions.probabilities))


def _with(predictions: Predictions, probabilities: np.ndarray) -> Predictions:
    from chestxray.evaluation.predictions import PREFIX, Predictions

    rows = predictions.rows.copy()
    rows[[PREFIX + name for name in predictions.classes]] = probabilities
    return Predictions(rows, predictions.classes)


def _gains_from_offsets(logits: np.ndarray, truth: np.ndarray, shift: np.ndarray, clusters: np.ndarray) -> bool:
    """Return whether offsets improve the likelihood on held-out folds by more than its standard error."""
    classes = logits.shape[1]
    if np.bincount(truth, minlength=classes).min() < FEWEST_OF_A_CLASS:
        return False
    # Patients in a drawn order, so that folds do not go by the order of the files.
    codes = np.unique(clusters, return_inverse=True)[1]
    fold = np.random.default_rng(0).permutation(codes.max() + 1)[codes] % FOLDS
    gain = np.zeros(len(truth))
    for held_out in range(FOLDS):
        inside, out = fold != held_out, fold == held_out
        if not out.any() or np.bincount(truth[inside], minlength=classes).min() == 0:
            return False
        plain = (logits - shift) / _fit_temperature((logits - shift)[inside], truth[inside])
        temperature, offsets = _fit_both(logits[inside], truth[inside])
        both = logits / temperature + offsets
        gain[out] = _losses(plain[out], truth[out]) - _losses(both[out], truth[out])
    by_patient = np.bincount(codes, weights=gain)
    error = by_patient.std(ddof=1) * np.sqrt(len(by_patient)) if len(by_patient) > 1 else np.inf
    return bool(gain.sum() > error)


def _fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature of the least negative log-likelihood, within `BOUNDS`.

    If the model makes no error on validation the likelihood has no optimum, and a bound is returned.
    """
    from scipy import optimize

    def loss(log_temperature: float) -> float:
        return float(_losses(logits / np.exp(log_temperature), truth).mean())

    found = optimize.minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _fit_both(logits: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Return temperature and offsets, float (classes,) of mean 0, of the least negative log-likelihood."""
    from scipy import optimize

    rows = np.arange(len(truth))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, offsets = np.exp(-parameters[0]), parameters[1:]
        scaled = logits * slope + offsets
        excess = _softmax(scaled)
        value = float(_losses(scaled, truth).mean())
        excess[rows, truth] -= 1
        slopes = -slope * (excess * logits).sum(axis=1).mean()
        return value, np.concatenate([[slopes], excess.mean(axis=0)])

    low, high = np.log(BOUNDS)
    bounds = [(low, high)] + [(-MOST_OFFSET, MOST_OFFSET)] * logits.shape[1]
    start = np.zeros(1 + logits.shape[1])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500})
    return float(np.exp(found.x[0])), _centred(found.x[1:])


def _centred(offsets: np.ndarray) -> np.ndarray:
    # Softmax is invariant to a number added to all classes.
    return offsets - offsets.mean()


def _losses(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(truth)), truth]


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def _logits(probabilities: np.ndarray) -> np.ndarray:
    # Logits up to a constant a row, to which softmax is invariant. A 0 is replaced by float32's least number.
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-38))
