"""Whether a map stays where it was when the image changes by what does not change the answer.

The map of a shifted, rotated or noisy image, moved back, is compared with the map of the image itself by Spearman's
rank correlation. How alike any two maps of the model are is the level that it must exceed (Arun 2021 take 50 random
pairs): a method whose maps all look alike is stable, and says nothing of an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage, stats

from chestxray.evaluation.intervals import Figure, around
from chestxray.explanation.faithfulness.pixel_order import Predict
from chestxray.explanation.map_check import Explain, Verdict
from chestxray.explanation.map_estimates import FEWEST_PATIENTS, mean
from chestxray.explanation.sanity.similarity import is_constant

#: Shift along each side in parts of it, rotation in degrees, standard deviation of the noise in grey values of 255.
SHIFT, ROTATION, NOISE = 0.03, 4.0, 3.0
#: An image whose probability of the explained class changes by more than this is left out for that change.
STEADY = 0.05
PAIRS = 50


@dataclass(frozen=True)
class Stability:
    """Rank correlations of maps, each a `Figure` in -1..1.

    ``own``: between the maps of an image and of the changed image; ``pairs``: between maps of two patients' images;
    ``difference``: of the two. ``compared`` and ``unsteady`` are the numbers of changed images that were compared, and
    that were left out because the probability changed; ``shown`` is the number of
    images whose map shows a place, and ``even`` that of the others, which are left out.
    """

    own: Figure
    pairs: Figure
    difference: Figure
    compared: int
    unsteady: int
    patients: int
    shown: int
    even: int

    @property
    def verdict(self) -> Verdict:
        """``passes``: above the level of pairs with an interval above 0; ``fails``: on average not above it. Where most
        maps show no place it does not pass.
        """
        value, low = self.difference.value, self.difference.low
        if value is None or self.patients < FEWEST_PATIENTS:
            return "doubtful"
        if value <= 0:
            return "fails"
        return "passes" if low is not None and low > 0 and self.shown >= self.even else "doubtful"


def stability(
    model: Any,
    explain: Explain,
    predict: Predict,
    pixels: np.ndarray,
    classes: np.ndarray,
    patients: np.ndarray,
    maps: np.ndarray,
    *,
    seed: int,
) -> Stability:
    """Return how alike maps of changed images are to `maps`, float32 (rows, height, width), those of `pixels`.

    `model`, `pixels`, uint8 (rows, height, width, channels), and `classes`, int (rows,), are those of `explain`;
    `patients` are codes, int (rows,).
    """
    rng = np.random.default_rng(seed)
    # A map that shows no place cannot move.
    shown = ~is_constant(maps)
    pixels, classes, patients, maps = pixels[shown], classes[shown], patients[shown], maps[shown]
    if not len(maps):
        unknown = Figure(None, None, None)
        return Stability(unknown, unknown, unknown, compared=0, unsteady=0, patients=0, shown=0, even=len(shown))
    probability = predict(pixels.astype(np.float32), classes)
    alike, of_patient, unsteady = [np.empty(0)], [np.empty(0, np.int64)], 0
    for change in ("shift", "rotation", "noise"):
        moves = [_move(change, pixels.shape[1:3], rng) for _ in pixels]
        changed = np.stack([_changed(image, move, rng) for image, move in zip(pixels, moves, strict=True)])
        steady = np.abs(predict(changed.astype(np.float32), classes) - probability) <= STEADY
        unsteady += int((~steady).sum())
        if not steady.any():
            continue
        rows = np.flatnonzero(steady)
        new = explain(model, changed[rows], classes[rows])
        alike.append(np.array([_moved_back(maps[i], other, moves[i]) for i, other in zip(rows, new, strict=True)]))
        of_patient.append(patients[rows])
    values, clusters = np.concatenate(alike), np.concatenate(of_patient)
    pairs = _of_pairs(maps, patients, rng)
    own, level = mean(values, clusters, span=(-1, 1), seed=seed), _mean_of_pairs(pairs)
    difference = _difference(own, level, len(np.unique(clusters)))
    return Stability(
        own, level, difference, len(values), unsteady, len(np.unique(clusters)), len(maps), int((~shown).sum())
    )


@dataclass(frozen=True)
class _Move:
    """A rotation about the middle by ``angle`` degrees and a ``shift`` in pixels; ``noise`` in grey values."""

    angle: float
    shift: tuple[float, float]
    noise: float


def _move(change: str, size: tuple[int, ...], rng: np.random.Generator) -> _Move:
    signs = rng.choice((-1.0, 1.0), 2)
    if change == "shift":
        rows, columns = (max(1.0, round(SHIFT * n)) * sign for n, sign in zip(size, signs, strict=True))
        return _Move(0.0, (rows, columns), 0.0)
    return _Move(ROTATION * signs[0] if change == "rotation" else 0.0, (0.0, 0.0), NOISE if change == "noise" else 0.0)


def _changed(image: np.ndarray, move: _Move, rng: np.random.Generator) -> np.ndarray:
    moved = np.stack([_moved(image[..., c].astype(np.float32), move) for c in range(image.shape[2])], axis=-1)
    if move.noise:
        moved = moved + rng.normal(0, move.noise, (*image.shape[:2], 1))
    return np.clip(np.round(moved), 0, 255).astype(np.uint8)


def _moved(plane: np.ndarray, move: _Move, *, back: bool = False, beyond: float | None = None) -> np.ndarray:
    """Return `plane`, float (height, width), moved, or moved back; `beyond` fills what comes from outside the film,
    where None is the nearest pixel's value.
    """
    angle = np.deg2rad(move.angle)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle, shift = (np.array(plane.shape) - 1) / 2, np.array(move.shift)
    # affine_transform is given where each output pixel comes from.
    if back:
        offset = middle + shift - turn.T @ middle
        turn = turn.T
    else:
        offset = middle - turn @ (middle + shift)
    mode, fill = ("nearest", 0.0) if beyond is None else ("constant", beyond)
    return ndimage.affine_transform(plane, turn, offset, order=1, mode=mode, cval=fill)


def _moved_back(own: np.ndarray, other: np.ndarray, move: _Move) -> float:
    """Return the correlation of a map with that of the changed image, over the pixels that both films show."""
    if not move.angle and not any(move.shift):
        return correlation(own.ravel(), other.ravel())
    back = _moved(other, move, back=True, beyond=np.nan)
    seen = np.isfinite(back)
    return correlation(own[seen], back[seen])


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's rank correlation of two maps' values; 0 where one of them is constant, as an empty map is.

    >>> correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])), correlation(np.zeros(3), np.arange(3.0))
    (1.0, 0.0)
    """
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return round(float(stats.spearmanr(one, other).statistic), 12)


def _of_pairs(maps: np.ndarray, patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the correlations of up to `PAIRS` random pairs of different patients' maps, float64 (pairs,)."""
    first, second = np.triu_indices(len(maps), 1)
    apart = np.flatnonzero(patients[first] != patients[second])
    chosen = rng.permutation(apart)[:PAIRS]
    return np.array([correlation(maps[first[i]].ravel(), maps[second[i]].ravel()) for i in chosen])


def _mean_of_pairs(pairs: np.ndarray) -> Figure:
    if len(pairs) < 2:
        return Figure(None, None, None)
    error = float(pairs.std(ddof=1)) / np.sqrt(len(pairs))
    return around(float(pairs.mean()), error, len(pairs), (-1, 1))


def _difference(own: Figure, level: Figure, patients: int) -> Figure:
    """Return the difference of two means of correlations, taken as independent; it is within -2..2."""
    if own.value is None or level.value is None:
        return Figure(None, None, None)
    halves = [0.0 if one.low is None or one.high is None else (one.high - one.low) / 2 for one in (own, level)]
    half, value = math.hypot(*halves), own.value - level.value
    return Figure(value, max(-2.0, value - half), min(2.0, value + half)) if half else Figure(value, None, None)
