"""Standard error of a figure over several trainings of one model, with patients and trainings both random.

Trainings with other seeds are independent draws; those of a cross-validation share most of their images, so
that their variance is lower than that of independent trainings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chestxray.evaluation.intervals import satterthwaite


@dataclass(frozen=True)
class Spread:
    """A mean, its standard ``error``, and the degrees of ``freedom`` of that."""

    value: float
    error: float
    freedom: float


def over_folds(values: np.ndarray, test_ratios: np.ndarray) -> Spread:
    """Return the mean of a figure, or of a difference, over the folds of a cross-validation (Nadeau and Bengio 2003).

    The corrected resampled t: folds share training images, so that their mean has a larger variance than that of
    as many independent trainings; the ratio of test to training images gives the correction.

    Args:
        values: float (folds,), NaN where a fold has none.
        test_ratios: ratio of test to training images of each fold, float (folds,).
    """
    known = np.isfinite(values)
    folds = int(known.sum())
    if folds < 2:
        return Spread(float(values[known].mean()) if folds else math.nan, math.nan, 0.0)
    variance = (1 / folds + float(test_ratios[known].mean())) * float(values[known].var(ddof=1))
    return Spread(float(values[known].mean()), math.sqrt(variance), folds - 1.0)


def over_seeds(groups: list[np.ndarray], signs: list[int], covariance: np.ndarray, freedom: float) -> Spread:
    """Return the mean over trainings with other seeds on the same test patients, or the difference of two such means.

    Trainings take the place of the readers of a multi-reader multi-case study: the variance is that of trainings
    plus the covariance of different trainings over patients (Obuchowski and Rockette 1995, with trainings nested in
    models), and never less than that of patients alone.

    Args:
        groups: for each model, the figure in each training, float (trainings,).
        signs: 1 or -1 for each model.
        covariance: of all trainings in that order over the patients, float (trainings, trainings).
        freedom: degrees of freedom of the patients.
    """
    count = [len(values) for values in groups]
    owner = np.repeat(np.arange(len(groups)), count)
    weights = np.concatenate([np.full(n, sign / n) for n, sign in zip(count, signs, strict=True)])
    trainings = [(float(v.var(ddof=1)) / n, n - 1.0) for v, n in zip(groups, count, strict=True) if n > 1]
    twice = sum(_twice(covariance[np.ix_(owner == k, owner == k)]) for k, n in enumerate(count) if n > 1)
    alone = float(weights @ covariance @ weights)
    return _together(float(np.concatenate(groups) @ weights), alone, twice, freedom, trainings)


def over_folds_of_one_test(values: np.ndarray, covariance: np.ndarray, freedom: float) -> Spread:
    """Return the mean over the models of a cross-validation that were all tested on the same patients.

    As `over_seeds`, with a correction for the training images that folds share: each leaves out one of ``folds``
    parts, so that `over_folds` corrects by 1 / (folds - 1).

    Args:
        values: the figure, or the difference, of each fold's model, float (folds,), two or more.
        covariance: of them over the patients, float (folds, folds).
        freedom: degrees of freedom of the patients.
    """
    trained = over_folds(values, np.full(len(values), 1 / (len(values) - 1)))
    parts = [(trained.error**2, trained.freedom)]
    return _together(trained.value, float(covariance.mean()), _twice(covariance), freedom, parts)


def _together(value: float, alone: float, twice: float, freedom: float, trainings: list[tuple[float, float]]) -> Spread:
    """Add the variances of `trainings` to that of patients, `alone`, of which `twice` is counted in both."""
    alone = max(alone, 0.0)
    parts = [(max(alone - max(twice, 0.0), 0.0), freedom), *trainings]
    total = sum(variance for variance, _ in parts)
    if not total > alone:
        return Spread(value, math.sqrt(alone), freedom)
    return Spread(value, math.sqrt(total), satterthwaite(*zip(*parts, strict=True)))


def _twice(covariance: np.ndarray) -> float:
    """Return the variance of the interaction of trainings and patients in the mean over trainings.

    It is contained in both the variance of trainings and that over patients.
    """
    count = len(covariance)
    between = (covariance.sum() - np.trace(covariance)) / (count * (count - 1))
    return float(np.trace(covariance) / count - between) / count
