"""The box around the lungs of a film, which ``--crop lungs`` cuts images to.

It is found on a small copy of the film and kept in shares of its sides, so that it holds at any resolution of the file:
what a network of 224 by 224 pixels sees of a film of 2,000 is then its lungs at more pixels, not the whole film at
fewer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from chestxray.data.images.pixels import FILTER, Box, Fit, corners, fitted
from chestxray.errors import DataError

if TYPE_CHECKING:  # the server reads images without pandas
    import pandas as pd

log = logging.getLogger("chestxray")

#: Side, in pixels, of the small square copy of a film that its lungs are found on. What a segmenter makes of it is
#: enlarged to it from fewer pixels anyway, and a hundredth of the film is a tenth of the margin.
SIDE = 128
#: The margin at each side of the box, as a share of the box. Masks are drawn a little too small, and an effusion or a
#: dense lobe at the border of a lung is easily left out of it: in the film, a twelfth of the box is some two
#: centimetres. The frame that the control `border` reads, a sixteenth of the cut image, then holds no lung.
MARGIN = 1 / 12
#: The column of an index with the box of each image, as `as_text` writes it.
COLUMN = "lung_box"


class LungFinder(Protocol):
    """What finds the lungs. ``identity`` differs wherever its boxes may."""

    @property
    def identity(self) -> str: ...

    def boxes(self, films: np.ndarray) -> list[Box | None]:
        """Return the box of each of `films`, uint8 (rows, `SIDE`, `SIDE`), whole films that were stretched; None where
        no plausible lungs are found.
        """
        ...


def box_of(mask: np.ndarray) -> Box | None:
    """Return the box around a mask, bool (height, width), with its margin and within the film; None of an empty mask.

    >>> mask = np.zeros((100, 100), bool); mask[20:80, 26:74] = True
    >>> box_of(mask)
    (0.22, 0.15, 0.78, 0.85)
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    sides = []
    for places, length in ((columns, mask.shape[1]), (rows, mask.shape[0])):
        low, high = int(places[0]) / length, (int(places[-1]) + 1) / length
        margin = MARGIN * (high - low)
        sides.append((round(max(low - margin, 0.0), 4), round(min(high + margin, 1.0), 4)))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def as_text(box: Box | None) -> str:
    """Return a box as a table has it, ``""`` for none.

    >>> as_text((0.2, 0.14, 0.8, 0.86))
    '0.2,0.14,0.8,0.86'
    """
    return "" if box is None else ",".join(f"{side:g}" for side in box)


def from_text(text: str) -> Box | None:
    """Return the box that `as_text` wrote. Raises `DataError` for another text."""
    if not text:
        return None
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        left = top = right = bottom = 0.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise DataError(f"A box of lungs must be four shares of a film, as 0.2,0.1,0.8,0.9. Received: {text[:80]!r}.")
    return left, top, right, bottom


def of_rows(rows: pd.DataFrame) -> list[Box | None]:
    """Return the box of each row of an index, None where the image is whole."""
    return [from_text(text) for text in rows[COLUMN]] if COLUMN in rows else [None] * len(rows)


def masks_within(
    masks: np.ndarray, boxes: Sequence[Box | None], sides: Sequence[tuple[int, int]], size: tuple[int, int], fit: Fit
) -> np.ndarray:
    """Return masks of whole films, bool (rows, n, m), as the films are cut to `boxes` and fitted to `size` (height,
    width): bool (rows, height, width). `sides` are width and height of each film.
    """
    found = np.zeros((len(masks), *size), bool)
    for row, mask, box, shape in zip(found, masks, boxes, sides, strict=True):
        # In the film's own proportions, which pad and crop keep.
        image = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).resize(shape, FILTER)
        if box is not None:
            image = image.crop(corners(box, *shape))
        row[:] = np.asarray(fitted(image, size, fit)) > 127
    return found


def say_unknown(boxes: Iterable[Box | None]) -> None:
    """Log how many images have no box, and are therefore used whole."""
    found = [box is not None for box in boxes]
    if unknown := found.count(False):
        log.warning("No plausible lungs in %d of %d images: they are used whole.", unknown, len(found))
