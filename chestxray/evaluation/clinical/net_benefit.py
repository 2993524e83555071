"""Net benefit of acting on a model's answers, compared with acting on every patient and on none.

A threshold probability sets how many unnecessary actions are as bad as one missed finding. Net benefit is
true positives minus false positives weighted by that ratio, per image (Vickers and Elkin 2006). Its
interval combines those of prevalence, sensitivity and specificity, which are figures of different rows
(MOVER; Zou and Donner 2008): a bootstrap of the net benefit itself would give a model without errors an
interval of width 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chestxray.evaluation.bootstrap import resamples
from chestxray.evaluation.intervals import Figure, logit_t
from chestxray.evaluation.support import effective
from chestxray.evaluation.weighted_metrics import ratio

#: Threshold probabilities of a curve.
GRID = np.round(np.arange(0.01, 1.0, 0.01), 2)


@dataclass(frozen=True)
class Point:
    """Net benefit at one threshold probability: of the ``model``, of acting on ``everyone`` (acting on no one has
    0), and the model's minus the better of these two (``gain``).
    """

    threshold: float
    model: Figure
    everyone: Figure
    gain: Figure


def curve(
    probability: np.ndarray,
    positive: np.ndarray,
    clusters: np.ndarray,
    *,
    prevalence: float | None = None,
    thresholds: np.ndarray = GRID,
    replicates: int = 2000,
    seed: int = 0,
) -> list[Point]:
    """Return the decision curve: a point for each of `thresholds`, above 0 and below 1.

    `probability` float (rows,): the model acts at and above the threshold; `positive` bool (rows,) with
    rows of both kinds; `clusters` codes of the patients, int (rows,). `prevalence` is an assumed one,
    without uncertainty; default: that of the rows.
    """
    called = probability[:, None] >= thresholds
    found, passed, share = _proportions(called, positive, clusters, replicates, seed)
    if prevalence is not None:
        share = Figure(prevalence, prevalence, prevalence)
    return [
        _point(float(threshold), Parts(share, found[i], passed[i])) for i, threshold in enumerate(thresholds.tolist())
    ]


@dataclass(frozen=True)
class Parts:
    """Prevalence, sensitivity and specificity with their intervals: net benefit is a function of these."""

    prevalence: Figure
    sensitivity: Figure
    specificity: Figure

    def figure(self, of: Callable[..., float]) -> Figure:
        """Return a function of the three that is monotone in each, with its interval."""
        parts = (self.prevalence, self.sensitivity, self.specificity)
        at = [part.value for part in parts]
        if any(value is None for value in at):
            return Figure(None, None, None)
        values = [float(value) for value in at if value is not None]
        value = of(*values)
        below = above = 0.0
        for place, part in enumerate(parts):
            moved = []
            for end in (part.low, part.high):
                if end is None:
                    return Figure(value, None, None)
                moved.append(of(*values[:place], end, *values[place + 1 :]) - value)
            below += min(0.0, *moved) ** 2
            above += max(0.0, *moved) ** 2
        return Figure(value, value - math.sqrt(below), value + math.sqrt(above))


def _point(threshold: float, parts: Parts) -> Point:
    exchange = threshold / (1 - threshold)

    def model(prevalence: float, sensitivity: float, specificity: float) -> float:
        return prevalence * sensitivity - (1 - prevalence) * (1 - specificity) * exchange

    def everyone(prevalence: float, *_: float) -> float:
        return prevalence - (1 - prevalence) * exchange

    def beside(prevalence: float, sensitivity: float, specificity: float) -> float:
        return model(prevalence, sensitivity, specificity) - everyone(prevalence)

    all_ = parts.figure(everyone)
    best = beside if all_.value is not None and all_.value > 0 else model
    return Point(threshold, parts.figure(model), all_, parts.figure(best))


def useful(points: list[Point]) -> tuple[float, float] | None:
    """Return the ends of the longest range of threshold probabilities at which the whole interval of the gain is
    above 0; None where there is none.
    """
    runs: list[list[float]] = [[]]
    for point in points:
        if point.gain.low is not None and point.gain.low > 0:
            runs[-1].append(point.threshold)
        elif runs[-1]:
            runs.append([])
    longest = max(runs, key=len)
    return (longest[0], longest[-1]) if longest else None


def _proportions(
    called: np.ndarray, positive: np.ndarray, clusters: np.ndarray, replicates: int, seed: int
) -> tuple[list[Figure], list[Figure], Figure]:
    """Return sensitivity and specificity at each column of `called`, bool (rows, thresholds), and the prevalence."""
    codes = np.unique(clusters, return_inverse=True)[1]
    hits, rejections = (called & positive[:, None]).astype(np.float64), (~called & ~positive[:, None]).astype(float)
    blocks = []
    for weights in resamples(codes, replicates, seed):
        ours, others = weights @ positive, weights @ ~positive
        blocks.append(
            (
                ratio(weights @ hits, ours[:, None]),
                ratio(weights @ rejections, others[:, None]),
                ratio(ours, ours + others),
            )
        )
    found, passed, share = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    own, rest = effective(codes[positive]), effective(codes[~positive])
    sensitivity, specificity = hits.sum(axis=0) / positive.sum(), rejections.sum(axis=0) / (~positive).sum()
    return (
        [logit_t(float(value), found[:, i], own) for i, value in enumerate(sensitivity)],
        [logit_t(float(value), passed[:, i], rest) for i, value in enumerate(specificity)],
        logit_t(float(positive.mean()), share, effective(codes)),
    )
