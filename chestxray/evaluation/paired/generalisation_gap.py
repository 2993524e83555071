"""Generalisation gap: a figure on internal rows minus that on external ones, with an interval."""

from __future__ import annotations

import math

from chestxray.errors import DataError
from chestxray.evaluation.evaluate import Evaluation
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired.comparison import check_metric


def difference(internal: Evaluation, external: Evaluation, metric: str = "auroc") -> Figure:
    """Return the internal minus the external value of a figure, with a 95% interval; above 0: lower on external rows.

    The rows have different patients, so that the two bootstraps are independent and their intervals can be
    combined, see `between`. A mean over classes cannot be compared where the classes with rows differ: all parts are
    None then.

    Raises:
        InputError: an unknown metric.
        DataError: the evaluations have different classes, or different positive classes.
    """
    check_metric(metric)
    if set(internal.classes) != set(external.classes) or internal.positive != external.positive:
        raise DataError(
            "Evaluations with different classes or positive classes cannot be compared. Internal: "
            f"{', '.join(internal.classes)}, positive {internal.positive}. External: "
            f"{', '.join(external.classes)}, positive {external.positive}."
        )
    if averaged(metric, internal.positive) and _present(internal) != _present(external):
        return Figure(None, None, None)
    return between(internal.test[metric], external.test[metric])


def averaged(metric: str, positive: str | None) -> bool:
    """Return whether a figure is a mean over the classes that have rows."""
    return metric in ("balanced_accuracy", "f1_macro") or (
        positive is None and metric not in ("accuracy", "mcc", "brier", "ece")
    )


def between(first: Figure, second: Figure, correlation: float = 0.0) -> Figure:
    """Return the first figure minus the second, with their intervals combined (MOVER; Zou and Donner 2008).

    `correlation` is that of the figures, for tests that share patients (Zou 2007).
    """
    if first.value is None or second.value is None:
        return Figure(None, None, None)
    value = first.value - second.value
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Figure(value, None, None)
    below = _aside(first.value - first.low, second.high - second.value, correlation)
    above = _aside(first.high - first.value, second.value - second.low, correlation)
    return Figure(value, value - below, value + above)


def _aside(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other))


def _present(evaluation: Evaluation) -> set[str]:
    return {name for name, row in zip(evaluation.classes, evaluation.counts, strict=True) if sum(row)}
