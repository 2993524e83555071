"""The mean of a loss over rows -> its interval, by the bootstrap-t clustered by patient.

A loss such as the squared error is skewed: most rows lose next to nothing, a few lose much, and a test
that happens to hold few of these has both too low a mean and too low a standard error. An interval
that is as wide on both sides then misses on one of them. The bootstrap-t (Efron 1979; Hall 1988) learns
the skewness from replicates, each measured by its own standard error.
"""

from __future__ import annotations

import math

import numpy as np

from chestxray.intervals import LEVEL, Figure, around, at_end


def mean_loss(
    losses: np.ndarray,
    clusters: np.ndarray,
    *,
    support: float,
    replicates: int,
    seed: int,
    span: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """The mean of `losses`, float (rows,), with its 95% interval, on the logit scale of `span`.

    The standard errors are those of the jackknife over patients. Where replicates have none, as hard
    zeros and ones make them, Student's t takes the place of theirs.

    Args:
        losses: within `span`.
        clusters: codes 0, 1, ... of the patients, int (rows,).
        support: patients that the mean rests on.
        replicates: number of bootstrap replicates.
        seed: fixes the draws.
        span: least and greatest value that the mean can take.
    """
    if not len(losses):
        return Figure(None, None, None)
    least, greatest = span
    patients = int(clusters.max()) + 1
    sizes = np.bincount(clusters).astype(np.float64)
    sums = np.bincount(clusters, (losses - least) / (greatest - least))
    value = float(losses.mean())
    if patients < 2 or at_end(value, span):
        return around(value, math.nan, support if at_end(value, span) else 1, span)
    share = float(sums.sum() / sizes.sum())
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    error = math.sqrt((patients - 1) * float(without.var()))
    plain = around(value, error * (greatest - least), support, span)
    statistics = _studentised(sums, sizes, share, replicates, seed)
    if plain.low is None or not len(statistics) or np.mean(~np.isfinite(statistics)) > (1 - LEVEL) / 2:
        return plain
    tails = np.quantile(statistics[np.isfinite(statistics)], [(1 + LEVEL) / 2, (1 - LEVEL) / 2])
    limits = math.log(share / (1 - share)) - tails * error / (share * (1 - share))
    low, high = (least + (greatest - least) * 0.5 * (1 + math.tanh(limit / 2)) for limit in limits)
    return Figure(value, min(low, value), max(high, value))


def _studentised(sums: np.ndarray, sizes: np.ndarray, share: float, replicates: int, seed: int) -> np.ndarray:
    """Distance on the logit scale of each replicate from `share`, in its own standard errors."""
    patients = len(sums)
    rng = np.random.default_rng(seed)
    moments = np.stack([sums, sizes, sums**2, sums * sizes, sizes**2], axis=1)
    block = max(1, 2**20 // patients)
    found = []
    for start in range(0, replicates, block):
        counts = rng.multinomial(patients, np.full(patients, 1 / patients), size=min(block, replicates - start))
        lost, rows, squares, products, square_rows = (counts @ moments).T
        mean = lost / rows
        variance = np.maximum(squares - 2 * mean * products + mean**2 * square_rows, 0) / rows**2
        scale = np.sqrt(variance * patients / (patients - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.log(mean / (1 - mean)) - math.log(share / (1 - share))
            found.append(np.where(scale > 1e-12, distance * mean * (1 - mean) / scale, np.nan))
    return np.concatenate(found) if found else np.empty(0)
