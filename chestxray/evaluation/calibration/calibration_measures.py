"""Calibration of a test: intercept, slope and expected calibration error.

Intercept and slope show in which direction the probabilities are wrong, and are unbiased on few images; the
expected calibration error is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from chestxray.evaluation.calibration.calibration_error import CalibrationError
from chestxray.evaluation.calibration.calibration_slope import intercept, slope
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.support import effective


@dataclass(frozen=True)
class CalibrationMeasures:
    """``intercept`` is of the positive class of two, all parts None with more; ``per_class`` has ``intercept`` and
    ``slope`` of each class against the rest; ``error`` is the expected calibration error with its noise.
    """

    intercept: Figure
    slope: Figure
    error: CalibrationError
    per_class: Mapping[str, Mapping[str, Figure]]

    def to_json(self) -> dict[str, Any]:
        """Return the fields by their names, None for what cannot be computed."""
        return {
            "intercept": self.intercept.to_json(),
            "slope": self.slope.to_json(),
            "ece": self.error.to_json(),
            "per_class": {
                label: {name: figure.to_json() for name, figure in figures.items()}
                for label, figures in self.per_class.items()
            },
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> CalibrationMeasures:
        """Return the object from what `to_json` gave."""
        return cls(
            intercept=Figure.from_json(fields["intercept"]),
            slope=Figure.from_json(fields["slope"]),
            error=CalibrationError.from_json(fields["ece"]),
            per_class={
                label: {name: Figure.from_json(figure) for name, figure in figures.items()}
                for label, figures in fields["per_class"].items()
            },
        )


def measure(
    truth: np.ndarray,
    probabilities: np.ndarray,
    clusters: np.ndarray,
    classes: tuple[str, ...],
    positive: int | None,
    error: CalibrationError,
) -> CalibrationMeasures:
    """Return the calibration of `probabilities` (rows, classes) with the true class numbers `truth` (rows,).

    `clusters` are codes of the patients, int (rows,); `positive` is the number of the positive of two classes,
    for which the intercept is; `error` is the expected calibration error of the same rows.
    """
    own = [effective(clusters[truth == k]) for k in range(len(classes))]
    rest = [effective(clusters[truth != k]) for k in range(len(classes))]
    per_class = {}
    for k, label in enumerate(classes):
        support, hit, stated = min(own[k], rest[k]), truth == k, probabilities[:, k]
        per_class[label] = {
            "intercept": intercept(stated, hit, clusters, support),
            "slope": slope(np.stack([1 - stated, stated], axis=1), hit.astype(np.int64), clusters, support),
        }
    fewest = min((size for size in own if size), default=0.0)
    return CalibrationMeasures(
        intercept=Figure(None, None, None) if positive is None else per_class[classes[positive]]["intercept"],
        slope=slope(probabilities, truth, clusters, fewest),
        error=error,
        per_class=per_class,
    )
