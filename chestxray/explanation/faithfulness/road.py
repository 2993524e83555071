"""ROAD, Remove And Debias (Rong 2022): pixels are removed so that the shape of what was removed cannot be seen.

A removed pixel becomes the weighted mean of its eight neighbours, 1/6 for those beside it and 1/12 for those at its
corners, plus a little noise. All removed pixels of an image are the solution of one sparse linear system. Neighbours
beyond the edge of the film are left out, and the weights of the others then sum to one.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import sparse
from scipy.sparse.linalg import splu

from chestxray.explanation.faithfulness.pixel_order import Predict, ranks

#: Shares of the film that are removed.
SHARES = (0.2, 0.4, 0.6, 0.8)
#: Standard deviation of the noise, in parts of the grey values' range, as in the paper's code.
NOISE = 0.01
#: Most cells on a side. Pixels of a larger image are removed in cells, and what is filled in is computed on the
#: cells' means and enlarged: the fill is smooth, and a system of 50,000 unknowns would take seconds.
SIDE = 64
_BESIDE, _CORNER = 1 / 6, 1 / 12
_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


def impute(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Return `image`, float64 (height, width, channels), with the pixels of `hidden` filled in, without noise.

    `hidden` is bool (height, width). Where all pixels are hidden, all become the mean of the image.
    """
    filled = image.astype(np.float64)
    count = int(hidden.sum())
    if not count or count == hidden.size:
        return filled if not count else np.broadcast_to(filled.mean(axis=(0, 1)), image.shape).copy()
    rows, columns = np.nonzero(hidden)
    outside, visible = -2, -1
    numbers = np.full((hidden.shape[0] + 2, hidden.shape[1] + 2), outside)
    numbers[1:-1, 1:-1] = visible
    numbers[rows + 1, columns + 1] = np.arange(count)
    around = np.pad(filled, ((1, 1), (1, 1), (0, 0)))
    diagonal, known = np.zeros(count), np.zeros((count, image.shape[2]))
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for dy, dx in _NEIGHBOURS:
        weight = _CORNER if dy and dx else _BESIDE
        number = numbers[rows + 1 + dy, columns + 1 + dx]
        diagonal += weight * (number != outside)
        known += weight * (number == visible)[:, None] * around[rows + 1 + dy, columns + 1 + dx]
        unknown = np.flatnonzero(number >= 0)
        entries.append((np.full(len(unknown), -weight), unknown, number[unknown]))
    entries.append((diagonal, np.arange(count), np.arange(count)))
    values, at_row, at_column = (np.concatenate(part) for part in zip(*entries, strict=True))
    system = sparse.csc_matrix((values, (at_row, at_column)), shape=(count, count))
    # Symmetric and diagonally dominant: no pivoting is needed, which halves the time.
    solver = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True})
    filled[rows, columns] = solver.solve(known)
    return filled


def road(predict: Predict, pixels: np.ndarray, classes: np.ndarray, maps: np.ndarray, *, seed: int) -> np.ndarray:
    """Return how far a map tells needed from unneeded pixels, float64 (rows,) in -0.5..0.5; higher is better.

    It is half the mean difference, over `SHARES` of the film, between the probability after the least marked pixels
    were removed and that after the most marked ones were.

    Args:
        predict: the model.
        pixels: (rows, height, width, channels) in 0..255.
        classes: the class whose probability counts, int (rows,).
        maps: float (rows, height, width).
        seed: of the noise, and of the order of pixels with equal values.
    """
    size = tuple(min(n, SIDE) for n in pixels.shape[1:3])
    places = ranks(_averaged(maps, size), seed)
    cells = np.stack([_averaged(np.moveaxis(image, -1, 0), size) for image in pixels])
    rng = np.random.default_rng(seed)
    found = np.zeros(len(pixels))
    for share in SHARES:
        count = round(share * places[0].size)
        for sign, hidden in ((1, places >= places[0].size - count), (-1, places < count)):
            removed = np.stack([_removed(*one, rng) for one in zip(pixels, cells, hidden, strict=True)])
            found += sign * predict(removed, classes)
    return found / (2 * len(SHARES))


def _removed(image: np.ndarray, cells: np.ndarray, hidden: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `image`, float32 (height, width, channels), without the cells `hidden`, bool (rows, columns)."""
    filled = impute(np.moveaxis(cells, 0, -1), hidden)
    height, width = image.shape[:2]
    fill = np.stack([_resized(filled[..., c], (height, width)) for c in range(image.shape[2])], axis=-1)
    # One noise for all channels: a grey film stays grey.
    fill = fill + rng.normal(0, NOISE * 255, (height, width, 1))
    rows, columns = (np.arange(n) * m // n for n, m in zip((height, width), hidden.shape, strict=True))
    gone = hidden[np.ix_(rows, columns)][..., np.newaxis]
    return np.where(gone, np.clip(fill, 0, 255), image).astype(np.float32)


def _averaged(planes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return `planes`, float (rows, height, width), averaged onto cells: float32 (rows, *size)."""
    return np.stack([_resized(plane, size, Image.Resampling.BOX) for plane in planes])


def _resized(plane: np.ndarray, size: tuple[int, ...], how: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    if plane.shape == size:
        return plane.astype(np.float32)
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((size[1], size[0]), how))
