"""The mean of several engines as one engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chestxray.errors import InputError
from chestxray.evaluation.decision.rule import Decision
from chestxray.inference.engine import Engine, Outputs, check_maps

if TYPE_CHECKING:
    from chestxray.data.images.pixels import Fit


@dataclass(frozen=True)
class Ensemble:
    """The mean of its ``members``, as an engine.

    Probabilities are averaged. Distances have different scales: the mean of distance over threshold is used, and
    images above 1 are refused. A map is the mean over the members that have maps and decide as the ensemble does.
    Images are read at the largest of the members' sizes and downscaled for the others.

    Raises:
        InputError: members with different classes, or whose ways to fit images to their size differ.
    """

    name: str
    members: Sequence[Engine]
    decision: Decision

    def __post_init__(self) -> None:
        first = self.members[0]
        for member in self.members:
            if member.classes != self.decision.classes:
                raise InputError(
                    f"The members of {self.name} must have its classes, {', '.join(self.decision.classes)}. "
                    f"Received: {member.name} with {', '.join(member.classes)}."
                )
            if member.fit != first.fit or (first.fit != "stretch" and _aspect(member) != _aspect(first)):
                raise InputError(
                    f"The members of {self.name} must fit images to their size alike. Received: "
                    f"{first.name} {_described(first)}, {member.name} {_described(member)}."
                )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return self.decision.classes

    @property
    def image_size(self) -> tuple[int, int]:
        """The largest height and width of the members."""
        sizes = [member.image_size for member in self.members]
        return max(height for height, _ in sizes), max(width for _, width in sizes)

    @property
    def fit(self) -> Fit:
        """How the members fit images to their size."""
        return self.members[0].fit

    @property
    def refusal_threshold(self) -> float | None:
        """1 where any member refuses images, else None."""
        return 1.0 if any(member.refusal_threshold is not None for member in self.members) else None

    @property
    def has_maps(self) -> bool:
        """Whether any member has maps."""
        return any(member.has_maps for member in self.members)

    def run(self, pixels: np.ndarray, *, maps: bool = False) -> Outputs:
        """As `Engine.run`."""
        if maps:
            check_maps(self)
        given = [
            member.run(_resized(pixels, member.image_size), maps=maps and member.has_maps) for member in self.members
        ]
        stacked = np.stack([one.probabilities for one in given]).astype(np.float64)
        probabilities = np.asarray(stacked.mean(axis=0), dtype=np.float32)
        ratios = [
            one.distances / member.refusal_threshold
            for member, one in zip(self.members, given, strict=True)
            if one.distances is not None and member.refusal_threshold is not None
        ]
        return Outputs(
            probabilities=probabilities,
            distances=np.mean(ratios, axis=0) if ratios else None,
            maps=self._maps(probabilities, given) if maps else None,
        )

    def _maps(self, probabilities: np.ndarray, given: Sequence[Outputs]) -> np.ndarray:
        decided = self.decision.decided(probabilities)
        total = np.zeros((len(probabilities), *self.image_size), dtype=np.float32)
        count = np.zeros(len(probabilities), dtype=np.float32)
        for member, one in zip(self.members, given, strict=True):
            if one.maps is not None:
                agree = member.decision.decided(one.probabilities) == decided
                total[agree] += _resized(one.maps[agree], self.image_size)
                count += agree
        return total / np.maximum(count, 1)[:, np.newaxis, np.newaxis]


def _resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return `images` (n, height, width), uint8 or float32, resized to `size` (height, width)."""
    if images.shape[1:] == size:
        return images
    from PIL import Image

    made = np.empty((len(images), *size), dtype=images.dtype)
    for number, image in enumerate(images):
        made[number] = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    return made


def _aspect(engine: Engine) -> float:
    return engine.image_size[0] / engine.image_size[1]


def _described(engine: Engine) -> str:
    return f"{engine.fit} to {engine.image_size[0]}x{engine.image_size[1]}"
