"""Registration: aligning pairs of small pictures and measuring their similarity, many pairs at once.

Pairs are aligned by an affine transform, with the least-squares steps of Lucas and Kanade (1981), first on
coarse structure and then on fine. Their similarity is the correlation of fine structure: ribs and vessels,
not the shape of the chest, which all chests share.
"""

from __future__ import annotations

import functools

import numpy as np

#: Side of the pictures that are compared, in pixels.
SIDE = 64
#: Local contrast is computed with a Gaussian blur of this standard deviation (pixels of `SIDE`). After division by
#: it, an equalised film, one with a marker and one with a border look like the original. The proportion of the
#: median contrast that is added to it keeps areas without structure from becoming noise.
_LOCAL, _FLOOR = 2.5, 0.2
#: Without that division, noise has less weight, but what different films of one person have in common has more: the
#: correlation without it is reduced by this much.
_AS_IT_IS = 0.04
#: Stages of alignment: side of the pictures, standard deviations of the two Gaussian blurs between which structure is
#: used (pixels of that side), number of steps.
_STAGES = ((SIDE // 2, (0.75, 3.0), 5), (SIDE, (0.7, 3.0), 4))
_FINE = (0.5, 1.5)
#: Pairs with a lower correlation after the first stage are abandoned: detectable copies reach 0.5 there.
_HOPELESS = 0.4
#: Pairs that reach this correlation without alignment are not aligned.
_IN_PLACE = 0.95
#: Values are clipped at this many standard deviations: letters and wires are brighter than any rib and would dominate.
_CLIP = 3.0
#: Maximum of a shift (half sides), a rotation (radians) or a relative stretch.
_FARTHEST = 0.2
#: Width of the margin that is not compared (pixels of `SIDE`).
_MARGIN = 3
#: Pixels with grey values up to the first or from the second are borders, corners or saturated: they are not compared.
_BLACK, _WHITE = 4, 251
#: If a smaller proportion of pixels would be left, such pixels are compared as well.
_LEAST_LEFT = 0.2
#: Standard deviation (grey values) below which a band has no structure but rounding errors.
_ROUNDING = 0.01
#: Number of pairs processed at once, which fit into a processor's cache.
_PAIRS = 32


def correlations(first: np.ndarray, second: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Return the correlation of the fine structure of `first` and `second` after alignment: float32 (pairs,).

    Both are grey, uint8 (pairs, SIDE, SIDE). `start`, float (pairs, 6), is the approximate alignment of
    `second` to `first`, see `placement`; default: none. Brightness, contrast and tone curve do not matter;
    a picture without structure has correlation 0 with every other. Mirrored pictures are not aligned.
    """
    if start is None:
        start = np.zeros((len(first), 6), dtype=np.float32)
    parts = [slice(place, place + _PAIRS) for place in range(0, len(first), _PAIRS)]
    found = [_correlations(first[part], second[part], start[part].astype(np.float32)) for part in parts]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)


def placement(rotation: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the alignment of a picture to another one, of which it shows a rotated window: float (pairs, 6).

    `rotation` (pairs,) is that of the window in degrees, `scale` (pairs,) its side relative to the other's. The
    columns are vertical shift, stretch and rotation, then horizontal shift, rotation and stretch.
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

    # Most copies need no alignment, which would take eight times as long.
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
    """Return the alignment of `moving` to `fixed`, (pairs, 6), after some least-squares steps from `start`."""
    down, right = (slope.reshape(len(fixed), 1, -1) for slope in np.gradient(fixed, axis=(1, 2)))
    basis = _basis(fixed.shape[1])
    slopes = np.concatenate([down * basis, right * basis], axis=1) * (fixed.shape[1] / 2)
    # The ridge makes the system solvable for pictures without structure, and does not affect others.
    normal = np.linalg.inv(slopes @ slopes.transpose(0, 2, 1) + 0.01 * np.eye(6, dtype=np.float32))
    for _ in range(steps):
        where, inside = _sampling(start, fixed.shape[1])
        rest = ((fixed - _sampled(moving, where)) * inside).reshape(len(fixed), -1, 1)
        start = np.clip(start + (normal @ (slopes @ rest))[:, :, 0], -_FARTHEST, _FARTHEST)
    return start


@functools.cache
def _basis(side: int) -> np.ndarray:
    """Return 1, the vertical and the horizontal position, -1 to 1, of each pixel: (3, side * side)."""
    along = (2 * np.arange(side) + 1) / side - 1
    return np.stack(np.broadcast_arrays(1.0, along[:, None], along)).reshape(3, -1).astype(np.float32)


def _sampling(start: np.ndarray, side: int) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Return the positions of the fixed picture's pixels in the moving one, and 1 for those away from edges, else 0."""
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
    """Return the pictures sampled bilinearly at the positions `where`: (pairs, side, side)."""
    place, down, right = where
    flat, side = np.ascontiguousarray(pictures).ravel(), pictures.shape[1]
    upper, lower = (flat.take(place + row) for row in (0, side))
    upper += right * (flat.take(place + 1) - upper)
    lower += right * (flat.take(place + side + 1) - lower)
    return (upper + down * (lower - upper)).reshape(pictures.shape)


def _reduced(pictures: np.ndarray, side: int) -> np.ndarray:
    """Return the pictures with pixels averaged to `side`: (pairs, side, side)."""
    by = pictures.shape[1] // side
    return pictures.reshape(len(pictures), side, by, side, by).mean(axis=(2, 4)) if by > 1 else pictures


def _correlation(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    number = weight.sum(axis=(1, 2), keepdims=True) + 1e-6
    first = (first - (first * weight).sum(axis=(1, 2), keepdims=True) / number) * weight
    second = (second - (second * weight).sum(axis=(1, 2), keepdims=True) / number) * weight
    spread = np.sqrt((first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2)))
    return (first * second).sum(axis=(1, 2)) / np.maximum(spread, 1e-6)


def _evened(pictures: np.ndarray) -> np.ndarray:
    """Return the difference from the surroundings divided by the local contrast; 0 where there is only rounding."""
    blur = _blur(_LOCAL, SIDE)
    rest = pictures - blur @ pictures @ blur.T
    local = np.sqrt(np.maximum(blur @ rest**2 @ blur.T, 0))
    usual = np.median(local, axis=(1, 2), keepdims=True)
    return rest / (local + _FLOOR * usual + _ROUNDING)


def _band(pictures: np.ndarray, fine: float, coarse: float) -> np.ndarray:
    """Return the difference of two blurs, with standard deviation 1 and clipped; 0 if there is only rounding."""
    sharp, soft = (_blur(deviation, pictures.shape[1]) for deviation in (fine, coarse))
    left = sharp @ pictures @ sharp.T - soft @ pictures @ soft.T
    spread = left.std(axis=(1, 2), keepdims=True)
    return np.where(spread < _ROUNDING, 0, np.clip(left / np.maximum(spread, _ROUNDING), -_CLIP, _CLIP))


@functools.cache
def _blur(deviation: float, side: int) -> np.ndarray:
    """Return the matrix (side, side) of a Gaussian blur along one axis, mirrored at the edges."""
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
