"""Sampling of training images by the rarity of what they show.

Repeat factor sampling (Gupta, Dollar and Girshick 2019, LVIS): an image is drawn in proportion to its factor, which is
that of the rarest of the classes or findings that it shows, sqrt(t / f), f being the proportion of images that show it
and t that of the most frequent one. An image of the most frequent class, or without any finding, has a factor of 1.
"""

from __future__ import annotations

import numpy as np

from chestxray.recipe import Recipe


def factors(labels: np.ndarray, recipe: Recipe) -> np.ndarray | None:
    """Return how often each row is drawn in proportion to the others, float64 (rows,), at least 1; None where all are
    drawn alike.

    `labels`: float32 (rows, classes) of the training rows, one-hot, or of findings from 0 to 1 and NaN where one is
    not known. A proportion is that of the rows where the finding is known.
    """
    if recipe.sampling == "uniform":
        return None
    shown = np.nan_to_num(labels) >= 0.5
    shares = shown.sum(axis=0) / np.maximum(np.isfinite(labels).sum(axis=0), 1)
    of_each = np.sqrt(shares.max() / np.where(shares > 0, shares, np.inf))
    return np.maximum(np.where(shown, of_each, 1.0).max(axis=1), 1.0)


def drawn(factors: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return the places of `count` rows, int64, each drawn in proportion to its factor, in random order.

    The sampling is systematic: a row that is expected m times is drawn either the whole number below m or the one
    above, so that with equal factors and as many draws as rows each row is drawn once.
    """
    permuted = generator.permutation(len(factors))
    edges = np.cumsum(factors[permuted])
    points = (generator.random() + np.arange(count)) * (edges[-1] / count)
    places = np.minimum(np.searchsorted(edges, points, side="right"), len(factors) - 1)
    return generator.permutation(permuted[places])
