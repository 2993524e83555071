"""Reading 16-bit colour images as grey values of 16 bits.

Pillow has no mode for such images and keeps only the upper eight bits of each value, which hold
almost nothing of a 12-bit film. Its decoders support both byte orders, though: decoding the image a
second time in the other byte order gives the lower byte of each value.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
from PIL import ImageFile, ImageOps

#: Pillow's name of each pixel layout (raw mode) -> that of the same layout in the other byte order.
_OTHER_ORDER = {
    f"{channels};16{order}": f"{channels};16{other}"
    for channels in ("RGB", "RGBX", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}
_GREY_AND_ALPHA = "LA;16B"
_COLOUR = ("RGB", "RGBA", "CMYK")
# TIFF tags: bits per channel; planar configuration, 2 if the channels are stored one after the other.
_BITS, _PLANES = 258, 284
#: Weights of red, green and blue in the brightness, in thousandths (ITU-R 601-2, as in Pillow).
_BRIGHTNESS = (299, 587, 114)


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Return whether an opened image, not yet loaded, has several channels of 16 bits."""
    if image.mode not in _COLOUR:
        return False
    return ";16" in _layout(image) or 16 in _tag(image, _BITS, ())


def brightness(image: ImageFile.ImageFile) -> np.ndarray:
    """Return the grey values of an opened image for which `is_deep` is True, upright: float32 (height, width), 0 to
    65535. Transparent pixels are blended with black.

    Raises:
        ValueError: the values are stored in an unsupported way (planes, CMYK, premultiplied).
    """
    layout = _layout(image)
    if layout == _GREY_AND_ALPHA:
        # Two channels of two bytes, decoded as four of one byte.
        high, low, alpha_high, alpha_low = np.moveaxis(_decoded(image, "RGBA"), -1, 0)
        return _over_black(_joined(high, low), _joined(alpha_high, alpha_low))
    if layout not in _OTHER_ORDER:
        raise ValueError(f"16-bit colour stored as {layout} is not supported")
    values = _joined(_decoded(image, layout), _decoded(image, _OTHER_ORDER[layout]))
    alpha = values[..., 3] if values.shape[2] == 4 else None
    if alpha is None and isinstance(clear := image.info.get("transparency"), tuple):
        alpha = np.where((values == np.array(clear, dtype=np.uint16)).all(axis=2), 0, 65535).astype(np.uint16)
    # Integers, so that three equal channels give exactly their value.
    total = np.full(values.shape[:2], 500, dtype=np.uint32)
    for channel, weight in enumerate(_BRIGHTNESS):
        total += values[..., channel].astype(np.uint32) * np.uint32(weight)
    return _over_black(total // 1000, alpha)


def _layout(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name of the pixel layout in the file, such as ``RGB;16B``, or ``planes``."""
    if not image.tile or _tag(image, _PLANES, 1) == 2:
        # Pillow names planes as if they had eight bits, and decodes compressed ones wrongly.
        return "planes"
    arguments = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _tag(image: ImageFile.ImageFile, number: int, default: Any) -> Any:
    return getattr(image, "tag_v2", {}).get(number, default)


def _decoded(image: ImageFile.ImageFile, layout: str) -> np.ndarray:
    """Return the file's pixels decoded as `layout`, upright: uint8 (height, width, channels)."""
    assert isinstance(image.fp, io.BytesIO)
    with type(image)(io.BytesIO(image.fp.getvalue()), "") as again:
        again.tile = [
            tile._replace(args=(layout, *tile.args[1:]) if isinstance(tile.args, tuple) else layout)
            for tile in again.tile
        ]
        # Loading turns a TIFF upright, but not a PNG.
        again.load()
        return np.asarray(ImageOps.exif_transpose(again))


def _joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return high.astype(np.uint16) << 8 | low


def _over_black(values: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    grey = values.astype(np.float32)
    return grey if alpha is None else grey * (alpha.astype(np.float32) / 65535)
