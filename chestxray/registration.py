"""How alike are two radiographs once one is laid over the other? Small pictures, many pairs at once.

Pairs are aligned by shift and scale along each axis, with the least-squares steps of Lucas and
Kanade (1981), first on coarse structure and then on fine, and the correlation of their fine
structure is taken: ribs and vessels, not the shape of a chest, which all chests share.
"""

from __future__ import annotations

import functools

import numpy as np

#: Side of the pictures that are compared, in pixels.
SIDE = 64
#: Structure between two Gaussian blurs (standard deviations in pixels of `SIDE`) and the steps taken on it.
_STAGES = (((1.5, 6.0), 4), ((0.7, 3.0), 4))
_FINE = (0.5, 1.5)
#: Pairs below this after the first stage are given up: edited copies that are found reach 0.6 there.
_HOPELESS = 0.5
#: Pairs that reach this as they are need no alignment.
_IN_PLACE = 0.95
#: Letters and wires are brighter than any rib, and would outweigh them all.
_CLIP = 3.0
#: No more than this many pixels of shift and of stretch at the edge, each.
_FARTHEST = 5.0
_MARGIN = 2
#: Grey values; a band of less has no structure.
_ROUNDING = 0.01


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation (pairs,) of the fine structure of `first` with that of `second`, laid over it.

    Both are grey (pairs, SIDE, SIDE). Brightness and contrast do not matter; a picture without
    structure has correlation 0 with every other. A mirrored picture is another one.
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    # Most copies lie on each other as they are, and to align them would cost eight times as much.
    placement = np.zeros((len(first), 4), dtype=np.float32)
    moved, weight = _laid_over(_band(second, *_FINE), placement)
    result = _correlation(_band(first, *_FINE), moved, weight)
    places = np.flatnonzero(result < _IN_PLACE)
    placement = placement[places]
    for band, steps in _STAGES if len(places) else ():
        fixed, moving = _band(first[places], *band), _band(second[places], *band)
        for _ in range(steps):
            placement = _improved(fixed, moving, placement)
        moved, weight = _laid_over(_band(second[places], *_FINE), placement)
        result[places] = _correlation(_band(first[places], *_FINE), moved, weight)
        hopeful = result[places] > _HOPELESS
        places, placement = places[hopeful], placement[hopeful]
        if not len(places):
            break
    return result


def _improved(fixed: np.ndarray, moving: np.ndarray, placement: np.ndarray) -> np.ndarray:
    """One least-squares step towards the placement that lays `moving` over `fixed`."""
    moved, weight = _laid_over(moving, placement)
    down, right = np.gradient(moved, axis=(1, 2))
    along = np.linspace(-1, 1, SIDE, dtype=np.float32)
    slopes = np.stack([down, down * along[:, None], right, right * along], axis=1) * weight[:, None]
    slopes = slopes.reshape(len(fixed), 4, -1)
    rest = ((fixed - moved) * weight).reshape(len(fixed), -1, 1)
    # The ridge keeps a picture without structure solvable, and moves no other.
    normal = slopes @ slopes.transpose(0, 2, 1) + 0.01 * np.eye(4, dtype=np.float32)
    step = np.linalg.solve(normal, slopes @ rest)[:, :, 0]
    return np.clip(placement + step, -_FARTHEST, _FARTHEST)


def _laid_over(pictures: np.ndarray, placement: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pictures moved (bilinear), and 1 where they have pixels away from the edge, else 0.

    `placement` (pairs, 4): shift and stretch down, shift and stretch to the right.
    """
    along = np.linspace(-1, 1, SIDE, dtype=np.float32)
    grid = np.arange(SIDE, dtype=np.float32)
    rows = grid + placement[:, 0:1] + placement[:, 1:2] * along
    columns = grid + placement[:, 2:3] + placement[:, 3:4] * along
    moved = _between(rows) @ pictures @ _between(columns).transpose(0, 2, 1)
    inner = (grid >= _MARGIN) & (grid < SIDE - _MARGIN)
    down = (rows >= 0) & (rows <= SIDE - 1) & inner
    right = (columns >= 0) & (columns <= SIDE - 1) & inner
    return moved, (down[:, :, None] & right[:, None, :]).astype(np.float32)


def _between(places: np.ndarray) -> np.ndarray:
    """Matrices (pairs, SIDE, SIDE) that interpolate at `places` (pairs, SIDE)."""
    grid = np.arange(SIDE, dtype=np.float32)
    return np.maximum(0, 1 - np.abs(places[:, :, None] - grid))


def _correlation(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    number = weight.sum(axis=(1, 2), keepdims=True) + 1e-6
    first = (first - (first * weight).sum(axis=(1, 2), keepdims=True) / number) * weight
    second = (second - (second * weight).sum(axis=(1, 2), keepdims=True) / number) * weight
    spread = np.sqrt((first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2)))
    return (first * second).sum(axis=(1, 2)) / np.maximum(spread, 1e-6)


def _band(pictures: np.ndarray, fine: float, coarse: float) -> np.ndarray:
    """What is left between two blurs, of spread 1 and clipped; nothing where there is but rounding."""
    sharp, soft = _blur(fine), _blur(coarse)
    left = sharp @ pictures @ sharp.T - soft @ pictures @ soft.T
    spread = left.std(axis=(1, 2), keepdims=True)
    return np.where(spread < _ROUNDING, 0, np.clip(left / np.maximum(spread, _ROUNDING), -_CLIP, _CLIP))


@functools.cache
def _blur(deviation: float) -> np.ndarray:
    """The matrix (SIDE, SIDE) of a Gaussian blur along one axis, mirrored at the edges."""
    reach = int(4 * deviation + 0.5)
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / deviation) ** 2)
    kernel /= kernel.sum()
    matrix = np.zeros((SIDE, SIDE))
    for place in range(SIDE):
        mirrored = np.abs(place + offsets + 0.5) - 0.5
        mirrored = np.where(mirrored > SIDE - 1, 2 * SIDE - 1 - mirrored, mirrored).astype(int)
        np.add.at(matrix[place], mirrored, kernel)
    return matrix.astype(np.float32)
