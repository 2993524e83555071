"""A proportion of the images, such as those refused or answered, with its interval."""

from __future__ import annotations

import math

import numpy as np

from chestxray.evaluation.bootstrap import resamples
from chestxray.evaluation.intervals import Figure, logit_t
from chestxray.evaluation.support import effective


def share(flags: np.ndarray, clusters: np.ndarray, *, replicates: int = 2000, seed: int = 0) -> Figure:
    """Return the proportion of True in `flags`, bool (rows,), with an interval from a bootstrap clustered by patient.

    `clusters` are codes of the patients, int (rows,). All parts are None without rows.

    >>> share(np.ones(20, dtype=bool), np.arange(20)).value
    1.0
    """
    if not len(flags):
        return Figure(None, None, None)
    hits = flags.astype(np.float64)
    codes = np.unique(clusters, return_inverse=True)[1]
    blocks = [weights @ hits / weights.sum(axis=1) for weights in resamples(codes, replicates, seed)]
    value = float(hits.mean())
    return logit_t(value if math.isfinite(value) else math.nan, np.concatenate(blocks), effective(codes))


def share_of_patients(flags: np.ndarray, clusters: np.ndarray, *, replicates: int = 2000, seed: int = 0) -> Figure:
    """Return the mean over patients of the proportion of each patient's rows: as `share`, but every patient counts
    equally, whatever the number of rows.

    >>> share_of_patients(np.array([True, True, True, False]), np.array([0, 0, 0, 1])).value
    0.5
    """
    if not len(flags):
        return Figure(None, None, None)
    codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)[1:]
    alone = np.bincount(codes, weights=flags) / sizes
    return share(alone, np.arange(len(sizes)), replicates=replicates, seed=seed)
