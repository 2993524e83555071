"""Where findings are known to be, as boolean masks at the size of a model's input.

They come from the columns ``mask``, ``mask:NAME``, ``lung_mask`` and ``marker_mask`` of an
index, or from its boxes, and are cut to the lungs, stretched, padded or cropped exactly as the images are. A mask file
covers its whole film, whatever its own size and proportions are.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from chestxray.data import lung_boxes
from chestxray.data.column_kinds import MASK
from chestxray.data.images.pixels import FILTER, ORIENTATION, Box, Fit, UnreadableImage, corners, fitted
from chestxray.data.images.reading import read
from chestxray.errors import DataError, InputError

#: EXIF orientations of images that lie on their side.
_TURNED = (5, 6, 7, 8)
#: A mask whose highest value is at most this holds numbers of labels, not greys.
MOST_LABELS = 31
#: A mask of at most so many greys has one for each label: smoothing and compression make more.
FEW_GREYS = 8


def masks_of(
    rows: pd.DataFrame,
    size: tuple[int, int],
    fit: Fit = "stretch",
    *,
    findings: Sequence[str] | None = None,
    column: str | None = None,
) -> np.ndarray:
    """Return for each image where its finding is: bool (rows, height, width), all False where that is not known.

    Args:
        rows: of an index; ``width`` and ``height`` of the image files are needed for boxes, and for masks of other
            proportions than their films' (without them a mask is taken to have its film's); images with a box in
            `lung_boxes.COLUMN` are cut to it; the mask of a finding outside is empty.
        size: height and width of the model's input.
        fit: how the images are fitted to it.
        findings: the finding that is explained on each image; a box or a mask of another one does not count. None:
            all boxes, and the masks of ``mask``.
        column: a column of paths of masks, such as ``lung_mask``, in place of all others.

    Raises:
        InputError: no such column, or no image has a mask or a box.
        DataError: a mask that cannot be read or is empty, or a box that is empty or outside its film. The message
            names the first one.
    """
    wanted = None if findings is None else list(findings)
    parts = lung_boxes.of_rows(rows)
    if column is not None:
        if column not in rows:
            raise InputError(f"The data have no column of masks {column!r}. Allowed: a column of paths of masks.")
        masks = [
            _file(path, size, fit, part, row)
            for path, part, row in zip(rows[column].fillna(""), parts, _records(rows), strict=True)
        ]
    else:
        masks = [
            _known(row, None if wanted is None else wanted[i], size, fit, parts[i])
            for i, row in enumerate(_records(rows))
        ]
    found = np.zeros((len(rows), *size), bool)
    for row, mask in zip(found, masks, strict=True):
        if mask is not None:
            row[:] = mask
    if not any(mask is not None for mask in masks):
        raise InputError(
            "Where findings are is not known: the data have no mask and no box of them. Allowed: data with masks or "
            "boxes of the explained findings, or --masks FOLDER."
        )
    return found


def _records(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    columns = [name for name in rows if name in ("path", "mask", "boxes", "width", "height") or name.startswith(MASK)]
    return rows[columns].to_dict("records")


def _known(
    row: Mapping[str, Any], finding: str | None, size: tuple[int, int], fit: Fit, part: Box | None
) -> np.ndarray | None:
    """Return the mask of `finding` that a row of an index has: of its own mask, else of its boxes, else None."""
    columns = ("mask",) if finding is None else (MASK + finding, "mask")
    # Empty cells of a table are NaN.
    paths = [path for path in map(row.get, columns) if isinstance(path, str) and path]
    if paths:
        return _file(paths[0], size, fit, part, row)
    text = row.get("boxes")
    boxes = json.loads(text) if isinstance(text, str) and text else []
    boxes = [one for one in boxes if finding is None or one["finding"] == finding]
    if not boxes:
        return None
    own = _sides(row)
    return np.any([box_mask(one, size, fit, own=own, name=row["path"], part=part) for one in boxes], axis=0)


def films_of(rows: pd.DataFrame, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """Return where in each input the film lies, bool (rows, height, width): everywhere but for the bars of `fit` pad.

    Arguments as of `masks_of`. Without a film's width and height it is taken to fill the input.
    """
    films = np.ones((len(rows), *size), bool)
    if fit == "pad":
        parts = lung_boxes.of_rows(rows)
        for film, row, part in zip(films, _records(rows), parts, strict=True):
            if (sides := _sides(row)) is not None:
                whole = Image.new("L", sides, 255)
                whole = whole if part is None else whole.crop(corners(part, *sides))
                film[:] = np.asarray(fitted(whole, size, fit)) > 127
    return films


def _sides(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return width and height of the upright film of a row of an index, None where they are not known.

    An index has those of the file, before its EXIF orientation is applied.
    """
    sides = [row[name] for name in ("width", "height") if name in row and not pd.isna(row[name])]
    if len(sides) != 2:
        return None
    width, height = int(sides[0]), int(sides[1])
    return (height, width) if width != height and _on_its_side(Path(str(row["path"]))) else (width, height)


def _on_its_side(path: Path) -> bool:
    """Return whether an image file is turned by a quarter when it is read, as its EXIF tag says."""
    if not path.is_file():
        return False  # to open a pipe would wait for it
    try:
        # The header alone is read. Pillow warns about large images and unusual tags.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            return image.getexif().get(ORIENTATION) in _TURNED
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False  # no image with EXIF, such as DICOM


