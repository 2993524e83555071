"""Drawing one phantom film: a chest, its findings, an exposure.

The modules `source` and `findings_set` describe the phantoms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from chestxray.data.sources.phantom.anatomy import Chest, Field, Mask, draw_anatomy, posed_grid
from chestxray.data.sources.phantom.findings import COEXISTING, FINDINGS, Lesion

#: To be raised whenever a drawing changes: sets drawn by an older version are then drawn again.
VERSION = 4


@dataclass(frozen=True)
class Drawing:
    """A film and the true masks of its lungs, finding and planted marker; all of one shape (height, width)."""

    pixels: NDArray[np.uint8]
    lungs: Mask
    finding: Mask
    marker: Mask


@dataclass(frozen=True)
class FindingsDrawing:
    """A film, the true masks of its lungs and planted marker, and that of each finding by name; all of one shape."""

    pixels: NDArray[np.uint8]
    lungs: Mask
    findings: Mapping[str, Mask]
    marker: Mask


def images_of(seed: int, patient: int) -> int:
    """Return the number of images of a patient: 1 to 4, 1.75 on average."""
    return int(np.random.default_rng([seed, patient, 0]).choice(4, p=(0.52, 0.28, 0.13, 0.07))) + 1


def draw(*, seed: int, patient: int, image: int, finding: str, size: int, marker: bool = False) -> Drawing:
    """Draw image number `image` of a patient: `size` pixels wide and about as many high.

    The pixels depend on the arguments alone. Neither the finding nor the marker changes anything else in
    the drawing, so that two drawings that differ in one of them only are counterfactuals.
    """
    plate = _Plate.of(seed, patient, image, size)
    opacity, extent = FINDINGS[finding](plate.lesion([seed, patient, 3], [seed, patient, 4, image]))
    pixels = plate.exposed(opacity)
    stamped = np.zeros(pixels.shape, bool)
    if marker:
        _stamp_marker(pixels, stamped, np.random.default_rng([seed, patient, 5, image]))
    inside = plate.lungs > 0.5
    return Drawing(pixels=pixels, lungs=inside, finding=extent & inside, marker=stamped)


#: Opacity that overlapping findings approach: less than the sum of theirs.
_DENSEST = 0.5


def draw_findings(
    *, seed: int, patient: int, image: int, findings: Mapping[str, float], size: int, marker: bool = False
) -> FindingsDrawing:
    """Draw image number `image` of a patient with several findings, `size` pixels wide and about as many high.

    `findings`: the strength of each of `COEXISTING` that is to be drawn, from 0 (invisible) to 1. The chest without
    any is that of `draw`. A finding is drawn at its own place, whichever others there are, so that two drawings
    that differ in one of them only are counterfactuals.
    """
    plate = _Plate.of(seed, patient, image, size)
    through, dark = np.ones_like(plate.lungs), np.zeros_like(plate.lungs)
    inside, masks = plate.lungs > 0.5, {}
    for number, (name, drawn) in enumerate(COEXISTING.items()):
        if name in findings:
            opacity, extent = drawn(plate.lesion([seed, patient, 7, number], [seed, patient, 8, number, image]))
            opacity = findings[name] * opacity
            through *= 1 - np.clip(opacity, 0, _DENSEST) / _DENSEST
            dark = np.minimum(dark, opacity)
            masks[name] = extent & inside
    pixels = plate.exposed(_DENSEST * (1 - through) + dark)
    stamped = np.zeros(pixels.shape, bool)
    if marker:
        _stamp_marker(pixels, stamped, np.random.default_rng([seed, patient, 5, image]))
    return FindingsDrawing(pixels=pixels, lungs=inside, findings=masks, marker=stamped)


@dataclass(frozen=True)
class _Plate:
    """A chest on a film before its exposure: grey values (height, width) without a finding, and generators."""

    chest: Chest
    lungs: Field
    x: Field
    y: Field
    film: Field
    person: np.random.Generator
    moment: np.random.Generator

    @classmethod
    def of(cls, seed: int, patient: int, image: int, size: int) -> _Plate:
        person = np.random.default_rng([seed, patient, 1])
        moment = np.random.default_rng([seed, patient, 2, image])
        chest = Chest.of(person, moment)
        height = round(size * moment.uniform(0.94, 1.1))
        x, y = posed_grid(height, size, person, moment)
        lungs = chest.lungs(x, y)
        return cls(chest, lungs, x, y, draw_anatomy(chest, lungs, x, y, person), person, moment)

    def lesion(self, illness: list[int], course: list[int]) -> Lesion:
        """Return what a finding is drawn from; the arguments are seeds for the patient and for the image."""
        return Lesion(
            self.chest, self.lungs, self.x, self.y, np.random.default_rng(illness), np.random.default_rng(course)
        )

    def exposed(self, opacity: Field) -> NDArray[np.uint8]:
        """Return grey pixels, 0..255, with `opacity` added within the lungs."""
        return _expose(self.film + opacity * self.lungs, self.person, self.moment)


def _expose(film: Field, person: np.random.Generator, moment: np.random.Generator) -> NDArray[np.uint8]:
    """Return grey pixels, 0..255, after exposure, contrast, gamma, a gradient across the film, blur and grain."""
    height, width = film.shape
    contrast = person.uniform(0.92, 1.12) * moment.uniform(0.94, 1.06)
    brightness = person.normal(0, 0.03) + moment.normal(0, 0.025)
    gamma = math.exp(person.normal(0, 0.08) + moment.normal(0, 0.05))
    slope = person.normal(0, 0.04) * np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    slope = slope + person.normal(0, 0.04) * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    shown = np.clip(0.5 + contrast * (film + slope - 0.45) + brightness, 0, 1) ** gamma
    shown = ndimage.gaussian_filter(shown, person.uniform(0.2, 0.5) * width / 128)
    shown = shown + person.uniform(0.008, 0.015) * moment.standard_normal(film.shape, dtype=np.float32)
    return np.round(np.clip(shown, 0, 1) * 255).astype(np.uint8)


_LETTER = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)


def _stamp_marker(pixels: NDArray[np.uint8], stamped: Mask, moment: np.random.Generator) -> None:
    """Draw a lead letter L in the upper right corner, in place; its height is a tenth of the film's. Set `stamped` to
    True where it and its plate are.
    """
    height, width = pixels.shape
    thick = max(1, round(width / 64))
    letter = np.kron(_LETTER, np.ones((thick, thick), bool))
    top = round(height * moment.uniform(0.03, 0.07))
    left = width - letter.shape[1] - round(width * moment.uniform(0.03, 0.07))
    # On a darkened plate, so that it is visible over a shoulder, too.
    place = np.s_[top - thick : top + letter.shape[0] + thick, left - thick : left + letter.shape[1] + thick]
    plate, stamped[place] = pixels[place], True
    plate[:] = plate // 2
    plate[thick:-thick, thick:-thick][letter] = moment.integers(235, 256)
