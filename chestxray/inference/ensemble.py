"""The mean of several engines as one engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from chestxray.errors import InputError
from chestxray.evaluation.decision.finding_rule import FindingDecision, Rule
from chestxray.inference.engine import Engine, Outputs, check_maps
from chestxray.inference.heat_maps import HeatMaps
from chestxray.recipe import GRADCAM

if TYPE_CHECKING:
    from chestxray.data.images.pixels import Fit
    from chestxray.models.lung_segmenter import LungSegmenter


#: What is known of the heat maps of every ensemble.
MEAN = HeatMaps(
    method=GRADCAM,
    unit="mean over the members of the share of each one's own scale",
    highest=1.0,
    scale="The scale ends at 1, where the maps of all members reach the end of their own scales.",
    badge="not checked",
    sentence="The maps of an ensemble are the mean of its members' maps, and were not checked.",
)


@runtime_checkable
class ExplainsAny(Protocol):
    """An engine that explains any class or finding, and not only those that it decides on."""

    def raw_maps(
        self, method: str, pixels: np.ndarray, classes: np.ndarray, layer: str | None = None
    ) -> np.ndarray: ...


@dataclass(frozen=True)
class Ensemble:
    """The mean of its ``members``, as an engine.

    Probabilities are averaged. Distances have different scales: the mean of distance over threshold is used, and
    images above 1 are refused. A map is the mean over the members that have maps, of what the ensemble decides on or of
    one finding, whatever a member decides. Members' maps have units of their own: the mean is of shares of each
    member's scale. Images are read at the largest of the members' sizes and downscaled for the others.

    Raises:
        InputError: members of different tasks or classes, or whose ways to cut images or to fit them to their size
            differ.
    """

    name: str
    members: Sequence[Engine]
    decision: Rule

    def __post_init__(self) -> None:
        first = self.members[0]
        for member in self.members:
            if _task(member.decision) != _task(self.decision):
                raise InputError(
                    f"The members of {self.name} must be {_task(self.decision)}, as it is. "
                    f"Received: {member.name}, {_task(member.decision)}."
                )
            if member.classes != self.decision.classes:
                named = "findings" if isinstance(self.decision, FindingDecision) else "classes"
                raise InputError(
                    f"The members of {self.name} must have its {named}, {', '.join(self.decision.classes)}. "
                    f"Received: {member.name} with {', '.join(member.classes)}."
                )
            if member.segmenter != first.segmenter:
                raise InputError(
                    f"The members of {self.name} must cut images to their lungs alike. Received: "
                    f"{first.name} by {first.segmenter or 'none'}, {member.name} by {member.segmenter or 'none'}."
                )
            if member.fit != first.fit or (first.fit != "stretch" and _aspect(member) != _aspect(first)):
                raise InputError(
                    f"The members of {self.name} must fit images to their size alike. Received: "
                    f"{first.name} {_described(first)}, {member.name} {_described(member)}."
                )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, or findings, in order."""
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
    def segmenter(self) -> LungSegmenter | None:
        """What the members' images are cut to their lungs by."""
        return self.members[0].segmenter

    @property
    def refusal_threshold(self) -> float | None:
        """1 where any member refuses images, else None."""
        return 1.0 if any(member.refusal_threshold is not None for member in self.members) else None

    @property
    def heat_maps(self) -> HeatMaps | None:
        """The scale of the mean of the members' maps, which no check has judged; None where no member has maps."""
        return MEAN if any(member.heat_maps is not None for member in self.members) else None

    def run(self, pixels: np.ndarray, *, maps: bool = False) -> Outputs:
        """As `Engine.run`."""
        if maps:
            check_maps(self)
        given = [
            on_scale(member, member.run(resized(pixels, member.image_size), maps=maps and member.heat_maps is not None))
            for member in self.members
        ]
        stacked = np.stack([one.probabilities for one in given]).astype(np.float64)
        probabilities = np.asarray(stacked.mean(axis=0), dtype=np.float32)
        ratios = [
            one.distances / member.refusal_threshold
            for member, one in zip(self.members, given, strict=True)
            if one.distances is not None and member.refusal_threshold is not None
        ]
        explained = self._maps(pixels, probabilities, given) if maps else (None, None)
        return Outputs(probabilities, np.mean(ratios, axis=0) if ratios else None, *explained)

    def _maps(
        self, pixels: np.ndarray, probabilities: np.ndarray, given: Sequence[Outputs]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return ``maps`` and ``mapped`` of `Outputs`."""
        if not isinstance(self.decision, FindingDecision):
            return self._mean(pixels, given, self.decision.decided(probabilities)), None
        mapped = self._mapped(probabilities, given)
        return np.stack([self._mean(pixels, given, numbers) for numbers in mapped.T], axis=1), mapped

    def _mapped(self, probabilities: np.ndarray, given: Sequence[Outputs]) -> np.ndarray:
        """Return the numbers of the most probable of the findings that a member explains, int32 (n, m)."""
        chosen = [one.mapped for one in given if one.mapped is not None]
        likely = np.full(probabilities.shape, -1.0)
        for numbers in chosen:
            np.put_along_axis(likely, numbers, np.take_along_axis(probabilities, numbers, axis=1), axis=1)
        most = max(numbers.shape[1] for numbers in chosen)
        return np.argsort(-likely, axis=1, kind="stable")[:, :most].astype(np.int32)

    def _mean(self, pixels: np.ndarray, given: Sequence[Outputs], numbers: np.ndarray) -> np.ndarray:
        """Return the mean, float32 (n, height, width), of the members' maps of the classes or findings `numbers`, int
        (n,): those that are `given`, and of images of which a member explained another, made anew.
        """
        total = np.zeros((len(pixels), *self.image_size), dtype=np.float32)
        count = np.zeros(len(pixels), dtype=np.float32)
        for member, one in zip(self.members, given, strict=True):
            if one.maps is None:
                continue
            maps, taken = _of(member, one, numbers)
            if isinstance(member, ExplainsAny) and (others := np.flatnonzero(~taken)).size:
                maps = maps.copy()
                maps[others] = _any_maps(member, pixels[others], numbers[others])
                taken = np.ones(len(pixels), bool)
            total[taken] += resized(maps[taken], self.image_size)
            count += taken
        return total / np.maximum(count, 1)[:, np.newaxis, np.newaxis]

    def raw_maps(self, method: str, pixels: np.ndarray, classes: np.ndarray, layer: str | None = None) -> np.ndarray:
        """Return the mean, float32 (n, height, width), of the members' maps of `classes`, int (n,), for `pixels` as
        `run` takes them, each as a share of its member's scale, which is of Grad-CAM at the member's own layer.
        """
        assert method == GRADCAM and layer is None, "shares are of that scale"
        maps = [
            resized(_any_maps(member, pixels, classes), self.image_size)
            for member in self.members
            if member.heat_maps is not None and isinstance(member, ExplainsAny)
        ]
        return np.asarray(np.mean(maps, axis=0), dtype=np.float32)


def _any_maps(member: Engine, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return a member's maps of `classes`, int (n,), in 0..1 on its scale, at its own size."""
    assert member.heat_maps is not None and isinstance(member, ExplainsAny)
    return member.heat_maps.on_scale(member.raw_maps(GRADCAM, resized(pixels, member.image_size), classes))


def on_scale(member: Engine, outputs: Outputs) -> Outputs:
    """Return the outputs of a member with its maps as shares of its scale, in 0..1."""
    if outputs.maps is None:
        return outputs
    assert member.heat_maps is not None, "it gave maps"
    return replace(outputs, maps=member.heat_maps.on_scale(outputs.maps))


def _of(member: Engine, outputs: Outputs, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a member's maps, float32 (n, height, width), of the classes or findings `number`, int (n,), one for each
    image, and whether they are of these, bool (n,).
    """
    assert outputs.maps is not None
    if not isinstance(member.decision, FindingDecision):
        return outputs.maps, member.decision.decided(outputs.probabilities) == number
    assert outputs.mapped is not None
    same = outputs.mapped == number[:, np.newaxis]
    return outputs.maps[np.arange(len(number)), same.argmax(axis=1)], same.any(axis=1)


def _task(decision: Rule) -> str:
    return "of findings" if isinstance(decision, FindingDecision) else "of one class an image"


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
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
