"""Intervals of figures from bootstrap replicates, and of means over classes from the intervals of each class.

The uncertainty of a mean over classes comes mostly from the classes with few patients, and neither of two simple
methods shows it. By the bootstrap alone, a rare class whose images are all classified correctly has no variance and
counts as certain; with the degrees of freedom of the rarest class, every class counts as uncertain as that one.
Here the variance is that of the class figures together; a class at the end of its range, or with few patients, adds
the width of its own interval (MOVER; Zou and Donner 2008); and the degrees of freedom are those of Satterthwaite
(1946), in which each class counts by its part of the variance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from chestxray.evaluation.intervals import (
    LEVEL,
    Figure,
    around,
    at_end,
    satterthwaite,
    satterthwaite_of_sum,
    standard_error,
)
from chestxray.evaluation.weighted_metrics import LOSSES, Key, matthews

#: With fewer patients than this, the interval of a class is used in place of its bootstrap standard error.
FEW = 10
#: Mean over classes -> the figure of single classes that it averages.
_ALWAYS = {"balanced_accuracy": "sensitivity", "f1_macro": "f1"}
_SHARES = ("accuracy", "sensitivity", "specificity", "precision", "auroc")
_OF_MANY = {name: name for name in ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc")}


def figures(
    values: Mapping[Key, float],
    replicates: Mapping[Key, np.ndarray],
    support: Mapping[Key, float],
    behind: Mapping[Key, float],
    counts: np.ndarray,
    positive: int | None,
) -> dict[Key, Figure]:
    """Return every figure but the losses with its 95% interval.

    Args:
        values: the figures on the rows themselves, NaN for one that cannot be computed.
        replicates: float (replicates,) of each, NaN where it cannot be computed.
        support: effective number of patients of each figure, see `support.supports`.
        behind: for some figures, the effective number of patients behind their variance, see `support.behind`.
        counts: the confusion matrix (classes, classes), true classes in rows.
        positive: number of the positive class, None for means over the classes that have rows.
    """
    freedom = freedoms(support, behind)
    found = {
        key: _alone(key, value, replicates.get(key, np.empty(0)), support[key], freedom[key])
        for key, value in values.items()
        if key[1] not in LOSSES
    }
    if positive is not None:
        found |= {(None, name): found[positive, name] for name in _OF_MANY}
    present = [k for k, row in enumerate(counts) if row.sum() > 0]
    for name, part in (_ALWAYS | ({} if positive is not None else _OF_MANY)).items():
        keys = [(k, part) for k in present]
        if present and math.isfinite(values[None, name]):
            found[None, name] = mean(values[None, name], keys, found, replicates, support, freedom)
    if math.isfinite(values[None, "mcc"]):
        found[None, "mcc"] = _correlation(values[None, "mcc"], counts, present, found, replicates, support)
    return found


def freedoms(support: Mapping[Key, float], behind: Mapping[Key, float]) -> dict[Key, float]:
    """Return the degrees of freedom of the standard error of each figure; arguments as of `figures`."""
    return {key: min(size, behind.get(key, math.inf)) - 1 for key, size in support.items()}


def _alone(key: Key, value: float, replicates: np.ndarray, support: float, freedom: float) -> Figure:
    """Return the interval of a figure that is not a mean over classes."""
    if at_end(value, _span(key)):
        return around(value, math.nan, support, _span(key))
    figure = around(value, standard_error(np.asarray(replicates), support), freedom + 1, _span(key))
    return _no_wider_than_exact(figure, support) if key[1] in _SHARES else figure


def _no_wider_than_exact(figure: Figure, support: float) -> Figure:
    """Return the part of an interval within that of Clopper and Pearson (1934) for `support` patients.

    A proportion of the images of that many patients, or an AUROC with that many patients in the smaller class
    (Birnbaum and Klose 1957), varies at most as much as a proportion of that many independent images.
    """
    value = figure.value
    if value is None or figure.low is None or figure.high is None:
        return figure
    hits, tail = value * support, (1 - LEVEL) / 2
    low = float(stats.beta.ppf(tail, hits, support - hits + 1))
    high = float(stats.beta.ppf(1 - tail, hits + 1, support - hits))
    return Figure(value, min(value, max(figure.low, low)), max(value, min(figure.high, high)))


def _span(key: Key) -> tuple[float, float]:
    return (-1.0 if key[1] == "mcc" else 0.0), 1.0


def mean(
    value: float,
    keys: Sequence[Key],
    found: Mapping[Key, Figure],
    replicates: Mapping[Key, np.ndarray],
    support: Mapping[Key, float],
    freedom: Mapping[Key, float],
    *,
    of_same_rows: bool = False,
    span: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """Return `value`, the mean of the figures `keys`, with its interval; a class never predicted has precision 0.

    The other arguments are those of `figures`, and ``freedom`` the degrees of freedom of each. `of_same_rows` says
    that each figure is of all rows, as of findings, so that their variances are correlated; those of classes have rows
    of their own. `span` has the least and greatest possible value.
    """
    none = Figure(span[0], *span)
    left_open = [_left_open(found[key] if found[key].value is not None else none, support[key], span) for key in keys]
    estimated = [key for key, parts in zip(keys, left_open, strict=True) if parts is None]
    inflated = np.array([math.sqrt(support[key] / (support[key] - 1)) for key in estimated])
    covariance = _covariance([np.asarray(replicates[key]) for key in estimated]) * np.outer(inflated, inflated)
    error = math.sqrt(max(0.0, float(covariance.sum()))) / len(keys)
    own = [freedom[key] for key in estimated]
    together = satterthwaite_of_sum(covariance, own) if of_same_rows else satterthwaite(np.diag(covariance), own)
    below, above = (math.hypot(*(parts[side] for parts in left_open if parts is not None)) for side in (0, 1))
    return _added(value, error, together, (below / len(keys), above / len(keys)), span)


def _added(
    value: float, error: float, freedom: float, left_open: tuple[float, float], span: tuple[float, float]
) -> Figure:
    """Combine the bootstrap's standard error `error` with the widths that the bootstrap cannot show (MOVER)."""
    seen = around(value, error, freedom + 1, span) if error > 1e-9 else Figure(value, value, value)
    assert seen.low is not None and seen.high is not None
    below, above = math.hypot(value - seen.low, left_open[0]), math.hypot(seen.high - value, left_open[1])
    if not max(below, above) > 1e-12:
        return Figure(value, None, None)
    return Figure(value, max(span[0], value - below), min(span[1], value + above))


