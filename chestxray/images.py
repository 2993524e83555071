"""One image file -> grey uint8 pixels. The header is checked before any pixel is allocated."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from chestxray.errors import DataError

Fit = Literal["stretch", "pad", "crop"]

#: Suffixes that a folder of images is searched for, in lower case.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom"})
MAX_PIXELS = 100_000_000
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


class UnreadableImage(DataError):
    """A file that holds no image that can be read whole. The message is the reason."""


@dataclass(frozen=True)
class Radiograph:
    """A decoded image: ``pixels`` uint8 (height, width), grey, and what the file said of itself.

    ``width`` and ``height`` are those of the file, also where ``pixels`` was read smaller.
    """

    pixels: np.ndarray
    width: int
    height: int
    mode: str
    format: str
    file_hash: str
    pixel_hash: str


def read(
    path: Path, *, size: tuple[int, int] | None = None, fit: Fit = "stretch", max_pixels: int = MAX_PIXELS
) -> Radiograph:
    """Read an image file as grey pixels, fitted to `size` (height, width) where given.

    16-bit and floating-point images are scaled by their own range, never clipped. Transparency is
    laid over black. EXIF orientation is applied. JPEG files much larger than `size` are decoded at
    a half, quarter or eighth of their size (never below `size`), which the JPEG format allows.

    Raises:
        UnreadableImage: no such file, not an image, truncated, more than `max_pixels` pixels.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    return decode(content, size=size, fit=fit, max_pixels=max_pixels)


def decode(
    content: bytes, *, size: tuple[int, int] | None = None, fit: Fit = "stretch", max_pixels: int = MAX_PIXELS
) -> Radiograph:
    """The same as `read`, of a file's bytes."""
    if not content:
        raise UnreadableImage("the file is empty")
    with _open(content, max_pixels) as image:
        width, height, mode, kind = image.width, image.height, image.mode, image.format or ""
        if size is not None and kind == "JPEG":
            image.draft(None, (size[1], size[0]))
        try:
            image.load()
        # Pillow's decoders raise these for truncated, lying or corrupt files.
        except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError) as error:
            raise UnreadableImage(f"{kind} cannot be decoded: {error}") from error
        grey = to_grey(image)
    shape = f"{grey.width}x{grey.height}:".encode()
    return Radiograph(
        pixels=np.asarray(fitted(grey, size, fit) if size else grey),
        width=width,
        height=height,
        mode=mode,
        format=kind,
        file_hash=_digest(content),
        pixel_hash=_digest(shape + grey.tobytes()),
    )


def _open(content: bytes, max_pixels: int) -> Image.Image:
    with warnings.catch_warnings():
        # Our own limit stands below; Pillow's warning would only repeat it.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise UnreadableImage(f"more pixels than the {max_pixels:,} allowed") from error
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            allowed = ", ".join(_FORMATS)
            raise UnreadableImage(f"not an image in a known format ({allowed})") from error
    if image.width * image.height > max_pixels:
        raise UnreadableImage(f"{image.width}x{image.height} is more pixels than the {max_pixels:,} allowed")
    return image


def to_grey(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit grey (mode L), upright."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "L":
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(scaled_to_uint8(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return image.convert("L")


def scaled_to_uint8(values: np.ndarray) -> np.ndarray:
    """Map the range of `values` (any real dtype) onto 0..255. A constant image becomes black.

    Raises:
        UnreadableImage: a value is not finite.
    """
    values = values.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise UnreadableImage("a pixel is not a finite number")
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.round((values - low) * scale).astype(np.uint8)


def fitted(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    """A grey image as `size` (height, width): stretched, padded with black, or cropped centrally."""
    target = (size[1], size[0])
    if image.size == target:
        return image
    # Bilinear with Pillow's support scaled to the reduction: an area average, free of aliasing.
    method = Image.Resampling.BILINEAR
    if fit == "pad":
        return ImageOps.pad(image, target, method=method, color=0)
    if fit == "crop":
        return ImageOps.fit(image, target, method=method)
    return image.resize(target, method)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
