"""The conformal quantile of images clustered by patient, each patient weighted equally.

Images of one patient resemble each other and are not independent. With K patients, of whom patient k has
N_k images, each image has the weight 1 / ((K + 1) N_k), and a new patient 1 / (K + 1) at infinity
(hierarchical conformal prediction; Lee, Barber and Willett 2023). With one image a patient this is the usual
quantile of rank ceil((n + 1) * level).
"""

from __future__ import annotations

import math

import numpy as np


def quantile(scores: np.ndarray, clusters: np.ndarray, level: float) -> float | None:
    """Return the least of `scores`, float (rows,), that an image of a new patient is at or below with
    probability `level`; None where there are too few patients for that, see `patients_needed`.

    `clusters` are codes of the patients, int (rows,).

    >>> quantile(np.array([0.3, 0.1, 0.2]), np.arange(3), 0.75)
    0.3
    """
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(_weights(clusters)[order])
    enough = np.flatnonzero(reached >= level - 1e-12)
    return float(scores[order[enough[0]]]) if len(enough) else None


def patients_needed(level: float) -> int:
    """Return the least number of patients with which the quantile of this `level` exists.

    >>> patients_needed(0.9), patients_needed(0.95), patients_needed(0.99)
    (9, 19, 99)
    """
    return math.ceil(level / (1 - level) - 1e-9)


def spread(clusters: np.ndarray, level: float, within: float = 0.9) -> tuple[float, float]:
    """Return the range of the coverage of the quantile over validation sets of this size, as (low, high): the
    central `within` of its distribution.

    With n independent rows the coverage has the distribution Beta(rank, n + 1 - rank) (Vovk 2012). Here n
    is the number of patients, as if all images of one patient were the same; otherwise the range is
    narrower. (0, 1) without patients.

    >>> [round(end, 3) for end in spread(np.arange(100), 0.9)]
    [0.848, 0.945]
    """
    from scipy import stats

    patients = len(np.unique(clusters))
    rank = math.ceil((patients + 1) * level - 1e-9)
    if not patients:
        return 0.0, 1.0
    if rank > patients:
        return 1.0, 1.0
    low, high = stats.beta.ppf([(1 - within) / 2, (1 + within) / 2], rank, patients + 1 - rank)
    return float(low), float(high)


def _weights(clusters: np.ndarray) -> np.ndarray:
    codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)[1:]
    return 1 / ((len(sizes) + 1) * sizes[codes])