def _left_open(figure: Figure, support: float, span: tuple[float, float] = (0.0, 1.0)) -> tuple[float, float] | None:
    """Return how far the interval of a class reaches below and above its value, None where the bootstrap suffices.

    The bootstrap does not suffice for a figure at an end of its range or of few patients, nor for one without an
    interval, which reaches to both ends of the range.
    """
    assert figure.value is not None
    if figure.low is None or figure.high is None:
        return figure.value - span[0], span[1] - figure.value
    alone = support < FEW or at_end(figure.value, span)
    return (figure.value - figure.low, figure.high - figure.value) if alone else None


def _covariance(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return the covariance (columns, columns), for each pair over the replicates in which both are finite."""
    if not columns:
        return np.zeros((0, 0))
    table = np.stack(columns)
    finite = np.isfinite(table)
    centred = np.where(finite, table - np.nanmean(table, axis=1, keepdims=True), 0.0)
    both = finite.astype(np.float64) @ finite.T.astype(np.float64)
    return (centred @ centred.T) / np.maximum(both - 1, 1)


def _correlation(
    value: float,
    counts: np.ndarray,
    present: Sequence[int],
    found: Mapping[Key, Figure],
    replicates: Mapping[Key, np.ndarray],
    support: Mapping[Key, float],
) -> Figure:
    """Return the interval of Matthews's correlation, `value`, from that of each class's sensitivity.

    It is not a mean: each class contributes the change of the correlation when the sensitivity of the class changes.
    """
    key = (None, "mcc")
    error = standard_error(np.asarray(replicates.get(key, np.empty(0))), support[key])
    variances, freedoms = [], []
    below = above = 0.0
    for k in present:
        sensitivity = found[k, "sensitivity"]
        parts = _left_open(sensitivity, support[k, "sensitivity"])
        assert sensitivity.value is not None
        if parts is None:
            step = standard_error(np.asarray(replicates[k, "sensitivity"]), support[k, "sensitivity"])
            variances.append((value - _moved(counts, k, max(0.0, sensitivity.value - step))) ** 2)
            freedoms.append(support[k, "sensitivity"] - 1)
            continue
        for to in (sensitivity.value - parts[0], sensitivity.value + parts[1]):
            change = _moved(counts, k, to) - value
            below, above = math.hypot(below, min(change, 0.0)), math.hypot(above, max(change, 0.0))
    # Where it does not depend on any class's sensitivity, only the numbers of images by class vary.
    freedom = satterthwaite(variances, freedoms) if any(variances) else support[key] - 1
    return _added(value, error if error > 1e-12 else 0.0, freedom, (below, above), _span(key))


def _moved(counts: np.ndarray, k: int, sensitivity: float) -> float:
    """Return Matthews's correlation if class `k` had this sensitivity.

    Its errors keep their distribution over the classes; without errors, that of the other classes is used.
    """
    table = np.asarray(counts, dtype=np.float64).copy()
    own = table[k].sum()
    errors = np.delete(table[k], k)
    if not errors.sum():
        errors = np.delete(table.sum(axis=0) - table[k], k)
    if not errors.sum():
        errors = np.ones(len(table) - 1)
    table[k] = np.insert(errors / errors.sum() * (1 - sensitivity) * own, k, sensitivity * own)
    return float(matthews(table))
