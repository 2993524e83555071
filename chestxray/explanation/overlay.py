"""A heat map laid over the radiograph it explains."""

from __future__ import annotations

import numpy as np

#: Colours from cold to hot, linear between these stops; dark at both vision-deficient-safe ends.
_STOPS = np.array(
    [[0.0, 13, 8, 135], [0.25, 126, 3, 168], [0.5, 204, 71, 120], [0.75, 248, 149, 64], [1.0, 240, 249, 33]]
)


def colours(heat: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3) from a map (height, width) in 0..1, by matplotlib's plasma stops."""
    channels = [np.interp(heat, _STOPS[:, 0], _STOPS[:, i]) for i in (1, 2, 3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def overlay(pixels: np.ndarray, heat: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """uint8 (height, width, 3): `heat` (height, width) in 0..1 over grey `pixels` uint8 of that size.

    The more a place matters, the less of the radiograph shows through, at most `strength` of it
    covered: cold places keep the radiograph as it is.
    """
    cover = strength * np.clip(heat, 0, 1)[..., np.newaxis]
    grey = np.repeat(pixels[..., np.newaxis].astype(np.float32), 3, axis=-1)
    return np.round(grey * (1 - cover) + colours(heat) * cover).astype(np.uint8)
