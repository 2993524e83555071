"""A figure and its interval, from the replicates of a clustered bootstrap.

Plain percentile intervals cover too seldom where the field needs them most: figures near 1, few
positive patients, several images a patient (``benchmarks/coverage.md`` has both). The interval here
is symmetric on the logit scale, which keeps it within the range of the figure and lets it lean away
from the end; its width is the bootstrap's standard error with Student's t for the number of patients
that the figure rests on (Hesterberg 2015 for the correction of a bootstrap of few units).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
METHOD = "logit-t bootstrap clustered by patient"


@dataclass(frozen=True)
class Figure:
    """A value with its interval; None where one of them cannot be had."""

    value: float | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """``{"value": ..., "low": ..., "high": ...}``, None for what cannot be had."""
        return {"value": self.value, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Figure:
        """What `to_json` gave."""
        return cls(*(None if fields[k] is None else float(fields[k]) for k in ("value", "low", "high")))


@dataclass(frozen=True)
class Interval:
    """How the intervals were made."""

    level: float = LEVEL
    method: str = METHOD
    replicates: int = 2000


def standard_error(replicates: np.ndarray, support: float) -> float:
    """Standard error from bootstrap `replicates`, of which NaN are left out; NaN if there is none.

    `support` is the number of patients drawn; drawing m patients understates the variance by (m-1)/m.
    """
    finite = replicates[np.isfinite(replicates)]
    if len(finite) < 2 or support <= 1:
        return math.nan
    return float(finite.std(ddof=1)) * math.sqrt(support / (support - 1))


def logit_t(value: float, replicates: np.ndarray, support: float, span: tuple[float, float] = (0.0, 1.0)) -> Figure:
    """`value` with its 95% interval.

    Args:
        value: the figure on the rows themselves; NaN where it cannot be had.
        replicates: float (replicates,), the figure in each bootstrap replicate, NaN where it had none.
        support: patients that the figure rests on, for a sensitivity those with an image of the class;
            their effective number where they have unlike numbers of images.
        span: least and greatest value that the figure can take.

    At an end of the span no replicate differs from the value; the limit is then that of Clopper and
    Pearson (1934) for as many successes as there are patients, since a perfect score on few patients is
    not a sure one. Elsewhere, a figure that rests on one patient, or is the same in all replicates, has
    no interval.

    >>> round(logit_t(1.0, np.ones(100), support=20).low, 3)
    0.832
    """
    return around(value, standard_error(replicates, support), support, span)


def around(
    value: float, error: float, support: float, span: tuple[float, float] = (0.0, 1.0), level: float = LEVEL
) -> Figure:
    """`value` with its interval of confidence `level`, from its standard `error`; else as `logit_t`."""
    if not math.isfinite(value) or support < 1:
        return Figure(None, None, None)
    least, greatest = span
    if at_end(value, span):
        width = (greatest - least) * (1 - ((1 - level) / 2) ** (1 / support))
        low, high = (greatest - width, greatest) if value > (least + greatest) / 2 else (least, least + width)
        return Figure(value, min(low, value), max(high, value))
    if not support > 1:
        return Figure(value, None, None)
    error /= greatest - least
    if not error > 1e-12:
        return Figure(value, None, None)
    share = (value - least) / (greatest - least)
    middle = math.log(share / (1 - share))
    half = float(stats.t.ppf((1 + level) / 2, support - 1)) * error / (share * (1 - share))
    low, high = (least + (greatest - least) * _expit(middle + sign * half) for sign in (-1, 1))
    return Figure(value, min(low, value), max(high, value))


def satterthwaite(variances: Iterable[float], freedoms: Iterable[float]) -> float:
    """Degrees of freedom of a sum of independent `variances`, each with its own (Satterthwaite 1946; Welch 1947).

    Those of variance 0 do not count; 0 where one that counts has none itself, or none counts.

    >>> satterthwaite([1.0, 1.0], [9, 9]), round(satterthwaite([1.0, 0.1], [9, 99]), 1)
    (18.0, 10.9)
    """
    known = [(float(v), freedom) for v, freedom in zip(variances, freedoms, strict=True) if v > 0]
    if not known or min(freedom for _, freedom in known) <= 0:
        return 0.0
    return sum(v for v, _ in known) ** 2 / sum(v**2 / freedom for v, freedom in known)


def at_end(value: float, span: tuple[float, float]) -> bool:
    """Is `value` the least or greatest that the figure can take?"""
    least, greatest = span
    return min(value - least, greatest - value) <= 1e-12 * (greatest - least)


def _expit(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))
