"""Image descriptors that a radiograph shares with its edited copies: vectors whose cosine separates copies from others.

The grey values are equalised, so that the tone curve does not matter, and the inner nine tenths of the
picture are described by their lowest cosine frequencies (after Zauner 2010, with numbers in place of
bits). Whitening removes what all chests have in common: the cosine of the descriptors of two different
films is near 0. Rotated and cropped copies are found by describing every film in several poses, mirrored
and inverted ones by changing signs.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from chestxray.data.image_registration import SIDE

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_FREQUENCIES = 12
#: Window of the first pose, as a proportion of the side: it excludes the corners of a film rotated by 5 degrees, and
#: the border of one padded to nine tenths.
_WINDOW = 0.9
#: Poses (windows) in which each film is described: rotation in degrees, scale. Of two films, each is compared with
#: all poses of the other, so that opposite rotations and inverse scales need no poses of their own.
POSES = ((0.0, 1.0), (0.0, 0.93), (4.0, 1.0), (4.0, 0.93), (-4.0, 0.93))
#: Whether a picture is flipped upside down, and whether it is mirrored. Each is its own inverse.
FLIPS = ((False, False), (False, True), (True, False), (True, True))
#: Pictures with a lower standard deviation (in grey values) are blank and are not compared.
_LEAST_CONTRAST = 2.0
#: This many films with the usual spectrum are added to the covariance: estimated from few films alone, variances
#: that are small by chance would get too much weight.
_USUAL = 100
#: Proportion of the median variance that is added to all variances, so that whitening does not amplify rounding errors.
_RIDGE = 0.02


def described(pictures: np.ndarray) -> np.ndarray:
    """Return the cosine coefficients of `pictures`, grey uint8 (films, SIDE, SIDE), in each pose: float32
    (poses, films, 143), zero for a blank picture.
    """
    even = np.stack([_equalised(picture) for picture in pictures]).reshape(len(pictures), -1)
    found = (even @ _projections()).reshape(len(pictures), len(POSES), -1).transpose(1, 0, 2)
    return np.where(pictures.std(axis=(1, 2))[:, None] < _LEAST_CONTRAST, 0, found)


def whiten(found: np.ndarray) -> None:
    """Whiten the result of `described` for all films of a search, (poses, films, 143), in place, to unit vectors; those
    of blank pictures stay zero.
    """
    plain, down, right = found[0], *_parities()
    # Radiographs have amplitudes that fall with the frequency to the power 1.4 to 1.6.
    expected = np.hypot(*_frequencies()) ** -3.0
    total = max(float(np.einsum("ij,ij->", plain, plain, dtype=np.float64)) / max(len(plain), 1), 1e-6)
    covariance = (plain.T @ plain).astype(np.float64) + np.diag(_USUAL * total * expected / expected.sum())
    # Without the covariances that mirroring changes, so that a mirrored film differs from its original in signs only.
    same = (down[:, None] == down) & (right[:, None] == right)
    covariance = np.where(same, covariance / (len(plain) + _USUAL), 0)
    matrix = np.zeros_like(covariance)
    ridge = _RIDGE * np.median(np.diag(covariance))
    for block in np.unique(2 * down + right):
        own = np.flatnonzero(2 * down + right == block)
        values, vectors = np.linalg.eigh(covariance[np.ix_(own, own)])
        matrix[np.ix_(own, own)] = vectors / np.sqrt(np.maximum(values, 0) + ridge)
    for pose in found:
        pose[:] = pose @ matrix.astype(np.float32)
        pose /= np.maximum(np.linalg.norm(pose, axis=1, keepdims=True), 1e-6)


def signs() -> np.ndarray:
    """Return factors, float32 (flips, 143), from the whitened descriptor of a film to that of its flipped copy."""
    down, right = _parities()
    return np.stack([(-1.0) ** (down * upside_down + right * mirrored) for upside_down, mirrored in FLIPS]).astype("f4")


def _frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Return the vertical and the horizontal frequency of each coefficient except the mean: two arrays (143,)."""
    down, right = np.mgrid[:_FREQUENCIES, :_FREQUENCIES]
    return down.ravel()[1:], right.ravel()[1:]


def _parities() -> tuple[np.ndarray, np.ndarray]:
    """Return 1 for each coefficient whose sign changes if a picture is flipped upside down, or mirrored, else 0: two
    arrays (143,).
    """
    down, right = _frequencies()
    return down % 2, right % 2


def _equalised(picture: np.ndarray) -> np.ndarray:
    """Return the picture with each grey value replaced by its rank in the window, -1 to 1."""
    edge = round(SIDE * (1 - _WINDOW) / 2)
    count = np.bincount(picture[edge : SIDE - edge, edge : SIDE - edge].ravel(), minlength=256)
    rank = (2 * np.cumsum(count) - count) / count.sum() - 1
    return rank.astype(np.float32)[picture]


@functools.cache
def _projections() -> np.ndarray:
    """Return the matrix (SIDE * SIDE, poses * 143) from pixels to the coefficients of all poses."""
    from scipy.fft import dct

    # One matrix for the cosine transform and the sampling of all poses, so that each picture is read once: dctn would
    # transform five sampled copies of it to 64 by 64 coefficients each, of which 143 are used.
    waves = np.sqrt(SIDE / 2) * dct(np.eye(SIDE), norm="ortho", axis=0)[:_FREQUENCIES]
    basis = np.einsum("ui,vj->uvij", waves, waves).reshape(_FREQUENCIES**2, -1)[1:]
    parts = [_sampling(rotation, _WINDOW * scale).T @ basis.T for rotation, scale in POSES]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _sampling(rotation: float, scale: float) -> csr_matrix:
    """Return the matrix (SIDE * SIDE, SIDE * SIDE) that samples a window, rotated (degrees) and scaled, bilinearly."""
    from scipy.sparse import csr_matrix

    turn, along = np.deg2rad(rotation), (np.arange(SIDE) + 0.5) / SIDE - 0.5
    down, right = (axis.ravel() for axis in np.meshgrid(along, along, indexing="ij"))
    places = (
        scale * (down * np.cos(turn) + right * np.sin(turn)),
        scale * (right * np.cos(turn) - down * np.sin(turn)),
    )
    row, column = (np.clip((place + 0.5) * SIDE - 0.5, 0, SIDE - 1.001) for place in places)
    top, left = row.astype(int), column.astype(int)
    weights = [(1 - abs(row - top - a)) * (1 - abs(column - left - b)) for a in (0, 1) for b in (0, 1)]
    corners = [(top + a) * SIDE + left + b for a in (0, 1) for b in (0, 1)]
    pixels = np.tile(np.arange(SIDE**2), 4)
    return csr_matrix((np.concatenate(weights), (pixels, np.concatenate(corners))), shape=(SIDE**2, SIDE**2))
