"""Curves of a model's probability while pixels are removed or inserted in the order of a map (Petsiuk 2018)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import integrate, ndimage

#: From images, float32 (rows, height, width, channels) in 0..255, and classes, int (rows,): the probability of the
#: class, float (rows,).
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: Shares of the pixels that are removed or inserted, with both ends.
STEPS = np.linspace(0, 1, 9)
#: Standard deviation of the blur that insertion begins with, in parts of the film's width: no finding survives it.
BLUR = 0.1


def ranks(maps: np.ndarray, seed: int) -> np.ndarray:
    """Return the place of each pixel by falling value, int (rows, height, width), from 0; ties have random places.

    An empty map therefore gives a random order.
    """
    rng = np.random.default_rng(seed)
    flat = maps.reshape(len(maps), -1)
    places = np.empty(flat.shape, np.int64)
    for row, values in enumerate(flat):
        places[row, np.lexsort((rng.random(len(values)), -values))] = np.arange(len(values))
    return places.reshape(maps.shape)


def deletion(predict: Predict, pixels: np.ndarray, classes: np.ndarray, maps: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the area under the probability while the pixels that a map marks first are removed, float64 (rows,).

    A removed pixel gets the mean grey value of its image. A lower area is better: the probability falls sooner.
    Arguments as of `insertion`.
    """
    empty = np.broadcast_to(pixels.mean(axis=(1, 2), keepdims=True), pixels.shape)
    return _area(predict, empty, pixels, classes, ranks(maps, seed), STEPS)


def insertion(predict: Predict, pixels: np.ndarray, classes: np.ndarray, maps: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the area under the probability while the pixels that a map marks first return to a blurred image.

    Args:
        predict: the model.
        pixels: (rows, height, width, channels) in 0..255.
        classes: the class whose probability counts, int (rows,).
        maps: float (rows, height, width).
        seed: of the order of pixels with equal values.

    Returns:
        float64 (rows,). A higher area is better.
    """
    sigma = BLUR * pixels.shape[2]
    blurred = ndimage.gaussian_filter(pixels.astype(np.float32), (0, sigma, sigma, 0))
    return _area(predict, pixels, blurred, classes, ranks(maps, seed), STEPS)


def _area(
    predict: Predict, new: np.ndarray, old: np.ndarray, classes: np.ndarray, places: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """Return the area under the probability while pixels of `old` become those of `new` in the order of `places`."""
    count = places[0].size
    curve = []
    for share in steps:
        changed = (places < round(share * count))[..., np.newaxis]
        curve.append(predict(np.where(changed, new, old).astype(np.float32), classes))
    return integrate.trapezoid(np.stack(curve, axis=1), steps, axis=1)
