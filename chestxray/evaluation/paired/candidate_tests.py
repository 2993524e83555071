"""Test of the difference of two models, for each design of their trainings."""

from __future__ import annotations

import numpy as np

from chestxray.evaluation.intervals import satterthwaite, satterthwaite_of_sum
from chestxray.evaluation.paired import trainings
from chestxray.evaluation.paired.candidate_figures import Estimated, covariance_of_replicates, inflation
from chestxray.evaluation.paired.p_value_function import DifferenceTest, t_test
from chestxray.evaluation.paired.training_variance import over_folds, over_folds_of_one_test, over_seeds


def tested(one: Estimated, other: Estimated, design: trainings.Design) -> DifferenceTest:
    """Return the test of the difference of two models by their `design`: one training, seeds, or folds."""
    if design == "folds":
        spread = over_folds(one.folds - other.folds, one.test_ratios)
        name = "corrected resampled t over folds (Nadeau and Bengio 2003)"
        return t_test(spread.value, spread.error, spread.freedom, name, one.largest)
    scale, freedom = _patients(one, other)
    both = np.concatenate([one.replicates, other.replicates])
    covariance = covariance_of_replicates(both) * scale
    if design == "folds of one test":
        turned = trainings.by_fold(one.tables, one.replicates) - trainings.by_fold(other.tables, other.replicates)
        gaps = trainings.by_fold(one.tables, one.values) - trainings.by_fold(other.tables, other.values)
        spread = over_folds_of_one_test(gaps, covariance_of_replicates(turned) * scale, freedom)
        name = "patients and folds (Obuchowski and Rockette 1995; Nadeau and Bengio 2003)"
    else:
        spread = over_seeds([one.values, other.values], [1, -1], covariance, freedom)
        name = "patients and seeds (Obuchowski and Rockette 1995)"
    if design == "one":
        name = "paired bootstrap clustered by patient"
    return t_test(spread.value, spread.error, spread.freedom, name, one.largest)


def _patients(one: Estimated, other: Estimated) -> tuple[float, float]:
    """Return the factor by which the bootstrap understates the variance of a difference over patients, and the
    degrees of freedom of that variance.

    In a mean over classes, each class contributes in proportion to its part of the variance, so that a rare class
    widens the interval by its own part only. Those of the same rows, as findings, are correlated.
    """
    support = min(one.support, other.support)
    if not len(one.by_class):
        return inflation(support), support - 1
    gaps = one.by_class - other.by_class
    variances = np.array([covariance_of_replicates(gap[None])[0, 0] for gap in gaps])
    each = np.minimum(one.class_supports, other.class_supports)
    varies = variances > 0
    if not varies.any():
        return inflation(support), support - 1
    inflated = [variance * inflation(n) for variance, n in zip(variances[varies], each[varies], strict=True)]
    factor = sum(inflated) / float(variances.sum())
    if one.of_same_rows:
        return factor, satterthwaite_of_sum(covariance_of_replicates(gaps[varies]), each[varies] - 1)
    return factor, satterthwaite(inflated, each[varies] - 1)
