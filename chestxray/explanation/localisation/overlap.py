"""How much of a map lies in a mask: the pointing game, the share inside, and the intersection over union.

Each is a score by image; what a map without information would score is the mask's share of the film. With ``films``,
bool (rows, height, width), the bars beside a film that was padded do not count: a map that does no more than avoid them
would otherwise be better than chance.
"""

from __future__ import annotations

import numpy as np

#: Shares of a map's highest value from which a threshold is chosen.
THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)


def area(masks: np.ndarray, films: np.ndarray | None = None) -> np.ndarray:
    """Return the share of the film that each of `masks`, bool (rows, height, width), covers: float64 (rows,).

    It is also the chance that a random point lies inside.
    """
    if films is None:
        return masks.mean(axis=(1, 2))
    return (masks & films).sum(axis=(1, 2)) / np.maximum(films.sum(axis=(1, 2)), 1)


def pointing(maps: np.ndarray, masks: np.ndarray, films: np.ndarray | None = None) -> np.ndarray:
    """Return whether the strongest point of each map lies in its mask, float64 (rows,) (Zhang 2018, no tolerance).

    Where several points are the strongest it is the share of them that do: an empty map scores the mask's area.
    """
    if films is not None:
        maps = np.where(films, maps, -1)
    strongest = maps == maps.max(axis=(1, 2), keepdims=True)
    return (strongest & masks).sum(axis=(1, 2)) / strongest.sum(axis=(1, 2))


def share_inside(maps: np.ndarray, masks: np.ndarray, films: np.ndarray | None = None) -> np.ndarray:
    """Return the share of each map's sum that lies in its mask, float64 (rows,); of an empty map, the mask's area."""
    if films is not None:
        maps = np.where(films, maps, 0)
    sums = maps.sum(axis=(1, 2), dtype=np.float64)
    inside = np.where(masks, maps, 0).sum(axis=(1, 2), dtype=np.float64)
    return np.divide(inside, sums, out=area(masks, films), where=sums > 0)


def iou(maps: np.ndarray, masks: np.ndarray, threshold: float, films: np.ndarray | None = None) -> np.ndarray:
    """Return the intersection over union of each mask and the pixels of at least `threshold` of the map's highest
    value, float64 (rows,). An empty map marks nothing and scores 0.
    """
    if films is not None:
        maps, masks = np.where(films, maps, 0), masks & films
    highest = maps.max(axis=(1, 2), keepdims=True)
    marked = (maps >= threshold * highest) & (highest > 0)
    return (marked & masks).sum(axis=(1, 2)) / np.maximum((marked | masks).sum(axis=(1, 2)), 1)


def tuned_threshold(maps: np.ndarray, masks: np.ndarray, films: np.ndarray | None = None) -> float:
    """Return the one of `THRESHOLDS` with the highest mean `iou`; of equal ones the lowest.

    To be given validation images only, as Saporta 2022 do: a threshold tuned on the images that it is measured on
    flatters a map.
    """
    return float(max(THRESHOLDS, key=lambda one: iou(maps, masks, one, films).mean()))
