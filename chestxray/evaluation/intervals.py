"""A figure and its interval, from the replicates of a bootstrap clustered by patient.

Percentile intervals cover too seldom for figures near 1, few positive patients and several images a
patient (``benchmarks/coverage.md`` compares them). The interval here is symmetric on the logit scale, which
keeps it within the range of the figure and makes it longer towards the middle; its width is the bootstrap's
standard error times Student's t for the effective number of patients
(Hesterberg 2015 for the correction of a bootstrap of few units).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
METHOD = "logit-t bootstrap clustered by patient"


@dataclass(frozen=True)
class Figure:
    """A value with its interval; None for a part that cannot be computed."""

    value: float | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return ``{"value": ..., "low": ..., "high": ...}``, None for what cannot be computed."""
        return {"value": self.value, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Figure:
        """Return the figure from what `to_json` gave."""
        return cls(*(None if fields[k] is None else float(fields[k]) for k in ("value", "low", "high")))


@dataclass(frozen=True)
class Interval:
    """Level, method and number of replicates of the intervals of an evaluation."""

    level: float = LEVEL
    method: str = METHOD
    replicates: int = 2000


def standard_error(replicates: np.ndarray, support: float) -> float:
    """Return the standard error from bootstrap `replicates`, float (replicates,), without NaN; NaN if undefined.

    `support` is the number of patients drawn, m: drawing m patients understates the variance by (m - 1) / m.
    """
    finite = replicates[np.isfinite(replicates)]
    if len(finite) < 2 or support <= 1:
        return math.nan
    return float(finite.std(ddof=1)) * math.sqrt(support / (support - 1))


def logit_t(value: float, replicates: np.ndarray, support: float, span: tuple[float, float] = (0.0, 1.0)) -> Figure:
    """Return `value` with its 95% interval.

    Args:
        value: the figure on the rows themselves; NaN where it cannot be computed.
        replicates: float (replicates,), the figure in each bootstrap replicate, NaN where it cannot be computed.
        support: effective number of patients of the figure; for a sensitivity, of those with an image of the class.
        span: least and greatest possible value of the figure.

    At an end of the span no replicate differs from the value; the limit is then that of Clopper and
    Pearson (1934) for `support` successes out of as many patients. Elsewhere, a figure of one patient, or one that
    is the same in all replicates, has no interval.

    >>> round(logit_t(1.0, np.ones(100), support=20).low, 3)
    0.832
    """
    return around(value, standard_error(replicates, support), support, span)


def around(
    value: float, error: float, support: float, span: tuple[float, float] = (0.0, 1.0), level: float = LEVEL
) -> Figure:
    """Return `value` with its interval of confidence `level` from its standard `error`; otherwise as `logit_t`."""
    if not math.isfinite(value) or support < 1:
        return Figure(None, None, None)
    least, greatest = span
    if at_end(value, span):
        # scipy's binomtest has this limit for whole numbers of patients alone; effective numbers are fractions.
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
    """Return the degrees of freedom of a sum of independent `variances` (Satterthwaite 1946; Welch 1947).

    Terms of variance 0 are left out. Returns 0 where none is left, or where one that is left has 0 degrees.

    >>> satterthwaite([1.0, 1.0], [9, 9]), round(satterthwaite([1.0, 0.1], [9, 99]), 1)
    (18.0, 10.9)
    """
    known = [(float(v), freedom) for v, freedom in zip(variances, freedoms, strict=True) if v > 0]
    if not known or min(freedom for _, freedom in known) <= 0:
        return 0.0
    return sum(v for v, _ in known) ** 2 / sum(v**2 / freedom for v, freedom in known)


def satterthwaite_of_sum(covariance: np.ndarray, freedoms: Sequence[float]) -> float:
    """Return the degrees of freedom of the variance of a sum whose terms have this estimated `covariance`.

    Each term counts by its part of the variance of the sum; variances of terms that are correlated by r are
    correlated by r squared. It is `satterthwaite` without correlation, and the freedom of one term where all are the
    same. Returns 0 where nothing varies, or where a term that does has 0 degrees.

    >>> both = np.array([[1.0, 1.0], [1.0, 1.0]])
    >>> satterthwaite_of_sum(both, [9, 9]), satterthwaite_of_sum(np.eye(2), [9, 9])
    (9.0, 18.0)
    """
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    varying = errors > 0
    freedom = np.asarray(freedoms, dtype=np.float64)[varying]
    if not varying.any() or freedom.min() <= 0:
        return 0.0
    table, errors = covariance[np.ix_(varying, varying)], errors[varying]
    parts = np.abs(table.sum(axis=1))
    uncertain = np.outer(parts, parts) * (table / np.outer(errors, errors)) ** 2 / np.sqrt(np.outer(freedom, freedom))
    return float(parts.sum() ** 2 / uncertain.sum()) if uncertain.sum() > 0 else 0.0


def at_end(value: float, span: tuple[float, float]) -> bool:
    """Return whether `value` is the least or greatest possible value of the figure."""
    least, greatest = span
    return min(value - least, greatest - value) <= 1e-12 * (greatest - least)


def _expit(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))
