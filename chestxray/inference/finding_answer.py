"""The answer of a model of findings for one image: each finding by its own threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.inference.image_answer import PREFIX, ImageAnswer

PREDICTED = "predicted_"


@dataclass(frozen=True)
class Finding:
    """What is said of one finding in an image.

    ``probability`` is calibrated. ``present`` is whether it reaches the ``threshold``, None where nothing is decided:
    the image is refused, or the model ``abstained``, which is None where it always answers. ``threshold_chosen`` is
    False where validation could not choose a threshold, mostly for too few patients.
    """

    probability: float
    threshold: float
    threshold_chosen: bool
    present: bool | None
    abstained: bool | None

    @property
    def margin(self) -> float:
        """How far the probability is above the threshold."""
        return self.probability - self.threshold


@dataclass(frozen=True, kw_only=True)
class FindingAnswer(ImageAnswer):
    """The answer for one image: ``findings`` by name, in the model's order; none where it cannot be read."""

    findings: Mapping[str, Finding] = field(default_factory=dict)

    @property
    def present(self) -> tuple[str, ...]:
        """The findings that are decided to be present, the one furthest above its threshold first."""
        return self._by_margin(name for name, one in self.findings.items() if one.present)

    @property
    def abstained(self) -> tuple[str, ...] | None:
        """The findings from which the model abstains, None where it always answers."""
        if all(one.abstained is None for one in self.findings.values()):
            return None
        return tuple(name for name, one in self.findings.items() if one.abstained)

    def _by_margin(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(names, key=lambda name: -self.findings[name].margin))

    @property
    def _silent(self) -> bool:
        return len(self.abstained or ()) == len(self.findings)

    @property
    def _words(self) -> str:
        present, abstained = self.present, self._by_margin(self.abstained or ())
        if self._silent:
            return "The model abstains from every finding: nothing is decided."
        if present:
            shown = _listed([f"{name} {self.findings[name].probability:.3f}" for name in present])
            reaches = "reaches its threshold" if len(present) == 1 else "reach their thresholds"
            said = [f"{shown} {reaches}."]
        else:
            said = [f"No finding{' that the model decides on' if abstained else ''} reaches its threshold."]
        if abstained:
            said.append(f"The model abstains from {_listed(abstained)}.")
        if unchosen := [name for name in present if not self.findings[name].threshold_chosen]:
            many = len(unchosen) > 1
            said.append(
                f"The threshold{'s' if many else ''} of {_listed(unchosen)} {'were' if many else 'was'} not chosen on "
                "validation."
            )
        return " ".join(said)

    @property
    def _content(self) -> dict[str, Any]:
        return {"findings": {name: asdict(one) for name, one in self.findings.items()} or None}

    def _columns(self, classes: Sequence[str]) -> dict[str, Any]:
        given = [self.findings.get(name) for name in classes]
        present = [None if one is None or one.present is None else int(one.present) for one in given]
        return {
            **{PREFIX + name: one and one.probability for name, one in zip(classes, given, strict=True)},
            **{PREDICTED + name: value for name, value in zip(classes, present, strict=True)},
            "abstained": None if self.abstained is None else list(self.abstained),
        }


def of_findings(
    images: Sequence[Mapping[str, Any]], probabilities: np.ndarray, rule: FindingDecision
) -> list[FindingAnswer]:
    """Return the answers for `images`, each the fields of an `ImageAnswer`, from calibrated `probabilities`, float
    (rows, findings).
    """
    called, silent = rule.decided(probabilities), rule.abstained(probabilities)
    chosen = [(name, one.thresholds[name], one.chosen, one.limit is None) for name, one in rule.findings.items()]
    given = []
    for i, image in enumerate(images):
        findings = {
            name: Finding(
                probability=round(float(probabilities[i, j]), 7),
                threshold=threshold,
                threshold_chosen=is_chosen,
                present=None if image["refused"] or silent[i, j] else bool(called[i, j]),
                abstained=None if always else bool(silent[i, j]),
            )
            for j, (name, threshold, is_chosen, always) in enumerate(chosen)
        }
        given.append(FindingAnswer(**image, findings=findings))
    return given


def _listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them.

    >>> _listed(["Edema"]), _listed(["Edema", "Mass", "Nodule"])
    ('Edema', 'Edema, Mass and Nodule')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
