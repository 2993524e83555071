"""16-bit colour -> grey values of 16 bits.

Pillow has no mode for such images and keeps the upper eight bits of each value, which of a 12-bit
film are nearly nothing. Its decoders know both orders of bytes, though: an image that is decoded a
second time in the other order has the lower byte of each value where Pillow looks for the upper.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
from PIL import ImageFile, ImageOps

#: Pillow's names of how pixels lie in a file -> the same pixels in the other order of bytes.
_OTHER_ORDER = {
    f"{channels};16{order}": f"{channels};16{other}"
    for channels in ("RGB", "RGBX", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}
_GREY_AND_ALPHA = "LA;16B"
_COLOUR = ("RGB", "RGBA", "CMYK")
# TIFF: bits of each channel; 2 where the channels lie one after the other.
_BITS, _PLANES = 258, 284
#: What red, green and blue add to the brightness, in thousandths (ITU-R 601-2, as in Pillow's own).
_BRIGHTNESS = (299, 587, 114)


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an opened image, not yet loaded, has several channels of 16 bits."""
    if image.mode not in _COLOUR:
        return False
    return ";16" in _layout(image) or 16 in _tag(image, _BITS, ())


def brightness(image: ImageFile.ImageFile) -> np.ndarray:
    """The grey values of an opened image that `is_deep`, upright: float32 (height, width), 0 to 65535.

    Transparency is laid over black.

    Raises:
        ValueError: the values are stored in a way that is not known here (planes, CMYK, premultiplied).
    """
    layout = _layout(image)
    if layout == _GREY_AND_ALPHA:
        # Two values of two bytes, read as four of one.
        high, low, alpha_high, alpha_low = np.moveaxis(_decoded(image, "RGBA"), -1, 0)
        return _over_black(_joined(high, low), _joined(alpha_high, alpha_low))
    if layout not in _OTHER_ORDER:
        raise ValueError(f"16-bit colour stored as {layout} is not supported")
    values = _joined(_decoded(image, layout), _decoded(image, _OTHER_ORDER[layout]))
    alpha = values[..., 3] if values.shape[2] == 4 else None
    if alpha is None and isinstance(clear := image.info.get("transparency"), tuple):
        alpha = np.where((values == np.array(clear, dtype=np.uint16)).all(axis=2), 0, 65535).astype(np.uint16)
    # Whole numbers, so that colour of three equal channels is exactly the grey that it shows.
    total = np.full(values.shape[:2], 500, dtype=np.uint32)
    for channel, weight in enumerate(_BRIGHTNESS):
        total += values[..., channel].astype(np.uint32) * np.uint32(weight)
    return _over_black(total // 1000, alpha)


def _layout(image: ImageFile.ImageFile) -> str:
    """Pillow's name of how the pixels lie in the file, such as ``RGB;16B``."""
    if not image.tile or _tag(image, _PLANES, 1) == 2:
        # Pillow names planes as if they had eight bits, and mistakes them where they are compressed.
        return "planes"
    arguments = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _tag(image: ImageFile.ImageFile, number: int, default: Any) -> Any:
    return getattr(image, "tag_v2", {}).get(number, default)


def _decoded(image: ImageFile.ImageFile, layout: str) -> np.ndarray:
    """The file's pixels, upright uint8 (height, width, channels), decoded as if they lay as `layout` says."""
    assert isinstance(image.fp, io.BytesIO)
    with type(image)(io.BytesIO(image.fp.getvalue()), "") as again:
        again.tile = [
            tile._replace(args=(layout, *tile.args[1:]) if isinstance(tile.args, tuple) else layout)
            for tile in again.tile
        ]
        # Of a TIFF, loading turns it upright; of a PNG it does not.
        again.load()
        return np.asarray(ImageOps.exif_transpose(again))


def _joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return high.astype(np.uint16) << 8 | low


def _over_black(values: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    grey = values.astype(np.float32)
    return grey if alpha is None else grey * (alpha.astype(np.float32) / 65535)
