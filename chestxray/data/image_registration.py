"""How alike are two radiographs once one is laid over the other? Small pictures, many pairs at once.

Pairs are aligned by an affine map, with the least-squares steps of Lucas and Kanade (1981), first on
coarse structure and then on fine, and the correlation of their fine structure is taken: ribs and
vessels, not the shape of a chest, which all chests share.
"""

from __future__ import annotations

import functools

import numpy as np

#: Side of the pictures that are compared, in pixels.
SIDE = 64
#: Local contrast is that within a Gaussian blur of this standard deviation (pixels of `SIDE`). Divided by it,
#: an equalised film, one with a marker and one with a border are as the original; the share of the picture's
#: median contrast that is added keeps what has no structure from becoming noise.
_LOCAL, _FLOOR = 2.5, 0.2
#: Noise weighs less in the structure as it is, and what different films of one person share weighs more: its
#: correlation counts for less by this.
_AS_IT_IS = 0.04
#: Side of the pictures that are aligned, structure between two Gaussian blurs (pixels of that side), and steps.
_STAGES = ((SIDE // 2, (0.75, 3.0), 5), (SIDE, (0.7, 3.0), 4))
_FINE = (0.5, 1.5)
#: Pairs below this after the first stage are given up: edited copies that are found reach 0.5 there.
_HOPELESS = 0.4
#: Pairs that reach this as they are need no alignment.
_IN_PLACE = 0.95
#: Letters and wires are brighter than any rib, and would outweigh them all.
_CLIP = 3.0
#: Of a shift (half sides), a turn (radians) or a stretch (shares), no more than this.
_FARTHEST = 0.2
#: Pixels of `SIDE` beside an edge that are not compared.
_MARGIN = 3
#: Grey values this near to black or white are borders, corners and what was brightened beyond the scale.
_BLACK, _WHITE = 4, 251
#: With a smaller share of the pixels left to compare, these are compared as well.
_LEAST_LEFT = 0.2
#: Grey values; a band of less has no structure.
_ROUNDING = 0.01
#: So many pairs fit into a processor's cache.
_PAIRS = 32


def correlations(first: np.ndarray, second: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Correlation (pairs,) of the fine structure of `first` with that of `second`, laid over it.

    Both are grey, uint8 (pairs, SIDE, SIDE). `start`, float (pairs, 6), is about how `second` lies over
    `first`, see `placement`; default: as they are. Brightness, contrast and tone curve do not matter; a
    picture without structure has correlation 0 with every other. A mirrored picture is another one.
    """
    if start is None:
        start = np.zeros((len(first), 6), dtype=np.float32)
    parts = [slice(place, place + _PAIRS) for place in range(0, len(first), _PAIRS)]
    found = [_correlations(first[part], second[part], start[part].astype(np.float32)) for part in parts]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)


def placement(rotation: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Where the whole of one picture lies over another, of which it shows a turned window: float (pairs, 6).

    `rotation` (pairs,) is that of the window in degrees, `scale` (pairs,) its share of the other's side. The
    columns are shift, stretch and turn down, then shift, turn and stretch to the right.
    """
    turn, none = np.deg2rad(rotation), np.zeros(len(rotation))
    along, across = np.cos(turn) / scale - 1, np.sin(turn) / scale
    return np.stack([none, along, -across, none, across, along], axis=1)


def _correlations(first: np.ndarray, second: np.ndarray, start: np.ndarray) -> np.ndarray:
    ends = [((side <= _BLACK) | (side >= _WHITE)).astype(np.float32) for side in (first, second)]
    plain = [side.astype(np.float32) for side in (first, second)]
    first, second = (_evened(side) for side in plain)
    even, plain = ([_band(side, *_FINE) for side in sides] for sides in ((first, second), plain))

    def correlation(places: np.ndarray, start: np.ndarray) -> np.ndarray:
        where, inside = _sampling(start, SIDE)
        left = inside * (ends[0][places] < 0.5) * (_sampled(ends[1][places], where) < 0.5)
        left = np.where(left.mean(axis=(1, 2), keepdims=True) < _LEAST_LEFT, inside, left)
        alike = (_correlation(fixed[places], _sampled(moving[places], where), left) for fixed, moving in (even, plain))
        return np.maximum(next(alike), next(alike) - _AS_IT_IS)

    # Most copies lie on each other as they are, and to align them would cost eight times as much.
    places = np.arange(len(first))
    result = correlation(places, start)
    places = np.flatnonzero(result < _IN_PLACE)
    start = start[places]
    for side, band, steps in _STAGES if len(places) else ():
        fixed, moving = (_band(_reduced(one[places], side), *band) for one in (first, second))
        start = _aligned(fixed, moving, start, steps)
        result[places] = correlation(places, start)
        hopeful = result[places] > _HOPELESS
        places, start = places[hopeful], start[hopeful]
        if not len(places):
            break
    return result


def _aligned(fixed: np.ndarray, moving: np.ndarray, start: np.ndarray, steps: int) -> np.ndarray:
    """The placement that lays `moving` over `fixed`, after some least-squares steps from `start`."""
    down, right = (slope.reshape(len(fixed), 1, -1) for slope in np.gradient(fixed, axis=(1, 2)))
    basis = _basis(fixed.shape[1])
    slopes = np.concatenate([down * basis, right * basis], axis=1) * (fixed.shape[1] / 2)
    # The ridge keeps a picture without structure solvable, and moves no other.
    normal = np.linalg.inv(slopes @ slopes.transpose(0, 2, 1) + 0.01 * np.eye(6, dtype=np.float32))
    for _ in range(steps):
        where, inside = _sampling(start, fixed.shape[1])
        rest = ((fixed - _sampled(moving, where)) * inside).reshape(len(fixed), -1, 1)
        start = np.clip(start + (normal @ (slopes @ rest))[:, :, 0], -_FARTHEST, _FARTHEST)
    return start


@functools.cache
def _basis(side: int) -> np.ndarray:
    """1, place down and place to the right, -1 to 1, of each pixel: (3, side * side)."""
    along = (2 * np.arange(side) + 1) / side - 1
    return np.stack(np.broadcast_arrays(1.0, along[:, None], along)).reshape(3, -1).astype(np.float32)


def _sampling(start: np.ndarray, side: int) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Where the pixels of the fixed picture lie in the moving one, and 1 where that is away from edges, else 0."""
    moved = start.reshape(-1, 2, 3) @ _basis(side) + _basis(side)[1:]
    moved = ((moved + 1) * side - 1) / 2
    margin = _MARGIN * side // SIDE
    inside = ((moved >= margin) & (moved <= side - 1 - margin)).all(axis=1).reshape(-1, side, side)
    inside[:, :margin] = inside[:, -margin:] = inside[:, :, :margin] = inside[:, :, -margin:] = False
    moved = np.clip(moved, 0, side - 1.001)
    corner = moved.astype(np.int32)
    part = moved - corner
    place = corner[:, 0] * side + corner[:, 1] + np.arange(len(start), dtype=np.int32)[:, None] * side * side
    return (place, part[:, 0], part[:, 1]), inside.astype(np.float32)


def _sampled(pictures: np.ndarray, where: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """The pictures at `where`, bilinear: (pairs, side, side)."""
    place, down, right = where
    flat, side = np.ascontiguousarray(pictures).ravel(), pictures.shape[1]
    upper, lower = (flat.take(place + row) for row in (0, side))
    upper += right * (flat.take(place + 1) - upper)
    lower += right * (flat.take(place + side + 1) - lower)
    return (upper + down * (lower - upper)).reshape(pictures.shape)


def _reduced(pictures: np.ndarray, side: int) -> np.ndarray:
    """The pictures with pixels averaged to `side`."""
    by = pictures.shape[1] // side
    return pictures.reshape(len(pictures), side, by, side, by).mean(axis=(2, 4)) if by > 1 else pictures


def _correlation(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    number = weight.sum(axis=(1, 2), keepdims=True) + 1e-6
    first = (first - (first * weight).sum(axis=(1, 2), keepdims=True) / number) * weight
    second = (second - (second * weight).sum(axis=(1, 2), keepdims=True) / number) * weight
    spread = np.sqrt((first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2)))
    return (first * second).sum(axis=(1, 2)) / np.maximum(spread, 1e-6)


def _evened(pictures: np.ndarray) -> np.ndarray:
    """What differs from the surroundings, divided by the contrast there; 0 where there is but rounding."""
    blur = _blur(_LOCAL, SIDE)
    rest = pictures - blur @ pictures @ blur.T
    local = np.sqrt(np.maximum(blur @ rest**2 @ blur.T, 0))
    usual = np.median(local, axis=(1, 2), keepdims=True)
    return rest / (local + _FLOOR * usual + _ROUNDING)


def _band(pictures: np.ndarray, fine: float, coarse: float) -> np.ndarray:
    """What is left between two blurs, of spread 1 and clipped; nothing where there is but rounding."""
    sharp, soft = (_blur(deviation, pictures.shape[1]) for deviation in (fine, coarse))
    left = sharp @ pictures @ sharp.T - soft @ pictures @ soft.T
    spread = left.std(axis=(1, 2), keepdims=True)
    return np.where(spread < _ROUNDING, 0, np.clip(left / np.maximum(spread, _ROUNDING), -_CLIP, _CLIP))


@functools.cache
def _blur(deviation: float, side: int) -> np.ndarray:
    """The matrix (side, side) of a Gaussian blur along one axis, mirrored at the edges."""
    reach = int(4 * deviation + 0.5)
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / deviation) ** 2)
    kernel /= kernel.sum()
    matrix = np.zeros((side, side))
    for place in range(side):
        mirrored = np.abs(place + offsets + 0.5) - 0.5
        mirrored = np.where(mirrored > side - 1, 2 * side - 1 - mirrored, mirrored).astype(int)
        np.add.at(matrix[place], mirrored, kernel)
    return matrix.astype(np.float32)
