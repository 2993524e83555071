"""The conformal quantile of images that come in patients, each patient counting alike.

Images of one patient resemble each other, and no patient may count as many witnesses. With K patients
of whom patient k has N_k images, each image has the weight 1 / ((K + 1) N_k), and the patient to come
1 / (K + 1), at the far end (hierarchical conformal prediction; Lee, Barber and Willett 2023). With an
image a patient this is the usual quantile of rank ceil((n + 1) * level).
"""

from __future__ import annotations

import math

import numpy as np


def quantile(scores: np.ndarray, clusters: np.ndarray, level: float) -> float | None:
    """The least of `scores`, float (rows,), that an image of a new patient is at or below with
    probability `level`; None where the patients are too few for that, see `patients_needed`.

    `clusters` are codes of the patients, int (rows,).

    >>> quantile(np.array([0.3, 0.1, 0.2]), np.arange(3), 0.75)
    0.3
    """
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(_weights(clusters)[order])
    enough = np.flatnonzero(reached >= level - 1e-12)
    return float(scores[order[enough[0]]]) if len(enough) else None


def patients_needed(level: float) -> int:
    """Fewest patients from whom a quantile of this `level` can be had.

    >>> patients_needed(0.9), patients_needed(0.95), patients_needed(0.99)
    (9, 19, 99)
    """
    return math.ceil(level / (1 - level) - 1e-9)


def spread(clusters: np.ndarray, level: float, within: float = 0.9) -> tuple[float, float]:
    """Where the share at or below the quantile lies, over validations as large as this one: the middle
    `within` of them, as (low, high).

    Of n independent rows the share has the distribution Beta(rank, n + 1 - rank) (Vovk 2012). Here n
    is the number of patients, as if images of one patient were all the same: where they are not, the
    spread is smaller. (0, 1) without patients.

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
