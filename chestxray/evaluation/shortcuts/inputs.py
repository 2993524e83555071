"""What each control sees of an image: everything but the lungs, and numbers for a cheap model.

Images are first averaged onto a grid of `SIDE` by `SIDE` cells, each the mean of its own pixels
alone: no cell that a control sees holds anything of a cell that it must not see.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from chestxray.data.images.pixels import Fit, UnreadableImage
from chestxray.data.images.reading import read

SIDE = 32
#: In cells: how wide the frame is, how long the squares in its corners, and what lies round the
#: blanked box in the centre. Lungs reach to a sixteenth of the width, but never into a corner, where
#: letters and labels stand.
FRAME = 2
CORNER = 6
MARGIN = 4
#: A mask's lungs are blanked with one cell more on every side: masks are drawn a little too small.
GROWTH = 1
THUMBNAIL = 8
FACTS = ("width", "height", "aspect", "mode", "format", "brightness", "contrast")


@dataclass(frozen=True)
class Grids:
    """``cells``: float32 (rows, SIDE, SIDE), grey 0..255; ``lungs``: bool of the same shape, cells
    that a lung mask touches, None where not every row has a mask.
    """

    cells: np.ndarray
    lungs: np.ndarray | None


def grids(rows: pd.DataFrame, pixels: np.ndarray, places: np.ndarray, fit: Fit, *, masked: bool) -> Grids:
    """Average the images at `places` of `pixels`, uint8 (rows, height, width), onto cells.

    `masked`: read the lung masks too (column ``lung_mask`` of `rows`), fitted as the pixels are.

    Raises:
        UnreadableImage: a mask that cannot be read, or is empty.
    """
    cells = np.stack([_cells(pixels[place]) for place in places])
    if not masked:
        return Grids(cells, None)
    paths = rows["lung_mask"].iloc[places]
    return Grids(cells, np.stack([_lungs(Path(path), pixels.shape[1:], fit) for path in paths]))


def has_masks(rows: pd.DataFrame) -> bool:
    """Whether every row names a mask of its lungs. Blanking some rows by mask and others by box would
    tell the two apart, and with them any class that comes with masks.
    """
    return "lung_mask" in rows and bool((rows["lung_mask"].fillna("") != "").all())


def border(seen: Grids) -> np.ndarray:
    """The frame and its corners, float32 (rows, cells)."""
    return seen.cells[:, in_border()]


def in_border() -> np.ndarray:
    """Cells that the control ``border`` sees, bool (SIDE, SIDE)."""
    from_edge = np.minimum(np.arange(SIDE), np.arange(SIDE)[::-1])
    nearest, farthest = np.minimum.outer(from_edge, from_edge), np.maximum.outer(from_edge, from_edge)
    return (nearest < FRAME) | (farthest < CORNER)


def blanked(seen: Grids) -> np.ndarray:
    """The image without its lungs, or without its centre, float32 (rows, SIDE * SIDE).

    What is blanked takes the mean of the rest.
    """
    hidden = seen.lungs
    if hidden is None:
        box = np.zeros((SIDE, SIDE), bool)
        box[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
        hidden = np.broadcast_to(box, seen.cells.shape)
    visible = ~hidden
    counts = np.maximum(visible.sum(axis=(1, 2), keepdims=True), 1)
    mean = (seen.cells * visible).sum(axis=(1, 2), keepdims=True) / counts
    return np.where(visible, seen.cells, mean).reshape(len(seen.cells), -1)


def thumbnail(seen: Grids) -> np.ndarray:
    """The whole image at 8 by 8, float32 (rows, 64)."""
    each = SIDE // THUMBNAIL
    return seen.cells.reshape(-1, THUMBNAIL, each, THUMBNAIL, each).mean(axis=(2, 4)).reshape(len(seen.cells), -1)


def file_facts(rows: pd.DataFrame, seen: Grids) -> np.ndarray:
    """What a file's header tells, and how bright and how contrasty its border is: float64 (rows, `FACTS`).

    Of the whole image the brightness would show a consolidation. Modes and formats are codes in
    the order of their names; a fact that decoding did not note is 0.
    """
    width, height = (_numbers(rows, name) for name in ("width", "height"))
    codes = [pd.factorize(rows[name].astype(str), sort=True)[0] if name in rows else 0 for name in ("mode", "format")]
    frame = border(seen)
    columns = [width, height, width / np.maximum(height, 1), *codes, frame.mean(axis=1), frame.std(axis=1)]
    return np.stack([np.broadcast_to(np.asarray(column, dtype=float), len(rows)) for column in columns], axis=1)


def _numbers(rows: pd.DataFrame, name: str) -> np.ndarray:
    return rows[name].to_numpy(dtype=float) if name in rows else np.zeros(len(rows))


def _cells(image: np.ndarray) -> np.ndarray:
    averaged = Image.fromarray(image.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(averaged, dtype=np.float32)


def _lungs(path: Path, size: tuple[int, ...], fit: Fit) -> np.ndarray:
    from scipy import ndimage

    mask = read(path, size=(size[0], size[1]), fit=fit).pixels
    if not mask.any():
        raise UnreadableImage(f"{path} is a mask without lungs")
    # Masks are written as 0 and 255, or as 0 and 1.
    touched = _cells(np.where(mask > mask.max() / 2, 255, 0)) > 0
    return ndimage.binary_dilation(touched, np.ones((3, 3), bool), iterations=GROWTH)
