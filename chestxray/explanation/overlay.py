"""Draws a heat map over the radiograph that it explains."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

#: Colours from low to high (position, red, green, blue), linear in between; safe for colour vision deficiency.
_STOPS = np.array(
    [[0.0, 13, 8, 135], [0.25, 126, 3, 168], [0.5, 204, 71, 120], [0.75, 248, 149, 64], [1.0, 240, 249, 33]]
)


def colours(heat: np.ndarray) -> np.ndarray:
    """Return the colours, uint8 (height, width, 3), of a map (height, width) in 0..1, as matplotlib's plasma."""
    channels = [np.interp(heat, _STOPS[:, 0], _STOPS[:, i]) for i in (1, 2, 3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def overlay(pixels: np.ndarray, heat: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """Return `heat`, float (height, width) in 0..1, over grey `pixels`, uint8 (height, width): uint8, three channels.

    The opacity of the colours is proportional to the heat, at most `strength`: where the heat is 0 the radiograph
    is unchanged.
    """
    cover = strength * np.clip(heat, 0, 1)[..., np.newaxis]
    grey = np.repeat(pixels[..., np.newaxis].astype(np.float32), 3, axis=-1)
    return np.round(grey * (1 - cover) + colours(heat) * cover).astype(np.uint8)


#: What a picture says whose method fails the checks for this model, and the narrowest picture that has room for it.
WARNING, _ROOM = "map fails its checks", 96


def marked(picture: np.ndarray) -> np.ndarray:
    """Return `picture`, uint8 (height, width, 3), framed in red and, where there is room, with `WARNING` on it."""
    image = Image.fromarray(picture)
    draw, (width, height) = ImageDraw.Draw(image), image.size
    red = (215, 25, 28)
    draw.rectangle((0, 0, width - 1, height - 1), outline=red, width=max(1, min(width, height) // 60))
    if width >= _ROOM:
        font = ImageFont.load_default(max(9, width // 14))
        left, top, right, bottom = draw.textbbox((0, 0), WARNING, font=font)
        draw.rectangle((0, 0, width - 1, bottom - top + 4), fill=red)
        draw.text(((width - right + left) / 2 - left, 2 - top), WARNING, font=font, fill=(255, 255, 255))
    return np.asarray(image)
