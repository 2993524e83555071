"""Inputs of the shortcut controls: the parts of an image without the lungs, as features.

Images are first averaged onto a grid of `SIDE` by `SIDE` cells, each the mean of its own pixels
alone, so that no visible cell contains pixels of a hidden one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from chestxray.data import lung_boxes
from chestxray.data.images.pixels import Box, Fit, UnreadableImage
from chestxray.data.images.reading import read

SIDE = 32
#: In cells: width of the frame, side of the squares in its corners, and margin round the blanked box in the
#: centre. Lungs reach to a sixteenth of the width, but never into a corner, where letters and labels are.
FRAME = 2
CORNER = 6
MARGIN = 4
#: Cells by which a lung mask is dilated, since masks are drawn a little too small.
GROWTH = 1
THUMBNAIL = 8
FACTS = ("width", "height", "aspect", "mode", "format", "brightness", "contrast")


@dataclass(frozen=True)
class Grids:
    """Images averaged onto cells.

    ``cells``: float32 (rows, SIDE, SIDE), grey 0..255; ``lungs``: bool of the same shape, the cells that a dilated
    lung mask touches, None where not every row has a mask. ``cut``: images are cut to their lungs, which then reach
    into the corners, and nearly to the frame.
    """

    cells: np.ndarray
    lungs: np.ndarray | None
    cut: bool = False


def grids(rows: pd.DataFrame, pixels: np.ndarray, places: np.ndarray, fit: Fit, *, masked: bool) -> Grids:
    """Return the images at `places` of `pixels`, uint8 (rows, height, width), averaged onto cells.

    `masked`: also read the lung masks (column ``lung_mask`` of `rows`), fitted as the pixels are.

    Raises:
        UnreadableImage: a mask that cannot be read, or is empty.
    """
    cells, cut = np.stack([_cells(pixels[place]) for place in places]), lung_boxes.COLUMN in rows
    if not masked:
        return Grids(cells, None, cut)
    chosen = rows.iloc[places]
    paths = zip(chosen["lung_mask"], lung_boxes.of_rows(chosen), strict=True)
    return Grids(cells, np.stack([_lungs(Path(path), pixels.shape[1:], fit, box) for path, box in paths]), cut)


def has_masks(rows: pd.DataFrame) -> bool:
    """Return whether every row names a lung mask.

    Masks are used for all rows or none: blanking some by mask and others by box would make the two distinguishable,
    and with them any class that comes with masks.
    """
    return "lung_mask" in rows and bool((rows["lung_mask"].fillna("") != "").all())


def border(seen: Grids) -> np.ndarray:
    """Return the cells of the frame and its corners, float32 (rows, cells); of the frame alone where images are cut to
    their lungs.
    """
    return seen.cells[:, in_border(corners=not seen.cut)]


def in_border(*, corners: bool = True) -> np.ndarray:
    """Return the cells that the control ``border`` sees, bool (SIDE, SIDE)."""
    from_edge = np.minimum(np.arange(SIDE), np.arange(SIDE)[::-1])
    nearest, farthest = np.minimum.outer(from_edge, from_edge), np.maximum.outer(from_edge, from_edge)
    return (nearest < FRAME) | ((farthest < CORNER) & corners)


def blanked(seen: Grids) -> np.ndarray:
    """Return the image without its lungs, or without its centre, float32 (rows, SIDE * SIDE).

    Blanked cells are set to the mean of the others.
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
    """Return the whole image at 8 by 8, float32 (rows, 64)."""
    each = SIDE // THUMBNAIL
    return seen.cells.reshape(-1, THUMBNAIL, each, THUMBNAIL, each).mean(axis=(2, 4)).reshape(len(seen.cells), -1)


def file_facts(rows: pd.DataFrame, seen: Grids) -> np.ndarray:
    """Return facts of the file header, and brightness and contrast of the border: float64 (rows, len(FACTS)).

    The brightness of the whole image is not used, since it could show a consolidation. Modes and formats are codes
    in the order of their names; a fact that is not known is 0.
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


def _lungs(path: Path, size: tuple[int, ...], fit: Fit, box: Box | None) -> np.ndarray:
    from scipy import ndimage

    mask = read(path, size=(size[0], size[1]), fit=fit, box=box).pixels
    if not mask.any():
        raise UnreadableImage(f"{path} is an empty lung mask")
    # Masks are written as 0 and 255, or as 0 and 1.
    touched = _cells(np.where(mask > mask.max() / 2, 255, 0)) > 0
    return ndimage.binary_dilation(touched, np.ones((3, 3), bool), iterations=GROWTH)
