"""The decision rule of a run, chosen on validation: calibration, thresholds, abstention, refusal.

Written as ``decision.json``; later predictions with the run's model are decided by the same rule. This module
needs neither pandas nor SciPy: a server imports it. `selection` chooses the rule.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict, cast

import numpy as np

from chestxray.errors import DataError
from chestxray.evaluation.decision.temperature_scaling import NONE, Calibration, CalibrationJson
from chestxray.storage import schema
from chestxray.storage.schema import Count, Share, Within

if TYPE_CHECKING:
    from chestxray.evaluation.predictions import Predictions

FILE = "decision.json"
#: ``chosen_by`` of a threshold that the publisher of a ready model states.
PUBLISHED = "its publisher's operating point"
#: Begins ``chosen_by`` where validation could not choose.
NOT_CHOSEN = "not chosen"


class PromiseJson(TypedDict):
    """A `Promise` as ``decision.json`` has it."""

    sensitivity: Share
    confidence: Share
    patients: Count


class DecisionJson(TypedDict):
    """A `Decision` as ``decision.json`` and exported files have it."""

    classes: list[str]
    positive: str | None
    calibration: CalibrationJson
    thresholds: dict[str, Share]
    chosen_by: str
    priors: list[Annotated[float, Within(sys.float_info.min, 1)]]
    coverage: Share | None
    limit: Share | None
    features: str | None
    promise: NotRequired[PromiseJson | None]


@dataclass(frozen=True)
class Promise:
    """The sensitivity that a threshold was asked to reach, the ``confidence`` with which other patients are promised it
    (0: no promise), and the number of validation ``patients`` with the finding.
    """

    sensitivity: float
    confidence: float
    patients: int

    @property
    def words(self) -> str:
        """The promise in a sentence."""
        if not self.confidence:
            return (
                f"A sensitivity of at least {self.sensitivity:g} was required on validation alone: nothing is "
                "promised for other patients, on whom about half of such thresholds have a lower one."
            )
        return (
            f"With confidence {self.confidence:g}, a sensitivity of at least {100 * self.sensitivity:g}% is promised "
            f"for patients like the {self.patients:,} of validation with the finding, each patient weighted equally; "
            "for other patients nothing is promised."
        )


@dataclass(frozen=True)
class Decision:
    """A decision rule.

    ``thresholds``: class -> calibrated probability at and above which it is called present; with two classes of the
    positive one alone, with more of each class by itself, for information. ``priors``: with more than two classes,
    divisors of the probabilities before the largest is chosen; empty: the most probable class is chosen. ``limit``
    is the conformal quantile (`conformal`), None where the model always answers; ``coverage`` the wanted coverage.
    ``features`` names the layer whose pooled output distinguishes radiographs from other images, with
    ``refusal.npz``; None where nothing is refused. ``promise`` is the promised sensitivity, None where none was
    asked for.
    """

    classes: tuple[str, ...]
    positive: str | None
    calibration: Calibration
    thresholds: Mapping[str, float]
    chosen_by: str
    priors: tuple[float, ...] = ()
    coverage: float | None = None
    limit: float | None = None
    features: str | None = None
    promise: Promise | None = None

    @property
    def threshold(self) -> float | None:
        """With two classes, the threshold of the positive one; None where none was chosen."""
        return None if self.positive is None else self.thresholds.get(self.positive)

    @property
    def chosen(self) -> bool:
        """Whether validation chose the thresholds; ``chosen_by`` says why it did not."""
        return not self.chosen_by.startswith(NOT_CHOSEN)

    @property
    def cutoff(self) -> tuple[int, float] | None:
        """With two classes, the number of the positive one and its threshold; None otherwise."""
        if self.positive is None or self.threshold is None:
            return None
        return self.classes.index(self.positive), self.threshold

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the decided class numbers, int64 (rows,), from calibrated probabilities, float (rows, classes).

        With two classes the threshold decides, with more the largest probability, divided by ``priors`` if given.
        """
        if self.cutoff is None:
            weighed = (
                probabilities / np.asarray(self.priors, dtype=probabilities.dtype) if self.priors else probabilities
            )
            return weighed.argmax(axis=1)
        positive, threshold = self.cutoff
        return np.where(probabilities[:, positive] >= threshold, positive, 1 - positive)

    @property
    def words(self) -> str:
        """The rule in a sentence."""
        if self.threshold is not None:
            how = f"this threshold was chosen on validation ({self.chosen_by})" if self.chosen else self.chosen_by
            if self.chosen_by == PUBLISHED:
                how = f"this threshold is {PUBLISHED}"
            probability = "probability" if self.calibration.method == NONE else "calibrated probability"
            said = f"A film is called {self.positive} at a {probability} of {self.threshold:.3f} or more; {how}."
            return said if self.promise is None else f"{said} {self.promise.words}"
        if self.priors:
            return (
                "A film is given the class whose calibrated probability is largest after division by the "
                "class's share of the validation images, since classes were weighted in training."
            )
        return "A film is given its most probable class."

    def applied(self, predictions: Predictions, refused: np.ndarray | None = None) -> Predictions:
        """Return `predictions`, whose probabilities are calibrated, with the decisions of this rule.

        The column ``predicted`` is the decided class, whether or not it is given as an answer; ``decision`` is
        the answer, empty where the image is refused or the model abstains. ``abstained`` and ``refused``
        are ``true`` or ``false``, empty where the run always answers or refuses nothing. `refused`: bool
        (rows,); None keeps the column of the table.

        Raises:
            DataError: predictions and rule have different classes.
        """
        from chestxray.evaluation.decision import conformal
        from chestxray.evaluation.predictions import Predictions

        if set(predictions.classes) != set(self.classes):
            raise DataError(
                f"Predictions and decision have different classes: {', '.join(predictions.classes)} and "
                f"{', '.join(self.classes)}."
            )
        order = [predictions.classes.index(name) for name in self.classes]
        probabilities = predictions.probabilities[:, order]
        number = self.decided(probabilities)
        rows = predictions.rows.copy()
        rows["predicted"] = np.asarray(self.classes, dtype=object)[number]
        if refused is not None:
            rows["refused"] = np.where(refused, "true", "false")
        elif "refused" not in rows:
            rows["refused"] = ""
        rows["abstained"] = ""
        if self.limit is not None:
            answered = conformal.answered(conformal.sets(probabilities, self.limit), number)
            rows["abstained"] = np.where(answered, "false", "true")
        silent = (rows["refused"] == "true") | (rows["abstained"] == "true")
        rows["decision"] = rows["predicted"].mask(silent, "")
        return Predictions(rows, predictions.classes)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``decision.json``."""
        lists = {"classes": list(self.classes), "priors": list(self.priors), "thresholds": dict(self.thresholds)}
        as_json = dataclasses.asdict(self) | lists
        return as_json | {"calibration": as_json["calibration"] | {"offsets": list(self.calibration.offsets)}}

    @classmethod
    def from_json(cls, content: Any) -> Decision:
        """Return the rule from what `to_json` gave. Raises ValueError, with a sentence, for content of another form."""
        fields = cast("dict[str, Any]", schema.conform(content, DecisionJson))
        # Files of earlier versions have no promise.
        known: dict[str, Any] = {item.name: fields.get(item.name) for item in dataclasses.fields(cls)}
        lists = {name: tuple(fields[name]) for name in ("classes", "priors")}
        known["promise"] = None if known["promise"] is None else Promise(**known["promise"])
        found = cls(**{**known, **lists, "calibration": Calibration.from_json(fields["calibration"])})
        found._require_agreement()
        return found

    def _require_agreement(self) -> None:
        """Raise ValueError where the fields are of different classes."""
        classes, allowed = self.classes, ", ".join(self.classes)
        if len(classes) < 2 or len(set(classes)) < len(classes) or not all(name.isprintable() for name in classes):
            raise ValueError(
                f"classes must be two printable names or more, each once. Received: {str(list(classes))[:300]}"
            )
        if long := next((name for name in classes if len(name) > schema.LONGEST_NAME), None):
            longest = f"at most {schema.LONGEST_NAME} characters each"
            raise ValueError(f"classes must have {longest}. Received: {long[:40]!r}...")
        if self.positive is not None and (self.positive not in classes or len(classes) != 2):
            raise ValueError(f"positive must be one of two classes, {allowed}, or null. Received: {self.positive!r}")
        if self.positive is not None and self.positive not in self.thresholds:
            raise ValueError(f"thresholds must have a number for {self.positive}, the positive class")
        if stray := sorted(set(self.thresholds) - set(classes)):
            raise ValueError(f"thresholds must have only the classes {allowed}. Received: {', '.join(stray)}")
        for name, numbers in (("priors", self.priors), ("calibration.offsets", self.calibration.offsets)):
            if len(numbers) not in (0, len(classes)):
                raise ValueError(
                    f"{name} must have no numbers, or one for each of {len(classes)} classes. Received: {len(numbers)}"
                )

    @classmethod
    def read(cls, path: Path) -> Decision:
        """Read a ``decision.json``.

        Raises:
            DataError: the file is damaged.
        """
        content = schema.read(path)
        try:
            return cls.from_json(content)
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}.") from error
