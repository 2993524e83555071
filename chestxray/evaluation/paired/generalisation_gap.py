"""Two evaluations on different rows -> Figure: how much less a figure is on the second."""

from __future__ import annotations

import math

from chestxray.errors import DataError
from chestxray.evaluation.evaluate import Evaluation
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired.comparison import check_metric


def difference(internal: Evaluation, external: Evaluation, metric: str = "auroc") -> Figure:
    """How much less a figure is on external rows than on internal ones, with a 95% interval.

    The rows are of different patients, so that the two bootstraps are independent and their intervals can
    be put together, see `between`. Above 0 where the external value is lower. A mean over classes cannot be
    compared where other classes have rows: all parts are None then.

    Raises:
        InputError: an unknown metric.
        DataError: the evaluations know other classes, or speak of another positive class.
    """
    check_metric(metric)
    if set(internal.classes) != set(external.classes) or internal.positive != external.positive:
        raise DataError(
            "Evaluations with other classes or another positive class do not compare. Internal: "
            f"{', '.join(internal.classes)}, positive {internal.positive}. External: "
            f"{', '.join(external.classes)}, positive {external.positive}."
        )
    if averaged(metric, internal.positive) and _present(internal) != _present(external):
        return Figure(None, None, None)
    return between(internal.test[metric], external.test[metric])


def averaged(metric: str, positive: str | None) -> bool:
    """Is a figure the mean over the classes that have rows, so that it is another figure with others?"""
    return metric in ("balanced_accuracy", "f1_macro") or (
        positive is None and metric not in ("accuracy", "mcc", "brier", "ece")
    )


def between(first: Figure, second: Figure, correlation: float = 0.0) -> Figure:
    """The first figure minus the second, with their intervals put together (MOVER; Zou and Donner 2008).

    Figures that share patients have a `correlation` (Zou 2007), others none.
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
