"""Maps that know nothing of the image, against which every check of heat maps is made.

A map that shows the middle of every film is often near the finding, and one that removes the middle of every film
often changes the answer. A method has shown something about a model only where its maps do better than such maps.
"""

from __future__ import annotations

import numpy as np

from chestxray.explanation.gradcam import enlargement

#: Standard deviation of the blob, in parts of the film's height and width.
SPREAD = 0.25
#: Cells on a side of a random map. Scattered single pixels would be no fair opponent: removing them damages a whole
#: film, whereas maps of a network are coarse.
CELLS = 8


def centre(size: tuple[int, int]) -> np.ndarray:
    """Return a Gaussian blob in the middle of a film of `size` (height, width): float32 (height, width), 1 at most.

    >>> blob = centre((5, 5))
    >>> int(blob.argmax()), bool(blob[0, 0] < blob[0, 2] < blob[2, 2])
    (12, True)
    """
    rows, columns = (np.exp(-0.5 * ((np.arange(n) + 0.5 - n / 2) / (SPREAD * n)) ** 2) for n in size)
    return np.outer(rows, columns).astype(np.float32)


def random(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Return `count` random maps, float32 (count, height, width) in 0..1: `CELLS` by `CELLS` values, enlarged."""
    cells = np.random.default_rng(seed).random((count, CELLS, CELLS), dtype=np.float32)
    rows, columns = (enlargement(CELLS, n) for n in size)
    return rows @ cells @ columns.T


def mean_of_others(maps: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Return for each image the mean of the maps of the other patients' images, float32 (rows, height, width).

    `maps` is float (rows, height, width), each taken as shares of its own sum; an empty map is left out of the means.
    `patients` are codes, int (rows,). An image of the only patient gets an empty map.
    """
    shares = as_shares(maps)
    filled = np.array([share.any() for share in shares])
    total, count = shares.sum(axis=0), int(filled.sum())
    inverse = np.unique(patients, return_inverse=True)[1]
    means = np.empty_like(shares)
    for k in range(int(inverse.max()) + 1):
        rows = np.flatnonzero(inverse == k)
        means[rows] = (total - shares[rows].sum(axis=0)) / max(count - int(filled[rows].sum()), 1)
    # The difference of two equal sums may leave a rounding error below 0.
    return np.maximum(means, 0)


def as_shares(maps: np.ndarray) -> np.ndarray:
    """Return maps, float32 (rows, height, width), each divided by its own sum; an empty map stays empty."""
    sums = maps.sum(axis=(1, 2), keepdims=True, dtype=np.float64)
    return np.divide(maps, sums, out=np.zeros(maps.shape), where=sums > 0).astype(np.float32)
