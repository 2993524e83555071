"""What answers for images, whatever computes it: a run's model in Keras, another runtime, an ensemble.

Nothing heavy is imported here, so that a server needs no TensorFlow where its engine needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from chestxray.errors import InputError
from chestxray.evaluation.decision.rule import Decision

if TYPE_CHECKING:
    from chestxray.data.images.pixels import Fit


@dataclass(frozen=True)
class Outputs:
    """What an engine says of n images, a row each.

    ``probabilities`` float32 (n, classes), calibrated. ``distances`` float64 (n,) from the radiographs
    of the training, None where the engine refuses nothing. ``maps`` float32 (n, height, width) in
    0..1, why the class that was decided on was decided on; None where they were not asked for.
    """

    probabilities: np.ndarray
    distances: np.ndarray | None
    maps: np.ndarray | None


class Engine(Protocol):
    """A model ready to answer. ``image_size`` is (height, width) of the pixels it takes, ``fit`` how
    images are brought to it; a distance above ``refusal_threshold`` is no chest radiograph, None:
    nothing is refused. ``has_maps``: whether there is a layer to explain by.
    """

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def fit(self) -> Fit: ...
    @property
    def decision(self) -> Decision: ...
    @property
    def refusal_threshold(self) -> float | None: ...
    @property
    def has_maps(self) -> bool: ...

    def run(self, pixels: np.ndarray, *, maps: bool = False) -> Outputs:
        """Answer for `pixels` uint8 (n, height, width), all at once: memory grows with n.

        May be called from several threads. `maps` asks for heat maps, and is an `InputError` where
        the engine has none.
        """
        ...


@dataclass(frozen=True)
class Ensemble:
    """The mean of its ``members``, as an engine.

    Probabilities are averaged. Distances are of different scales, so the mean is of distance over
    threshold, and refused is what is above 1. A map is the mean over the members that have maps and
    decide as the ensemble does. Images are read at the largest of the members' sizes and made
    smaller for the others.

    Raises:
        InputError: members of different classes, or that fit images to their size in ways that one
            reading of an image cannot serve.
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
                    f"{first.name} {_said(first)}, {member.name} {_said(member)}."
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
        """1, where any member refuses."""
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


def check_maps(engine: Engine) -> None:
    """Raises `InputError` unless `engine` has heat maps."""
    if not engine.has_maps:
        raise InputError(f"{engine.name} has no heat maps: its architecture has no convolutional layer to explain.")


def _resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`images` (n, height, width), uint8 or float32, at another size."""
    if images.shape[1:] == size:
        return images
    from PIL import Image

    made = np.empty((len(images), *size), dtype=images.dtype)
    for number, image in enumerate(images):
        made[number] = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    return made


def _aspect(engine: Engine) -> float:
    return engine.image_size[0] / engine.image_size[1]


def _said(engine: Engine) -> str:
    return f"{engine.fit} to {engine.image_size[0]}x{engine.image_size[1]}"