def box_mask(
    box: Mapping[str, Any],
    size: tuple[int, int],
    fit: Fit,
    *,
    own: tuple[float, ...] | None = None,
    name: str = "",
    part: Box | None = None,
) -> np.ndarray:
    """Return the pixels whose middle lies in `box`, bool (height, width) of `size`; at least one.

    `box` is one of `chestxray.data.boxes`; `own` is the width and height of the image file, which a box without
    ``of`` is drawn on. The whole film is that size, so that a box outside it is an error; one that a central crop
    removes is left out, and one that is cut is cut. `part`: what of the film is used, None for all of it.

    Raises:
        DataError: the box is empty, or outside its film; the size of the film is not known.
    """
    film: tuple[float, ...] | None = tuple(box["of"]) if box["of"] else own
    said = f"The box of {box['finding']} of {name or 'an image'}"
    if film is None:
        raise DataError(f"{said} is in pixels of its image file, whose size is not known. Allowed: a box with its of.")
    x, y, width, height = (float(box[side]) for side in ("x", "y", "width", "height"))
    received = f"Received: x {x:g}, y {y:g}, width {width:g}, height {height:g} of {film[0]} by {film[1]} pixels."
    if not (width > 0 and height > 0):
        raise DataError(f"{said} is empty. Allowed: width and height above 0. {received}")
    if x >= film[0] or y >= film[1] or x + width <= 0 or y + height <= 0:
        raise DataError(f"{said} lies outside its film. {received}")
    if part is not None:
        # From here on the part is the film.
        x, y = x - part[0] * film[0], y - part[1] * film[1]
        film, own = _cut(film, part), None if own is None else _cut(own, part)
        if x >= film[0] or y >= film[1] or x + width <= 0 or y + height <= 0:
            return np.zeros(size, bool)
    # What the film is scaled to and where its corner comes to lie; a film smaller than its drawing keeps its shape.
    scales = (size[1] / film[0], size[0] / film[1])
    if fit != "stretch":
        shape = film if own is None else own
        scale = (min if fit == "pad" else max)(size[1] / shape[0], size[0] / shape[1])
        scales = (scale * shape[0] / film[0], scale * shape[1] / film[1])
    left, top = ((n - scale * side) / 2 for n, scale, side in zip(size[::-1], scales, film, strict=True))
    inside = []
    for start, length, scale, corner, n in ((y, height, scales[1], top, size[0]), (x, width, scales[0], left, size[1])):
        low, high = corner + scale * start, corner + scale * (start + length)
        middles = np.arange(n) + 0.5
        within = (middles >= low) & (middles < high)
        # A box narrower than a pixel still marks the one that it lies in.
        within |= (np.arange(n) == int((low + high) // 2)) & (not within.any())
        inside.append(within)
    return np.outer(*inside)


def _cut(sides: tuple[float, ...], part: Box) -> tuple[float, ...]:
    """Return the width and height of `part` of a film whose `sides` are its width and height."""
    return sides[0] * (part[2] - part[0]), sides[1] * (part[3] - part[1])


def _file(path: str, size: tuple[int, int], fit: Fit, part: Box | None, row: Mapping[str, Any]) -> np.ndarray | None:
    """Return `part` of a mask file fitted to `size`, bool (height, width), empty where the mask lies outside of the
    part; None where `path` is ``""``. `row`: of an index, with the sides of the film that the mask covers.

    A pixel belongs to the mask where more than half of it does.
    """
    if not path:
        return None
    try:
        drawn = read(Path(path)).pixels
    except UnreadableImage as error:
        raise DataError(f"The mask {path} cannot be read: {error}.") from error
    if not drawn.any():
        raise DataError(f"The mask {path} is empty. Allowed: a mask with a pixel above 0, or no file.")
    image = Image.fromarray(np.where(drawn >= least_inside(drawn), 255, 0).astype(np.uint8))
    # In the film's own proportions, which pad and crop keep.
    sides = None if fit == "stretch" and part is None else _sides(row)
    if sides is not None and sides != image.size:
        image = image.resize(sides, FILTER)
    if part is not None:
        image = image.crop(corners(part, image.width, image.height))
        if not np.asarray(image).any():
            return np.zeros(size, bool)
    small = np.asarray(fitted(image, size, fit))
    # A finding smaller than a pixel is where most of it lies.
    return small > 127 if (small > 127).any() else (small == small.max()) & (small > 0)


def least_inside(drawn: np.ndarray) -> float:
    """Return the least value of a mask's pixels, uint8 of any shape and not all 0, that is inside.

    Masks are written as 0 and 1, as 0 and 255, or with a number or a grey for each of several labels, all of which
    count. Smoothing leaves greys between 0 and the highest value, and compression leaves values near both: a pixel is
    then inside where it is nearer to the highest.

    >>> [least_inside(np.array(values, np.uint8)) for values in ([0, 1, 2], [0, 85, 255], [0, 2, 253, 255])]
    [1.0, 31.875, 31.875]
    """
    counts = np.bincount(drawn.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    values, highest = values[values > 0], float(values[-1])
    if highest <= MOST_LABELS:
        return 1.0
    return highest / 8 if len(values) <= FEW_GREYS else np.nextafter(highest / 2, highest)
