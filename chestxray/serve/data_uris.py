"""Images of the page as data URIs: the radiograph as the model's input, and its heat map as a second layer."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from chestxray.data.images.pixels import fitted
from chestxray.explanation.overlay import colours, marked

if TYPE_CHECKING:
    from chestxray.data.images.pixels import Fit

#: Longer side of an image in pixels.
SIDE = 768
_PALETTE = colours(np.linspace(0, 1, 256)[np.newaxis])[0].tobytes()


def picture(pixels: np.ndarray, size: tuple[int, int], fit: Fit) -> str:
    """Return the data URI of a whole grey image, `pixels` uint8 (height, width), cropped or padded by `fit` for a
    model's `size` (height, width), so that a map of that model can be laid over it.
    """
    image = Image.fromarray(pixels)
    height, width = size if fit != "stretch" else pixels.shape
    scale = SIDE / max(height, width) if fit != "stretch" else min(1.0, SIDE / max(height, width))
    return _uri(fitted(image, (max(1, round(height * scale)), max(1, round(width * scale))), fit))


def heat_map(heat: np.ndarray, *, fails: bool = False) -> str:
    """Return the data URI of a map, float (height, width) in 0..1: transparent where it is 0, opaque where it is 1.

    Shown over the image at an opacity, it looks as `overlay.overlay` with that strength. A map that `fails` its checks
    is enlarged to `SIDE` and says so.
    """
    image = Image.fromarray(np.round(np.clip(heat, 0, 1) * 255).astype(np.uint8))
    if fails:
        return _uri(_warned(image))
    image.putpalette(_PALETTE)
    return _uri(image, transparency=bytes(range(256)))


def _warned(image: Image.Image) -> Image.Image:
    """Return a map, grey levels, in colours, with the opaque mark of a method that fails its checks."""
    scale = SIDE / max(image.size)
    large = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    heat = np.asarray(large)
    mark = marked(np.zeros((*heat.shape, 3), np.uint8))
    is_mark = mark.any(axis=-1, keepdims=True)
    colour = np.where(is_mark, mark, colours(heat / 255))
    opacity = np.where(is_mark, 255, heat[..., np.newaxis])
    return Image.fromarray(np.concatenate([colour, opacity], axis=-1).astype(np.uint8))


def _uri(image: Image.Image, **options: bytes) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, **options)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
