"""Sample size of a planned test: patients needed for wanted interval widths, expected intervals, power.

Sizes for wanted widths follow Archer et al. (2020) and Riley et al. (2021), as their program
pmvalsampsize computes them, with its 1.96 and its roundings; instead of its simulation the
distribution of the linear predictor (the logit of the predicted probability) is evaluated at even quantiles.
Expected intervals are those that this package would report. Several images of one patient count less than
as many patients: by the design effect 1 + (images - 1) * shared (Kish 1965).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from chestxray.evaluation.intervals import Figure, around

#: Normal quantile of a 95% interval, as pmvalsampsize has it.
_Z = 1.96
#: Number of quantiles at which a distribution is evaluated.
_PLACES = 200_000
_LARGEST = 10_000_000


@dataclass(frozen=True)
class Predictor:
    """A distribution of linear predictors: ``values``, float (places,), and their ``weights``, which sum to 1."""

    values: np.ndarray
    weights: np.ndarray

    @classmethod
    def normal(cls, mean: float, deviation: float) -> Predictor:
        """Return a normal distribution over all patients."""
        return cls(mean + deviation * _normal_places(), np.full(_PLACES, 1 / _PLACES))

    @classmethod
    def beta(cls, a: float, b: float) -> Predictor:
        """Return the predictor whose probabilities have a beta distribution."""
        proportions = special.betaincinv(a, b, _places())
        return cls(special.logit(np.clip(proportions, 1e-300, 1 - 1e-16)), np.full(_PLACES, 1 / _PLACES))

    @classmethod
    def binormal(cls, auroc: float, prevalence: float) -> Predictor:
        """Return a calibrated predictor, normal with equal variance in patients with and without the finding."""
        variance = 2 * stats.norm.ppf(auroc) ** 2
        low = special.logit(prevalence) - variance / 2
        without = low + math.sqrt(variance) * _normal_places()
        weights = np.repeat([1 - prevalence, prevalence], _PLACES) / _PLACES
        return cls(np.concatenate([without, without + variance]), weights)

    @property
    def slope_information(self) -> float:
        """Fisher information of one patient on the calibration slope, under perfect calibration: the standard error is
        1 / sqrt(this * patients).
        """
        p = special.expit(self.values)
        spread = self.weights * p * (1 - p)
        i00, i01, i11 = (float((spread * self.values**power).sum()) for power in (0, 1, 2))
        return i11 - i01**2 / i00

    def reached(self, threshold: float) -> tuple[float, float]:
        """Return sensitivity and specificity at a predicted probability of `threshold`, under perfect calibration."""
        p = special.expit(self.values)
        called, with_it = p >= threshold, self.weights * p
        without = self.weights * (1 - p)
        return float(with_it[called].sum() / with_it.sum()), float(without[~called].sum() / without.sum())


def auroc_error(auroc: float, prevalence: float, size: float) -> float:
    """Return the standard error of the AUROC of `size` independent images (Newcombe 2006, method 4)."""
    half = size / 2 - 1
    numerator = auroc * (1 - auroc) * (1 + half * (1 - auroc) / (2 - auroc) + half * auroc / (1 + auroc))
    return math.sqrt(numerator / (size * size * prevalence * (1 - prevalence)))


def size_for_ratio(prevalence: float, width: float, ratio: float = 1.0) -> int:
    """Return the number of images for an interval of observed / expected of that `width` (Riley 2021, criterion 1)."""
    # The smallest error in steps of 0.0001 whose interval is at least so wide, as in pmvalsampsize.
    error = math.ceil(math.asinh(width / (2 * ratio)) / _Z * 1e4 - 1e-9) / 1e4
    return math.ceil((1 - prevalence) / (prevalence * error**2))


def size_for_slope(predictor: Predictor, width: float) -> int:
    """Return the number of images for an interval of the calibration slope of that `width` (criterion 2)."""
    return math.ceil((2 * _Z / width) ** 2 / predictor.slope_information)


def size_for_auroc(auroc: float, prevalence: float, width: float) -> int:
    """Return the number of images for an interval of the AUROC of that `width` (criterion 3)."""
    low, high = 1, _LARGEST
    while low < high:
        middle = (low + high) // 2
        if 2 * _Z * auroc_error(auroc, prevalence, middle) <= width:
            high = middle
        else:
            low = middle + 1
    return low


def size_for_net_benefit(
    sensitivity: float, specificity: float, prevalence: float, threshold: float, width: float
) -> int:
    """Return the number of images for an interval of the standardised net benefit of that `width` (criterion 4)."""
    # In steps of 0.0001 and then rounded to three digits, as in pmvalsampsize.
    error = round(math.ceil(width / (2 * _Z) * 1e4 - 1e-9) / 1e4, 3)
    return math.ceil(_net_benefit_variance(sensitivity, specificity, prevalence, threshold) / error**2)


def _net_benefit_variance(sensitivity: float, specificity: float, prevalence: float, threshold: float) -> float:
    """Return the variance of the standardised net benefit, times the size (Marsh et al. 2020)."""
    w = (1 - prevalence) / prevalence * threshold / (1 - threshold)
    return (
        sensitivity * (1 - sensitivity) / prevalence
        + w * w * specificity * (1 - specificity) / (1 - prevalence)
        + w * w * (1 - specificity) ** 2 / (prevalence * (1 - prevalence))
    )


@dataclass(frozen=True)
class Design:
    """A planned test: ``patients`` with ``images`` each, a proportion ``prevalence`` of them with the finding.
    ``shared`` is the intraclass correlation: the part of the variance that lies between patients, from 0 (images
    of one patient differ as those of two) to 1 (they carry the same information).
    """

    patients: int
    prevalence: float
    images: float = 1.0
    shared: float = 1.0

    @property
    def size(self) -> float:
        """Number of patients with one image each that would give the same information."""
        return self.patients * self.images / (1 + (self.images - 1) * self.shared)

    def auroc(self, auroc: float) -> Figure:
        """Return the expected interval of an AUROC."""
        fewer = self.patients * min(self.prevalence, 1 - self.prevalence)
        return around(auroc, auroc_error(auroc, self.prevalence, self.size), fewer)

    def share(self, value: float, of: float) -> Figure:
        """Return the expected interval of a proportion of the images of a part `of` the patients (a sensitivity)."""
        return around(value, math.sqrt(value * (1 - value) / (self.size * of)), self.patients * of)

    def ratio(self) -> Figure:
        """Return the expected interval of observed / expected, where its value is 1."""
        error = math.sqrt((1 - self.prevalence) / (self.size * self.prevalence))
        return Figure(1.0, math.exp(-_Z * error), math.exp(_Z * error))

    def slope(self, predictor: Predictor) -> Figure:
        """Return the expected interval of the calibration slope, where its value is 1."""
        half = _Z / math.sqrt(predictor.slope_information * self.size)
        return Figure(1.0, 1 - half, 1 + half)

    def difference_error(self, one: float, other: float, correlation: float) -> float:
        """Return the standard error of the difference of two AUROCs on the same images, with correlated errors."""
        a, b = (auroc_error(value, self.prevalence, self.size) for value in (one, other))
        return math.sqrt(a * a + b * b - 2 * correlation * a * b)

    def power(self, auroc: float, difference: float, correlation: float, level: float = 0.05) -> float:
        """Return the power of a paired test of `auroc` against one higher by `difference`, at p < `level`."""
        error = self.difference_error(auroc, auroc + difference, correlation)
        return _beyond(abs(difference) / error, self._freedom, level / 2) + _beyond(
            -abs(difference) / error, self._freedom, level / 2
        )

    def non_inferiority_power(self, auroc: float, margin: float, correlation: float, level: float = 0.025) -> float:
        """Return the power to show that an equally good model is not worse by `margin`, one-sided at `level`."""
        return _beyond(margin / self.difference_error(auroc, auroc, correlation), self._freedom, level)

    @property
    def _freedom(self) -> float:
        return max(1.0, self.patients * min(self.prevalence, 1 - self.prevalence) - 1)


def _beyond(shift: float, freedom: float, level: float) -> float:
    """Return the probability that a noncentral t with `shift` exceeds the upper quantile of Student's t at `level`."""
    return float(stats.nct.sf(stats.t.isf(level, freedom), freedom, shift))


def _places() -> np.ndarray:
    return (np.arange(_PLACES) + 0.5) / _PLACES


def _normal_places() -> np.ndarray:
    return special.ndtri(_places())
