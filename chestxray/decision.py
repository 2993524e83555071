"""What a run decides by, all of it chosen on validation: temperature, thresholds, when to abstain.

Written as ``decision.json``; whoever predicts with the run's model later decides by the same.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chestxray.errors import DataError

if TYPE_CHECKING:
    from chestxray.prediction import Predictions
    from chestxray.recipe import Recipe

FILE = "decision.json"


@dataclass(frozen=True)
class Decision:
    """``thresholds``: class -> probability at and above which it is called present; of two classes
    the positive one alone. ``limit`` is the conformal quantile of `abstention`, None where the model
    always answers. ``features`` names the layer whose pooled output tells radiographs from other
    pictures, with ``refusal.npz``; None where nothing is refused.
    """

    classes: tuple[str, ...]
    positive: str | None
    temperature: float
    thresholds: Mapping[str, float]
    chosen_by: str
    coverage: float | None
    limit: float | None
    features: str | None

    @property
    def threshold(self) -> float | None:
        """Of two classes, the threshold of the positive one."""
        return None if self.positive is None else self.thresholds[self.positive]

    @property
    def cutoff(self) -> tuple[int, float] | None:
        """Of two classes, the number of the positive one and the threshold at and above which it is."""
        if self.positive is None or self.threshold is None:
            return None
        return self.classes.index(self.positive), self.threshold

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """Numbers of the classes decided on, int64 (rows,), from calibrated probabilities float
        (rows, classes): by the threshold of two classes, by the largest of more.
        """
        if self.cutoff is None:
            return probabilities.argmax(axis=1)
        positive, threshold = self.cutoff
        return np.where(probabilities[:, positive] >= threshold, positive, 1 - positive)

    def to_json(self) -> dict[str, Any]:
        """The contents of ``decision.json``."""
        return dataclasses.asdict(self) | {"classes": list(self.classes), "thresholds": dict(self.thresholds)}

    @classmethod
    def read(cls, path: Path) -> Decision:
        """Read a ``decision.json``.

        Raises:
            DataError: it is damaged.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**fields, "classes": tuple(fields["classes"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is damaged: {error}.") from error


def decide(validation: Predictions, recipe: Recipe) -> Decision:
    """Choose by `validation`, whose probabilities are at temperature 1.

    Raises:
        InputError: a positive class that is none.
    """
    # Not above: whoever only decides by what was learned here needs neither pandas nor SciPy.
    from chestxray import abstention, thresholds
    from chestxray.calibration import calibrated, fit_temperature
    from chestxray.evaluation import headline_class
    from chestxray.prediction import PREFIX

    chosen = headline_class(validation.classes, recipe.positive)
    positive = None if chosen is None else validation.classes[chosen]
    temperature = fit_temperature(validation.probabilities, validation.truth) if recipe.calibrate else 1.0
    scored = calibrated(validation, temperature)
    own = {
        label: thresholds.choose(
            scored.rows[PREFIX + label].to_numpy(), (scored.rows["label"] == label).to_numpy(), recipe.sensitivity
        )
        for label in ((positive,) if positive is not None else validation.classes)
    }
    limit = None
    if recipe.abstain is not None:
        limit = abstention.quantile(scored.probabilities, scored.truth, recipe.abstain)
    return Decision(
        classes=validation.classes,
        positive=positive,
        temperature=temperature,
        thresholds=own,
        chosen_by="Youden's index" if recipe.sensitivity is None else f"sensitivity of at least {recipe.sensitivity:g}",
        coverage=recipe.abstain,
        limit=limit,
        features=None,
    )
