"""The checks of a `MetricPlugin`, on drawn predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from chestxray.testing.method_checks import Method, check_fields, check_import, check_metadata, check_name
from chestxray.testing.results import Check, CheckFailed

ROWS, REPLICATES = 60, 7


def check_values(method: Method) -> None:
    """`compute` returns a finite number within the bounds for each replicate, and leaves its arguments as they are."""
    low, high = method.plugin.bounds
    for truth, probability in _tables(method):
        for replicates in (1, REPLICATES):
            values = _values(method, truth, probability, _weights(replicates))
            if not np.isfinite(values).all():
                raise CheckFailed(f"compute must return finite numbers of rows of all classes. Received: {values}")
            if values.min() < low - 1e-9 or values.max() > high + 1e-9:
                raise CheckFailed(
                    f"compute must keep the bounds {low:g} to {high:g}. Received: {values.min():g} to {values.max():g}",
                    "state the least and the greatest possible value in bounds",
                )


def check_weights(method: Method) -> None:
    """A row of weight 2 counts as if it stood there twice, one of weight 0 as if it were not there."""
    for truth, probability in _tables(method):
        weights = _weights(REPLICATES)
        values = _values(method, truth, probability, weights)
        for one, value in zip(weights, values, strict=True):
            places = np.repeat(np.arange(len(truth)), one.astype(int))
            plain = _values(method, truth[places], probability[places], np.ones((1, len(places))))[0]
            if not np.isclose(value, plain, rtol=1e-6, atol=1e-9):
                raise CheckFailed(
                    f"with weights the figure is {value:.6g}, with rows repeated as often {plain:.6g}",
                    "weights is (replicates, rows): each replicate has a number for each row",
                )


def check_order(method: Method) -> None:
    """The order of the patients does not matter."""
    for truth, probability in _tables(method):
        weights = _weights(REPLICATES)
        places = np.random.default_rng(1).permutation(len(truth))
        before = _values(method, truth, probability, weights)
        after = _values(method, truth[places], probability[places], weights[:, places])
        if not np.allclose(before, after, rtol=1e-6, atol=1e-9):
            raise CheckFailed(f"in another order of the rows the figure is {after[0]:.6g} instead of {before[0]:.6g}")


def check_direction(method: Method) -> None:
    """Perfect answers are better than reversed ones, as `higher_is_better` says."""
    for truth, probability in _tables(method):
        once = np.ones((1, len(truth)))
        if probability.ndim == 1:
            right = np.where(truth, 0.9, 0.1)
        else:
            others = 0.1 / (probability.shape[1] - 1)
            right = np.where(np.eye(probability.shape[1], dtype=bool)[truth], 0.9, others)
        reversed_ = 1 - right if right.ndim == 1 else np.roll(right, 1, axis=1)
        best, worst = (float(_values(method, truth, answers, once)[0]) for answers in (right, reversed_))
        better = best > worst if method.plugin.higher_is_better else best < worst
        if not better:
            raise CheckFailed(
                f"perfect answers have {best:.6g} and reversed ones {worst:.6g}, though higher_is_better is "
                f"{method.plugin.higher_is_better}"
            )


def check_one_class(method: Method) -> None:
    """Where all rows are of one class the figure is NaN or within the bounds, without an error."""
    for truth, probability in _tables(method):
        for value in (0, 1):
            found = _values(method, np.full_like(truth, value), probability, _weights(REPLICATES))
            low, high = method.plugin.bounds
            if ((found < low - 1e-9) | (found > high + 1e-9)).any():
                raise CheckFailed(
                    f"of one class alone the figure is {found[0]:g}, beyond the bounds",
                    "return NaN where it cannot be computed",
                )


METRIC_CHECKS = (
    Check(check_fields),
    Check(check_metadata),
    Check(check_name),
    Check(check_values, needs=("fields",)),
    Check(check_weights, needs=("values",)),
    Check(check_order, needs=("values",)),
    Check(check_direction, needs=("order",)),
    Check(check_one_class, needs=("values",)),
    Check(check_import),
)


def _tables(method: Method) -> Iterator[tuple[Any, Any]]:
    """Yield truth and probability of drawn predictions, as `compute` gets them, without and with equal scores."""
    rng = np.random.default_rng(0)
    for classes in (2, 3):
        truth = rng.integers(0, classes, ROWS)
        truth[:classes] = np.arange(classes)
        logits = rng.normal(size=(ROWS, classes)) + 0.7 * np.eye(classes)[truth]
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        if method.plugin.per == "set":
            yield truth, probability
        else:
            yield truth == 1, probability[:, 1].round(classes - 1)


def _weights(replicates: int) -> Any:
    weights = np.random.default_rng(2).integers(0, 3, (replicates, ROWS)).astype(np.float64)
    weights[:, :3] = 1  # every class is in every replicate
    return weights


def _values(method: Method, truth: Any, probability: Any, weights: Any) -> Any:
    given = [np.array(part) for part in (truth, probability, weights)]
    for part in given:
        part.flags.writeable = False
    found = np.asarray(method.function(*given), dtype=np.float64)
    if found.shape != (len(weights),):
        raise CheckFailed(
            f"compute must return (replicates,), here {(len(weights),)}. Received: {found.shape}",
            "weights has a row for each replicate",
        )
    return found
