"""Drawing one phantom film: a chest, a finding, an exposure. The module `source` describes the phantoms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from chestxray.data.sources.phantom.anatomy import Chest, Field, Mask, draw_anatomy, posed_grid
from chestxray.data.sources.phantom.findings import FINDINGS, Lesion

#: To be raised whenever a drawing changes: sets drawn by an older version are then drawn again.
VERSION = 3


@dataclass(frozen=True)
class Drawing:
    """A film and the true masks of its lungs and finding; the arrays share one shape (height, width)."""

    pixels: NDArray[np.uint8]
    lungs: Mask
    finding: Mask


def images_of(seed: int, patient: int) -> int:
    """Return the number of images of a patient: 1 to 4, 1.75 on average."""
    return int(np.random.default_rng([seed, patient, 0]).choice(4, p=(0.52, 0.28, 0.13, 0.07))) + 1


def draw(*, seed: int, patient: int, image: int, finding: str, size: int, marker: bool = False) -> Drawing:
    """Draw image number `image` of a patient: `size` pixels wide and about as many high.

    The pixels depend on the arguments alone. Neither the finding nor the marker changes anything else in
    the drawing, so that two drawings that differ in one of them only are counterfactuals.
    """
    person = np.random.default_rng([seed, patient, 1])
    moment = np.random.default_rng([seed, patient, 2, image])
    chest = Chest.of(person, moment)
    height = round(size * moment.uniform(0.94, 1.1))
    x, y = posed_grid(height, size, person, moment)
    lungs = chest.lungs(x, y)
    film = draw_anatomy(chest, lungs, x, y, person)
    illness = np.random.default_rng([seed, patient, 3])
    course = np.random.default_rng([seed, patient, 4, image])
    lesion = Lesion(chest, lungs, x, y, illness, course)
    opacity, extent = FINDINGS[finding](lesion)
    pixels = _expose(film + opacity * lungs, person, moment)
    if marker:
        _stamp_marker(pixels, np.random.default_rng([seed, patient, 5, image]))
    inside = lungs > 0.5
    return Drawing(pixels=pixels, lungs=inside, finding=extent & inside)


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


def _stamp_marker(pixels: NDArray[np.uint8], moment: np.random.Generator) -> None:
    """Draw a lead letter L in the upper right corner, in place; its height is a tenth of the film's."""
    height, width = pixels.shape
    thick = max(1, round(width / 64))
    letter = np.kron(_LETTER, np.ones((thick, thick), bool))
    top = round(height * moment.uniform(0.03, 0.07))
    left = width - letter.shape[1] - round(width * moment.uniform(0.03, 0.07))
    # On a darkened plate, so that it is visible over a shoulder, too.
    plate = pixels[top - thick : top + letter.shape[0] + thick, left - thick : left + letter.shape[1] + thick]
    plate[:] = plate // 2
    plate[thick:-thick, thick:-thick][letter] = moment.integers(235, 256)
