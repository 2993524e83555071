"""Intervals for means of losses over rows, by the bootstrap-t clustered by patient.

A loss such as the squared error is skewed: most rows have a loss near 0, a few a large one, and a test
that happens to hold few of these has both too low a mean and too low a standard error. A symmetric
interval then covers too seldom on one side. The bootstrap-t (Efron 1979; Hall 1988) learns
the skewness from replicates, each measured by its own standard error.
"""

from __future__ import annotations

import math

import numpy as np

from chestxray.evaluation.bootstrap import draws
from chestxray.evaluation.intervals import LEVEL, Figure, around, at_end
from chestxray.evaluation.support import FEWEST_BEHIND, behind_variance


def mean_losses(
    losses: np.ndarray,
    clusters: np.ndarray,
    *,
    support: float,
    greatest: np.ndarray,
    replicates: int,
    seed: int,
) -> list[Figure]:
    """Return the mean of each column of `losses` with its 95% interval, computed on the logit scale.

    The standard errors are those of the jackknife over patients. Each limit is the wider of two: that of the
    bootstrap-t, and that of Student's t with the number of patients behind the variance
    (`support.behind_variance`). Only the second is used where replicates have a standard error of 0, as
    with probabilities that are all 0 or 1.

    Args:
        losses: float (rows, columns), from 0 to `greatest`.
        clusters: codes 0, 1, ... of the patients, int (rows,).
        support: effective number of patients.
        greatest: float (columns,), the largest possible value of each mean.
        replicates: number of bootstrap replicates.
        seed: of the random draws.
    """
    if not len(losses):
        return [Figure(None, None, None)] * losses.shape[1]
    sizes = np.bincount(clusters).astype(np.float64)
    sums = np.stack([np.bincount(clusters, column) for column in (losses / greatest).T], axis=1)
    statistics = _studentised(sums, sizes, replicates, seed)
    return [
        _figure(sums[:, i], sizes, statistics[:, i], support, float(most)) for i, most in enumerate(greatest.tolist())
    ]


def _figure(sums: np.ndarray, sizes: np.ndarray, statistics: np.ndarray, support: float, most: float) -> Figure:
    share = float(sums.sum() / sizes.sum())
    ended = at_end(share, (0.0, 1.0))
    if len(sizes) < 2 or ended:
        return around(share * most, math.nan, support if ended else 1, (0.0, most))
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    error = math.sqrt((len(sizes) - 1) * float(without.var()))
    rows = (sums - share * sizes) / sizes.sum()
    few = max(FEWEST_BEHIND, behind_variance(rows, np.arange(len(sizes))))
    plain = around(share * most, error * most, min(support, few), (0.0, most))
    finite = statistics[np.isfinite(statistics)]
    if plain.low is None or plain.high is None or len(finite) < len(statistics) * (1 + LEVEL) / 2 or not len(finite):
        return plain
    tails = np.quantile(finite, [(1 + LEVEL) / 2, (1 - LEVEL) / 2])
    limits = math.log(share / (1 - share)) - tails * error / (share * (1 - share))
    low, high = (most * 0.5 * (1 + math.tanh(limit / 2)) for limit in limits)
    value = share * most
    return Figure(value, min(low, plain.low, value), max(high, plain.high, value))


def _studentised(sums: np.ndarray, sizes: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Return the distance of each replicate's means from the overall ones, on the logit scale, in units of its own
    standard error.

    (replicates, columns), NaN where a replicate has none.
    """
    patients = len(sizes)
    overall = sums.sum(axis=0) / sizes.sum()
    found = [np.empty((0, sums.shape[1]))]
    for counts in draws(patients, replicates, seed):
        rows, square_rows = (counts @ sizes)[:, None], (counts @ sizes**2)[:, None]
        mean = counts @ sums / rows
        products = counts @ (sums * sizes[:, None])
        variance = np.maximum(counts @ sums**2 - 2 * mean * products + mean**2 * square_rows, 0) / rows**2
        scale = np.sqrt(variance * patients / max(patients - 1, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.log(mean / (1 - mean)) - np.log(overall / (1 - overall))
            found.append(np.where(scale > 1e-12, distance * mean * (1 - mean) / scale, np.nan))
    return np.concatenate(found)
