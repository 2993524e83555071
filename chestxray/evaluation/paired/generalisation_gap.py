"""Generalisation gap: a figure on internal rows minus that on external ones, with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from chestxray.errors import DataError
from chestxray.evaluation.class_means import freedoms
from chestxray.evaluation.evaluate import Evaluation
from chestxray.evaluation.intervals import LEVEL, Figure, around, at_end
from chestxray.evaluation.paired.comparison import check_metric
from chestxray.evaluation.paired.subgroup_gaps import p_of
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.support import behind, supports


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


@dataclass(frozen=True)
class Area:
    """An AUROC with its 95% interval, its effective number of patients, and the ``freedom`` of its standard error."""

    figure: Figure
    support: float
    freedom: float

    @classmethod
    def of(cls, figure: Figure, table: Predictions) -> Area:
        """Return the AUROC `figure` of the second class of `table`."""
        truth, predicted, clusters = table.truth, table.predicted, table.clusters
        support = supports(truth, predicted, clusters, 2, 1)
        freedom = freedoms(support, behind(truth, predicted, table.probabilities, clusters))
        return cls(figure, support[1, "auroc"], freedom[1, "auroc"])

    def distance(self, level: float, side: int) -> float:
        """Return how far its interval of a confidence `level` reaches below the value (-1) or above it (1)."""
        value, end = self.figure.value, self.figure.low if side < 0 else self.figure.high
        assert value is not None and end is not None
        if at_end(value, (0.0, 1.0)):
            limits = around(value, math.nan, self.support, level=level)
            end = limits.low if side < 0 else limits.high
            assert end is not None
            return abs(value - end)
        # On the logit scale the interval is Student's t times a standard error.
        wider = stats.t.ppf((1 + level) / 2, self.freedom) / stats.t.ppf((1 + LEVEL) / 2, self.freedom)
        return abs(value - _expit(_logit(value) + wider * (_logit(end) - _logit(value))))


def p_value(first: Area, second: Area) -> float | None:
    """Return the two-sided p of no difference between two areas of different patients, None without their intervals.

    It is below 0.05 where the interval of `between` excludes 0.
    """
    figures = first.figure, second.figure
    if any(part is None for figure in figures for part in (figure.value, figure.low, figure.high)):
        return None
    assert figures[0].value is not None and figures[1].value is not None

    def reach(level: float, side: int) -> float:
        return math.hypot(first.distance(level, side), second.distance(level, -side))

    return p_of(figures[0].value - figures[1].value, reach)


def _logit(share: float) -> float:
    share = min(max(share, 1e-15), 1 - 1e-15)
    return math.log(share / (1 - share))


def _expit(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def _aside(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other))


def _present(evaluation: Evaluation) -> set[str]:
    return {name for name, row in zip(evaluation.classes, evaluation.counts, strict=True) if sum(row)}
