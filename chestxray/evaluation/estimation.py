"""Every figure of a test with its interval, each by the method that keeps its nominal coverage.

Proportions, areas under curves and functions of them have logit-t intervals (`intervals`); means over classes
and Matthews's correlation combine the intervals of their classes (`class_means`); the Brier score has the
bootstrap-t (`bootstrap_t`); the expected calibration error is corrected for its bias (`calibration_error`).
`benchmarks/coverage.md` has the measured coverage of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chestxray.evaluation import class_means
from chestxray.evaluation.bootstrap_t import mean_losses
from chestxray.evaluation.calibration.calibration_error import CalibrationError, calibration_error
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.support import behind, effective, supports
from chestxray.evaluation.weighted_metrics import Key, squared_errors


@dataclass(frozen=True)
class Scored:
    """The rows of a test with the predictions and figures of one training of a model.

    ``truth`` and ``predicted`` are class numbers, int (rows,); ``probabilities`` is (rows, classes);
    ``values`` are the figures on the rows themselves and ``replicates`` those of the bootstrap.
    """

    truth: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    values: Mapping[Key, float]
    replicates: Mapping[Key, np.ndarray]


@dataclass(frozen=True)
class Estimates:
    """Every figure with its interval, and the calibration error of each training with its noise.

    ``support`` is the effective number of patients of a figure, ``freedom`` the degrees of freedom of its standard
    error.
    """

    figures: Mapping[Key, Figure]
    calibration_errors: tuple[CalibrationError, ...]
    support: Mapping[Key, float]
    freedom: Mapping[Key, float]


def estimate(
    trainings: Sequence[Scored], clusters: np.ndarray, positive: int | None, *, replicates: int, seed: int
) -> Estimates:
    """Return every figure, the mean over `trainings`, with its 95% interval over other patients.

    Args:
        trainings: one or several trainings of one model, with the same rows in the same order.
        clusters: codes 0, 1, ... of the patients, int (rows,).
        positive: number of the positive class, None for means over classes.
        replicates: number of draws of the bootstrap-t and of the calibration error's noise.
        seed: of the random draws.
    """
    classes = trainings[0].probabilities.shape[1]
    values = {key: float(np.mean([one.values[key] for one in trainings])) for key in trainings[0].values}
    drawn = {key: np.mean([one.replicates[key] for one in trainings], axis=0) for key in trainings[0].replicates}
    supported = [supports(one.truth, one.predicted, clusters, classes, positive) for one in trainings]
    support = _least(supported)
    few = _least([behind(one.truth, one.predicted, one.probabilities, clusters) for one in trainings])
    counts = np.zeros((classes, classes))
    for one in trainings:
        np.add.at(counts, (one.truth, one.predicted), 1 / len(trainings))
    figures = class_means.figures(values, drawn, support, few, counts, positive)
    losses = np.mean([squared_errors(one.truth, one.probabilities) for one in trainings], axis=0)
    keys: list[Key] = [*((k, "brier") for k in range(classes)), (None, "brier")]
    greatest = np.array([1.0] * classes + [2.0 if classes > 2 else 1.0])
    everyone = effective(clusters)
    means = mean_losses(losses, clusters, support=everyone, greatest=greatest, replicates=replicates, seed=seed)
    figures |= dict(zip(keys, means, strict=True))
    errors = tuple(calibration_error(*_answers(one), clusters, replicates=replicates, seed=seed) for one in trainings)
    figures[None, "ece"] = mean_if_alike([error.corrected for error in errors])
    return Estimates(figures, errors, support, class_means.freedoms(support, few))


def _least(of_trainings: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    keys = {key for one in of_trainings for key in one}
    return {key: min(one[key] for one in of_trainings if key in one) for key in keys}


def _answers(one: Scored) -> tuple[np.ndarray, np.ndarray]:
    return one.probabilities.max(axis=1), one.probabilities.argmax(axis=1) == one.truth


def mean_if_alike(figures: Sequence[Figure]) -> Figure:
    """Return the mean of values and of limits: the interval of the mean if the figures are fully correlated."""
    parts = [[getattr(figure, name) for figure in figures] for name in ("value", "low", "high")]
    return Figure(*(None if None in part else float(np.mean(part)) for part in parts))
