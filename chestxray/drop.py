"""Two evaluations on different rows -> Figure: how much less a figure is on the second."""

from __future__ import annotations

import math

from chestxray.comparison import check_metric
from chestxray.errors import DataError
from chestxray.evaluation import Evaluation
from chestxray.intervals import Figure


def difference(internal: Evaluation, external: Evaluation, metric: str = "auroc") -> Figure:
    """How much less a figure is on external rows than on internal ones, with a 95% interval.

    The rows are of different patients, so that the two bootstraps are independent and their intervals
    can be put together (MOVER; Zou and Donner 2008). Above 0 where the external value is lower. A mean
    over classes cannot be compared where other classes have rows: all parts are None then.

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
    here, there = internal.test[metric], external.test[metric]
    averaged = metric in ("balanced_accuracy", "f1_macro") or (
        internal.positive is None and metric not in ("accuracy", "mcc", "brier", "ece")
    )
    if here.value is None or there.value is None or (averaged and _present(internal) != _present(external)):
        return Figure(None, None, None)
    value = here.value - there.value
    if here.low is None or here.high is None or there.low is None or there.high is None:
        return Figure(value, None, None)
    below = math.hypot(here.value - here.low, there.high - there.value)
    above = math.hypot(here.high - here.value, there.value - there.low)
    return Figure(value, value - below, value + above)


def _present(evaluation: Evaluation) -> set[str]:
    return {name for name, row in zip(evaluation.classes, evaluation.counts, strict=True) if sum(row)}
