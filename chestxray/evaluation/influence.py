"""AUROC and accuracy with the influence of each row, from which means and differences get their variance.

The influence of a row is the empirical influence function at that row, divided by the number of rows. Influences
summed by patient, then squared and added, give the variance of DeLong et al. (1988) with the clusters of Obuchowski
(1997); the influence of a mean or a difference is the mean or difference of the influences (LeDell et al. 2015 for
cross-validated areas).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from chestxray.evaluation.intervals import LEVEL, Figure, around


@dataclass(frozen=True)
class Influence:
    """A figure of some rows: its value, NaN where it cannot be computed, and each row's influence, float (rows,)."""

    value: float
    rows: np.ndarray

    def figure(self, clusters: np.ndarray, support: float, level: float = LEVEL) -> Figure:
        """Return the figure with its interval of confidence `level`.

        `clusters` are codes of the patients, int (rows,); `support` is the effective number of patients. A
        figure that no row influences, such as the AUROC of a score that is the same for all rows, has an
        interval of width 0.
        """
        error = math.sqrt(max(0.0, covariance(self, self, clusters)))
        if support > 1 and error <= 1e-12 and 0 < self.value < 1:
            return Figure(self.value, self.value, self.value)
        inflated = error * math.sqrt(support / (support - 1)) if support > 1 else math.nan
        return around(self.value, inflated, support, level=level)


def auroc(positive: np.ndarray, scores: np.ndarray, strata: np.ndarray) -> Influence:
    """Return the area under the ROC curve over pairs within the same stratum.

    Scores of different models, such as the folds of a cross-validation, do not compare with each
    other: only pairs within one stratum count, and each pair counts alike.

    Args:
        positive: bool (rows,).
        scores: float (rows,), higher for positive.
        strata: codes, int (rows,).
    """
    beaten = np.zeros(len(scores))
    others = np.zeros(len(scores))
    pairs = 0
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        here = positive[inside]
        own, rest = int(here.sum()), int((~here).sum())
        if not own * rest:
            continue
        ranks = stats.rankdata(scores[inside])
        # Proportion of the other class that each row is ranked correctly against, ties counting half.
        beaten[inside[here]] = (ranks[here] - stats.rankdata(scores[inside[here]])) / rest
        beaten[inside[~here]] = 1 - (ranks[~here] - stats.rankdata(scores[inside[~here]])) / own
        others[inside[here]], others[inside[~here]] = rest, own
        pairs += own * rest
    if not pairs:
        return Influence(math.nan, beaten)
    value = float((beaten * others)[positive].sum() / pairs)
    return Influence(value, others * (beaten - value) / pairs)


def accuracy(right: np.ndarray) -> Influence:
    """Return the proportion of True in `right`, bool (rows,)."""
    if not len(right):
        return Influence(math.nan, np.zeros(0))
    value = float(right.mean())
    return Influence(value, (right - value) / len(right))


def mean(parts: Sequence[Influence]) -> Influence:
    """Return the mean of those figures of the same rows that can be computed."""
    known = [part for part in parts if math.isfinite(part.value)]
    if not known:
        return Influence(math.nan, parts[0].rows)
    return Influence(float(np.mean([part.value for part in known])), np.mean([part.rows for part in known], axis=0))


def covariance(one: Influence, other: Influence, clusters: np.ndarray) -> float:
    """Return the covariance of two figures of the same rows over patients; `clusters` are codes, int (rows,)."""
    return float(np.bincount(clusters, one.rows) @ np.bincount(clusters, other.rows))


def correlation(one: Influence, other: Influence, clusters: np.ndarray) -> float:
    """Return the correlation of two figures of the same rows, 0 where one of them does not vary."""
    both = math.sqrt(covariance(one, one, clusters) * covariance(other, other, clusters))
    return covariance(one, other, clusters) / both if both > 1e-24 else 0.0
