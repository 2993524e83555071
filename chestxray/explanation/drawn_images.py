"""Which images are looked at, where not all are."""

from __future__ import annotations

import numpy as np


def drawn(patients: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Return the places of up to `most` images, int (images,) in rising order: at random, of as many patients as can
    be.

    >>> sorted(np.array([5, 5, 5, 7])[drawn(np.array([5, 5, 5, 7]), 2, seed=0)].tolist())
    [5, 7]
    """
    shuffled = np.random.default_rng(seed).permutation(len(patients))
    turns = np.zeros(len(patients), np.int64)
    times: dict[int, int] = {}
    for place in shuffled:
        turns[place] = times.setdefault(int(patients[place]), 0)
        times[int(patients[place])] += 1
    return np.sort(shuffled[np.argsort(turns[shuffled], kind="stable")][:most])
