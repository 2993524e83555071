"""What a run decides by, all of it chosen on validation: calibration, thresholds, when to abstain.

Written as ``decision.json``; whoever predicts with the run's model later decides by the same.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, cast

import numpy as np

from chestxray import schema
from chestxray.calibration import Calibration, CalibrationJson
from chestxray.errors import DataError, InputError
from chestxray.schema import Share, Within

if TYPE_CHECKING:
    from chestxray.prediction import Predictions
    from chestxray.recipe import Recipe

FILE = "decision.json"


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


@dataclass(frozen=True)
class Decision:
    """``thresholds``: class -> calibrated probability at and above which it is called present; of two
    classes the positive one alone, of more each class by itself, for information. ``priors``: of more
    than two classes, what their probabilities are divided by before the largest is decided on; none:
    the most probable class is. ``limit`` is the conformal quantile of `abstention`, None where the
    model always answers. ``features`` names the layer whose pooled output tells radiographs from other
    pictures, with ``refusal.npz``; None where nothing is refused.
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

    @property
    def threshold(self) -> float | None:
        """Of two classes, the threshold of the positive one; None where none was chosen."""
        return None if self.positive is None else self.thresholds.get(self.positive)

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
            return (
                f"A film is called {self.positive} from a calibrated probability of {self.threshold:.3f} on; "
                f"validation chose this threshold ({self.chosen_by})."
            )
        if self.priors:
            return (
                "A film is given the class whose calibrated probability is largest after division by the "
                "class's share of the validation images, since classes were weighted in training."
            )
        return "A film is given its most probable class."

    def applied(self, predictions: Predictions, refused: np.ndarray | None = None) -> Predictions:
        """`predictions`, with calibrated probabilities, as this decides.

        ``predicted`` is the class decided on, whether or not it is given as an answer; ``decision`` is
        the answer, empty where the film is refused or the model abstains. ``abstained`` and ``refused``
        are ``true`` or ``false``, empty where the run always answers or refuses nothing. `refused`: bool
        (rows,); None: what the table says already.
        """
        from chestxray import abstention
        from chestxray.prediction import Predictions

        if set(predictions.classes) != set(self.classes):
            raise DataError(
                f"Predictions and decision are of different classes: {', '.join(predictions.classes)} and "
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
            answered = abstention.answered(abstention.sets(probabilities, self.limit), number)
            rows["abstained"] = np.where(answered, "false", "true")
        silent = (rows["refused"] == "true") | (rows["abstained"] == "true")
        rows["decision"] = rows["predicted"].mask(silent, "")
        return Predictions(rows, predictions.classes)

    def to_json(self) -> dict[str, Any]:
        """The contents of ``decision.json``."""
        lists = {"classes": list(self.classes), "priors": list(self.priors), "thresholds": dict(self.thresholds)}
        told = dataclasses.asdict(self) | lists
        return told | {"calibration": told["calibration"] | {"offsets": list(self.calibration.offsets)}}

    @classmethod
    def from_json(cls, content: Any) -> Decision:
        """What `to_json` gave. Raises ValueError, in a sentence, where `content` is not of that form."""
        fields = cast("dict[str, Any]", schema.conform(content, DecisionJson))
        known = {item.name: fields[item.name] for item in dataclasses.fields(cls)}
        lists = {name: tuple(fields[name]) for name in ("classes", "priors")}
        found = cls(**{**known, **lists, "calibration": Calibration.from_json(fields["calibration"])})
        found._require_agreement()
        return found

    def _require_agreement(self) -> None:
        """Raises ValueError where the parts speak of different classes."""
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
            raise ValueError(f"thresholds must have one of {self.positive}, the positive class")
        if stray := sorted(set(self.thresholds) - set(classes)):
            raise ValueError(f"thresholds must be of the classes {allowed}. Received: {', '.join(stray)}")
        for name, numbers in (("priors", self.priors), ("calibration.offsets", self.calibration.offsets)):
            if len(numbers) not in (0, len(classes)):
                raise ValueError(
                    f"{name} must be none, or one of each of {len(classes)} classes. Received: {len(numbers)}"
                )

    @classmethod
    def read(cls, path: Path) -> Decision:
        """Read a ``decision.json``.

        Raises:
            DataError: it is damaged.
        """
        content = schema.read(path)
        try:
            return cls.from_json(content)
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}.") from error


def check(classes: tuple[str, ...], recipe: Recipe) -> None:
    """Refuse choices of `recipe` that cannot be made of these classes. Raises `InputError`."""
    from chestxray.evaluation import headline_class

    headline_class(classes, recipe.positive)
    if recipe.sensitivity is not None and len(classes) != 2:
        raise InputError(
            f"sensitivity is for two classes, of which one threshold decides; with {len(classes)} the largest "
            f"probability does. Received: {recipe.sensitivity:g}, with the classes {', '.join(classes)}."
        )


def decide(validation: Predictions, recipe: Recipe, calibration: Calibration) -> Decision:
    """Choose by `validation`, whose probabilities `calibration` has calibrated.

    Raises:
        InputError: choices of `recipe` that its classes do not allow.
    """
    # Not above: whoever only decides by what was learned here needs neither pandas nor SciPy.
    from chestxray import abstention, thresholds
    from chestxray.evaluation import headline_class
    from chestxray.prediction import PREFIX

    classes, truth = validation.classes, validation.truth
    check(classes, recipe)
    chosen = headline_class(classes, recipe.positive)
    positive = None if chosen is None else classes[chosen]
    own = {
        label: thresholds.choose(
            validation.rows[PREFIX + label].to_numpy(), truth == classes.index(label), recipe.sensitivity
        )
        for label in ((positive,) if positive is not None else classes)
    }
    counts = np.bincount(truth, minlength=len(classes))
    # Weights ask for errors of all classes to count alike; calibrated probabilities alone would favour
    # the common ones again. Of two classes, Youden's threshold sees to it.
    weighed = positive is None and recipe.class_weights and counts.min() > 0
    return Decision(
        classes=classes,
        positive=positive,
        calibration=calibration,
        thresholds=own,
        chosen_by="Youden's index" if recipe.sensitivity is None else f"sensitivity of at least {recipe.sensitivity:g}",
        priors=tuple(float(share) for share in counts / counts.sum()) if weighed else (),
        coverage=recipe.abstain,
        limit=None if recipe.abstain is None else abstention.quantile(validation.probabilities, truth, recipe.abstain),
    )
