"""Conversion of pixels of any depth and colour to grey uint8 pixels of a given size, for all image formats."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from chestxray.errors import DataError

Fit = Literal["stretch", "pad", "crop"]
#: Part of an image: left, top, right and bottom in shares of its width and height, 0 to 1.
Box = tuple[float, float, float, float]
MAX_PIXELS = 100_000_000
#: The filter for resizing: bilinear with Pillow's support scaled to the reduction, an area average without
#: aliasing.
FILTER = Image.Resampling.BILINEAR
#: The EXIF tag of the orientation.
ORIENTATION = 0x0112
_PHOTOMETRIC = 262  # TIFF; 0: the largest value is black


class UnreadableImage(DataError):
    """A file without an image that can be read completely. The message is the reason."""


class TooManyPixels(UnreadableImage):
    """An image with more pixels than are allowed, according to its header."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `UnreadableImage` if an image has no pixels, `TooManyPixels` if it has more than `max_pixels`."""
    if width * height > max_pixels:
        raise TooManyPixels(f"{width}x{height} is more pixels than the {max_pixels:,} allowed")
    if width < 1 or height < 1:
        raise UnreadableImage(f"the header says {width}x{height} pixels")


def to_grey(image: Image.Image) -> Image.Image:
    """Return any Pillow image as 8-bit grey (mode L), upright.

    Raises:
        UnreadableImage: a pixel is not a finite number.
    """
    # EXIF may rotate an image of any format; most files have no EXIF, and are not copied.
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        grey = scaled_to_uint8(np.asarray(image))
        return Image.fromarray(255 - grey if _white_is_zero(image) else grey)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _over_black(image)
    return image.convert("L")


def _over_black(image: Image.Image) -> Image.Image:
    """Return the image blended with black, in bands of rows: three RGBA copies of a whole film take half a gigabyte."""
    grey = Image.new("L", image.size)
    for top in range(0, image.height, 256):
        band = image.crop((0, top, image.width, min(top + 256, image.height))).convert("RGBA")
        black = Image.new("RGBA", band.size, (0, 0, 0, 255))
        grey.paste(Image.alpha_composite(black, band).convert("L"), (0, top))
    return grey


def _white_is_zero(image: Image.Image) -> bool:
    """Return whether a TIFF stores white as 0: Pillow inverts such images of 8 bits, but not of 16."""
    return image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def scaled_to_uint8(values: np.ndarray) -> np.ndarray:
    """Return `values` (any real dtype) with their range scaled to 0..255, uint8. A constant image becomes black.

    Raises:
        UnreadableImage: a value is not finite.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise UnreadableImage("a pixel is not a finite number")
    values = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    # In place: the copies of a film of 40 million pixels would otherwise take a gigabyte.
    values -= low
    values *= 255.0 / (high - low) if high > low else 0.0
    return np.round(values, out=values).astype(np.uint8)


def corners(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom, whole pixels of an upright image of `width` by `height`, of all pixels that
    `box` touches; at least one.

    >>> corners((0.2, 0.1, 0.8, 0.9), 100, 55)
    (20, 5, 80, 50)
    """
    (left, right), (top, bottom) = (
        (min(math.floor(low * length), length - 1), math.ceil(high * length))
        for low, high, length in ((box[0], box[2], width), (box[1], box[3], height))
    )
    return left, top, max(right, left + 1), max(bottom, top + 1)


def fitted(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    """Return a grey image of `size` (height, width) in pixels: stretched, padded with black, or cropped centrally."""
    target = (size[1], size[0])
    if image.size == target:
        return image
    if fit == "pad":
        return ImageOps.pad(image, target, method=FILTER, color=0)
    if fit == "crop":
        return ImageOps.fit(image, target, method=FILTER)
    return image.resize(target, FILTER)
