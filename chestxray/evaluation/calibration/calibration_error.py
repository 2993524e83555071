"""The expected calibration error, corrected for its bias, with an interval.

The absolute gap between stated probability and proportion of correct answers is never below 0, so that noise
adds to it: a perfectly calibrated model has an error of .08 on 200 images in 15 bins. A plain bootstrap
adds the noise a second time and centres on the bias. Here the noise is estimated separately and the figure
is corrected by inversion, as a test is inverted into an interval: the reported error is the true error under
which the observed plain error is the median; the limits are the true errors under which it is the 2.5% or
97.5% quantile, the upper one never below the plain error (for the bias and other
corrections Bröcker 2012; Kumar et al. 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from chestxray.evaluation.bootstrap import draws
from chestxray.evaluation.intervals import LEVEL, Figure
from chestxray.evaluation.weighted_metrics import ECE_BINS


@dataclass(frozen=True)
class CalibrationError:
    """``corrected`` with its interval; ``plain`` is the error as most programs print it. ``noise`` is the mean plain
    error of a perfectly calibrated model on as many images, ``noise_up_to`` its 95% quantile.
    """

    corrected: Figure
    plain: float | None
    noise: float | None
    noise_up_to: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields by their names, None for what cannot be computed."""
        return {
            "corrected": self.corrected.to_json(),
            "plain": self.plain,
            "noise": self.noise,
            "noise_up_to": self.noise_up_to,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> CalibrationError:
        """Return the object from what `to_json` gave."""
        rest = (None if fields[k] is None else float(fields[k]) for k in ("plain", "noise", "noise_up_to"))
        return cls(Figure.from_json(fields["corrected"]), *rest)


NOTHING = CalibrationError(Figure(None, None, None), None, None, None)


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, clusters: np.ndarray, *, replicates: int, seed: int
) -> CalibrationError:
    """Return the expected calibration error, corrected for the noise of as many images and patients.

    The bins are those of `weighted_metrics.Calibration.error`. Noise is drawn by patient from the residuals of
    each bin, and is in no bin smaller than that of independent answers with the stated probabilities. Without rows
    all fields of the result are None; with one patient all but ``plain`` are.

    Args:
        confidence: float (rows,), probability of the most probable class.
        right: bool (rows,), whether that class is the true one.
        clusters: codes 0, 1, ... of the patients, int (rows,).
        replicates: number of draws of the noise.
        seed: of the random draws.
    """
    if not len(right):
        return NOTHING
    membership = _membership(confidence)
    gaps = (right - confidence) @ membership / len(right)
    plain = min(1.0, float(np.abs(gaps).sum()))
    patients = len(np.unique(clusters))
    if patients < 2:
        return CalibrationError(Figure(None, None, None), plain, None, None)
    noise = _noise(confidence, right, clusters, membership, gaps, replicates, seed)
    alone = np.abs(noise).sum(axis=1)
    tails = (1 + LEVEL) / 2, 0.5, (1 - LEVEL) / 2
    low, value, high = (min(1.0, plain * _factor(gaps, noise, plain, tail)) for tail in tails)
    # Overestimated noise would put the upper limit below the observed error.
    found = Figure(value, min(low, value), max(high, value, plain))
    return CalibrationError(found, plain, float(alone.mean()), float(np.quantile(alone, 0.95)))


def _membership(confidence: np.ndarray) -> np.ndarray:
    """Return the part of each row in each of the bins of equal mass, (rows, bins), ties spread evenly."""
    order = np.argsort(confidence, kind="stable")
    ordered = confidence[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(ordered))
    starts = np.concatenate([[0], ends[:-1]])
    edges = np.linspace(0, len(ordered), ECE_BINS + 1)
    overlap = np.minimum(ends[:, None], edges[1:]) - np.maximum(starts[:, None], edges[:-1])
    membership = np.empty((len(ordered), ECE_BINS))
    membership[order] = np.repeat(np.maximum(overlap, 0) / (ends - starts)[:, None], ends - starts, axis=0)
    return membership


def _noise(
    confidence: np.ndarray,
    right: np.ndarray,
    clusters: np.ndarray,
    membership: np.ndarray,
    gaps: np.ndarray,
    replicates: int,
    seed: int,
) -> np.ndarray:
    """Return draws of the noise in the gap of each bin, (replicates, bins)."""
    codes = np.unique(clusters, return_inverse=True)[1]
    patients, rows = codes.max() + 1, len(right)
    residuals = membership * ((right - confidence)[:, None] - ECE_BINS * gaps) / rows
    by_patient, mass = np.zeros((patients, ECE_BINS)), np.zeros((patients, ECE_BINS))
    np.add.at(by_patient, codes, residuals)
    np.add.at(mass, codes, membership)
    inside = mass.sum(axis=0) ** 2 / (mass**2).sum(axis=0)
    seen = (by_patient**2).sum(axis=0) * inside / np.maximum(inside - 1, 0.5)
    least = (membership**2).T @ (confidence * (1 - confidence)) / rows**2
    wanted = np.sqrt(np.maximum(seen, least))
    support = float(np.bincount(codes).sum() ** 2 / (np.bincount(codes) ** 2).sum())
    wanted *= stats.t.ppf((1 + LEVEL) / 2, max(support - 1, 1)) / stats.norm.ppf((1 + LEVEL) / 2)
    drawn = np.concatenate([(counts - 1) @ by_patient for counts in draws(patients, replicates, seed)])
    spread = np.sqrt((by_patient**2).sum(axis=0))
    # A bin in which every answer is as stated has no residuals to draw from.
    drawn = np.where(
        spread > 1e-12, drawn / np.maximum(spread, 1e-12), np.random.default_rng(seed).normal(size=drawn.shape)
    )
    return drawn * wanted


def _factor(gaps: np.ndarray, noise: np.ndarray, plain: float, tail: float) -> float:
    """Return the factor by which the gaps must be multiplied for `plain` to be the quantile `tail` of the error."""

    def quantile(factor: float) -> float:
        return float(np.quantile(np.abs(factor * gaps + noise).sum(axis=1), tail))

    if plain <= 1e-12 or quantile(0.0) >= plain:
        return 0.0
    low, high = 0.0, 1.0
    while quantile(high) < plain:
        low, high = high, 2 * high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if quantile(middle) < plain else (low, middle)
    return (low + high) / 2
