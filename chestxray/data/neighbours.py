"""Approximate search for vectors with a high cosine, by an inverted file (Jégou, Douze and Schmid 2011).

Members are sorted into cells around the centres of a short k-means, and a query is compared only with the
members of the nearest cells: with 100,000 members, one in fourteen. With few members there is one cell, and
the search is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Up to this many members, every query is compared with every member.
EVERY = 2_000
#: Number of cells searched for a query. Among 30,000 unrelated vectors of 143 dimensions these contained 97% of the
#: neighbours with a cosine of 0.7, and 99% of those with 0.8.
_PROBED = 128
#: k-means: number of steps, and of members sampled per cell.
_STEPS, _SAMPLE = 3, 32
#: Number of vectors whose cells are computed at a time.
_BLOCK = 4_096


@dataclass(frozen=True)
class Cells:
    """Unit vectors, float32 (members, dimensions), sorted by cell: cell i has those from ``bounds[i]`` to
    ``bounds[i + 1]``. ``places`` (members,) is the original position of each, ``centres`` (cells, dimensions)
    are the cells' unit vectors.
    """

    centres: np.ndarray
    bounds: np.ndarray
    members: np.ndarray
    places: np.ndarray


def cells(members: np.ndarray) -> Cells:
    """Sort unit vectors, float32 (members, dimensions), into cells. The result is deterministic."""
    # With this many cells, choosing the cells takes as long as comparing with their members.
    number = 1 if len(members) <= EVERY else round(np.sqrt(_PROBED * len(members)) / 2)
    rng = np.random.default_rng(0)
    seen = members[rng.permutation(len(members))[: _SAMPLE * number]]
    centres = seen[:number].copy()
    for _ in range(_STEPS if number > 1 else 0):
        home = _nearest(seen, centres)
        order = np.argsort(home, kind="stable")
        filled, starts = np.unique(home[order], return_index=True)
        sums = np.add.reduceat(seen[order], starts, axis=0)
        centres[filled] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    home = _nearest(members, centres)
    places = np.argsort(home, kind="stable")
    return Cells(centres, np.searchsorted(home[places], np.arange(number + 1)), members[places], places)


def alike(among: Cells, queries: np.ndarray, least: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of queries and of members with a similar or opposite direction, int64 (found, 2), and their
    cosines, float32 (found,).

    `queries` are unit vectors, float32 (queries, dimensions), `least` is the limit that the absolute cosine
    exceeds. In one cell with many similar members, about the `most` most similar ones per query are returned.
    """
    query, cell = _probed(among, queries)
    starts = np.searchsorted(cell, np.arange(len(among.centres) + 1))
    places, cosines = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
    for number in np.unique(cell):
        own, inside = query[starts[number] : starts[number + 1]], slice(*among.bounds[number : number + 2])
        cosine = queries[own] @ among.members[inside].T
        size = np.abs(cosine)
        close = size > least
        if close.sum() > most * len(own):
            close &= size >= np.partition(size, -most, axis=1)[:, -most, None]
        row, column = np.nonzero(close)
        places.append(np.stack([own[row], among.places[inside][column]], axis=1))
        cosines.append(cosine[row, column])
    return np.concatenate(places), np.concatenate(cosines)


def _nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    blocks = (vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK))
    return np.concatenate([(block @ centres.T).argmax(axis=1) for block in blocks] or [np.zeros(0, dtype=np.int64)])


def _probed(among: Cells, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of a query and a cell to search for it, sorted by cell: two arrays (pairs,)."""
    number = len(among.centres)
    if number <= _PROBED:
        return np.tile(np.arange(len(queries)), number), np.repeat(np.arange(number), len(queries))
    chosen = []
    for start in range(0, len(queries), _BLOCK):
        nearness = np.abs(queries[start : start + _BLOCK] @ among.centres.T)
        chosen.append(np.argpartition(nearness, number - _PROBED, axis=1)[:, number - _PROBED :].astype(np.int32))
    flat = np.concatenate(chosen).ravel()
    order = np.argsort(flat, kind="stable")
    return order // _PROBED, flat[order]
