"""Confidence intervals of other methods for the figures of a test, with the same clustered bootstrap replicates.

Percentile and BCa (Efron 1987) of the bootstrap clustered by patient; DeLong's variance, clustered
(Obuchowski 1997), on the logit scale with the normal quantile (Pepe 2003) for the AUROC; Wilson's (1927)
interval for proportions, with the number of images divided by the design effect (Dean and Pagano 2015).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from chestxray.evaluation.paired.paired_tests import delong
from chestxray.evaluation.weighted_metrics import Key, Table

Limits = tuple[float, float]
#: Number of groups of patients left out in turn for the acceleration of BCa.
GROUPS = 60


def percentile(replicates: np.ndarray) -> Limits:
    """Return the percentile interval: the middle 95% of the replicates."""
    low, high = np.nanquantile(replicates, [0.025, 0.975])
    return float(low), float(high)


def left_out(table: Table, clusters: np.ndarray) -> dict[Key, np.ndarray]:
    """Return the jackknife values of every figure: without each of up to `GROUPS` groups of patients."""
    groups = min(int(clusters.max()) + 1, GROUPS)
    return table.figures((clusters % groups != np.arange(groups)[:, None]).astype(np.float64))


def bca(value: float, replicates: np.ndarray, without: np.ndarray) -> Limits:
    """Return the BCa interval (bias-corrected and accelerated); `without` are the jackknife values."""
    finite, kept = replicates[np.isfinite(replicates)], without[np.isfinite(without)]
    below = np.mean(finite < value) + np.mean(finite == value) / 2
    bias = stats.norm.ppf(np.clip(below, 1e-4, 1 - 1e-4))
    pulls = kept.mean() - kept
    square = float((pulls**2).sum())
    acceleration = float((pulls**3).sum()) / (6 * square**1.5) if square > 0 else 0.0
    normal = bias + stats.norm.ppf([0.025, 0.975])
    places = stats.norm.cdf(bias + normal / (1 - acceleration * normal))
    low, high = np.quantile(finite, np.clip(places, 0, 1))
    return float(low), float(high)


def delong_logit(positive: np.ndarray, scores: np.ndarray, clusters: np.ndarray) -> Limits | None:
    """Return DeLong's interval on the logit scale; None if the variance is not positive or the area is 0 or 1."""
    area, covariance = delong(positive, scores[None], clusters)
    value, variance = float(area[0]), float(covariance[0, 0])
    if not variance > 0 or not 0 < value < 1:
        return None
    middle, half = math.log(value / (1 - value)), 1.959964 * math.sqrt(variance) / (value * (1 - value))
    return tuple(1 / (1 + math.exp(-x)) for x in (middle - half, middle + half))  # type: ignore[return-value]


def wilson(share: float, rows: int, error: float) -> Limits:
    """Return Wilson's interval of a proportion of `rows` images; its clustered standard error `error` gives the design
    effect.
    """
    binomial = share * (1 - share) / rows
    count = rows / max(error**2 / binomial, 1.0) if binomial > 0 and error > 0 else float(rows)
    found = stats.binomtest(round(share * rows), rows).proportion_ci(method="wilson") if count == rows else None
    if found is not None:
        return float(found.low), float(found.high)
    z = 1.959964
    scale = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return centre - reach, centre + reach
