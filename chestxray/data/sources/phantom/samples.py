"""Phantoms for a network whose own images are not at hand."""

from __future__ import annotations

import numpy as np
from PIL import Image

from chestxray.data.sources.phantom.drawing import draw
from chestxray.data.sources.phantom.findings import FINDINGS


def drawn(count: int, size: tuple[int, int]) -> np.ndarray:
    """Return phantoms, uint8 (count, height, width), of as many patients, of each finding in turn; `size` is (height,
    width).
    """
    films = [_drawn(number, max(size)) for number in range(count)]
    return np.stack([np.asarray(film.resize(size[::-1], Image.Resampling.BILINEAR)) for film in films])


def _drawn(number: int, side: int) -> Image.Image:
    finding = tuple(FINDINGS)[number % len(FINDINGS)]
    return Image.fromarray(draw(seed=0, patient=number, image=0, finding=finding, size=side).pixels)
