"""The p-value function of a difference: p for every hypothetical size of the difference.

Interval and p are read off the same function (Poole 1987; Fraser 2019): the 95% interval is all sizes with
p of at least .05, the p of "no difference" is the function at 0, that of a margin the function at the margin.
An interval that excludes 0 beside a p above .05 is therefore impossible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy import optimize, stats

from chestxray.evaluation.intervals import LEVEL, Figure

ALPHA = 0.05


@dataclass(frozen=True)
class DifferenceTest:
    """The test ``name`` of an observed difference ``value``, NaN where it cannot be computed.

    ``curve`` gives the two-sided p of the hypothesis that the difference equals its argument; it
    falls on both sides of ``value``, where it is 1. None where the rows do not determine it.
    ``largest`` is the largest possible difference.
    """

    value: float
    name: str
    curve: Callable[[float], float] | None = None
    largest: float = 1.0

    @property
    def p(self) -> float | None:
        """Two-sided p of no difference; None where it cannot be computed; 1 for an observed difference of 0."""
        if self.curve is not None:
            return float(self.curve(0.0))
        return 1.0 if abs(self.value) < 1e-12 else None

    def figure(self, level: float = LEVEL) -> Figure:
        """Return the difference with its interval of confidence `level`, None for parts that cannot be computed."""
        if math.isnan(self.value):
            return Figure(None, None, None)
        if self.curve is None:
            return Figure(self.value, None, None)
        low, high = (self._limit(sign, 1 - level) for sign in (-1, 1))
        return Figure(self.value, low, high)

    def above(self, least: float) -> float | None:
        """Return the one-sided p of the hypothesis that the difference is `least` or less."""
        if self.curve is None:
            return None
        half = float(self.curve(least)) / 2
        return half if self.value > least else 1 - half

    def below(self, most: float) -> float | None:
        """Return the one-sided p of the hypothesis that the difference is `most` or more."""
        if self.curve is None:
            return None
        half = float(self.curve(most)) / 2
        return half if self.value < most else 1 - half

    def _limit(self, sign: int, alpha: float) -> float:
        def excess(distance: float) -> float:
            assert self.curve is not None
            return self.curve(self.value + sign * distance) - alpha

        room = self.largest - sign * self.value
        if excess(room) >= 0:
            return sign * self.largest
        return self.value + sign * float(optimize.brentq(excess, 0.0, room, xtol=1e-12))


def t_test(value: float, error: float, freedom: float, name: str, largest: float = 1.0) -> DifferenceTest:
    """Return Student's t test of a difference `value` with a standard `error` and its degrees of `freedom`.

    Without an error, or without degrees of freedom, the test has no p-value function.

    >>> round(t_test(0.05, 0.02, 20, "t").p, 4), round(t_test(0.05, 0.02, 20, "t").figure().low, 4)
    (0.0212, 0.0083)
    """
    if not (math.isfinite(value) and error > 1e-12 and freedom > 0):
        return DifferenceTest(value, name)

    def curve(size: float) -> float:
        return float(2 * stats.t.sf(abs(value - size) / error, freedom))

    return DifferenceTest(value, name, curve, largest)
