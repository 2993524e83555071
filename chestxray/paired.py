"""Are two models different, or was it luck? Tests on the same rows, and what many of them add up to.

The classical tests take rows as independent. Where patients have several images, their clustered
kin are used instead; each `PairedTest` names the one it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

ALPHA = 0.05


@dataclass(frozen=True)
class PairedTest:
    """A two-sided p-value, None where it cannot be had, and the name of the test it comes from."""

    p: float | None
    name: str


def delong(positive: np.ndarray, scores: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC of several models on the same rows, and their covariance.

    DeLong et al. (1988) by the ranks of Sun and Xu (2014), with the sums over patients of Obuchowski
    (1997); the same as DeLong's where every patient has one row.

    Args:
        positive: bool (rows,).
        scores: float (models, rows), higher for positive.
        clusters: patients as codes, int (rows,).

    Returns:
        AUROC (models,) and covariance (models, models), the latter NaN where fewer than two patients
        have positive, or negative, rows.
    """
    own, rest = int(positive.sum()), int((~positive).sum())
    ranks = stats.rankdata(scores, axis=1)
    # Share of the other side that each row beats, ties counting half.
    above = (ranks[:, positive] - stats.rankdata(scores[:, positive], axis=1)) / rest
    below = 1 - (ranks[:, ~positive] - stats.rankdata(scores[:, ~positive], axis=1)) / own
    auroc = above.mean(axis=1)
    of_positive = _sums(above - auroc[:, None], clusters[positive], clusters)
    of_negative = _sums(below - auroc[:, None], clusters[~positive], clusters)
    with_positive, with_negative = len(np.unique(clusters[positive])), len(np.unique(clusters[~positive]))
    if min(with_positive, with_negative) < 2:
        return auroc, np.full((len(scores), len(scores)), np.nan)
    patients = len(np.unique(clusters))
    cross = patients / (patients - 1) * of_positive @ of_negative.T / (own * rest)
    covariance = (
        with_positive / (with_positive - 1) * of_positive @ of_positive.T / own**2
        + with_negative / (with_negative - 1) * of_negative @ of_negative.T / rest**2
        + cross
        + cross.T
    )
    return auroc, covariance


def auroc_test(positive: np.ndarray, first: np.ndarray, second: np.ndarray, clusters: np.ndarray) -> PairedTest:
    """Do two scores, float (rows,), have the same AUROC? `delong` says how."""
    name = "DeLong" if singletons(clusters) else "DeLong clustered by patient (Obuchowski 1997)"
    if positive.all() or not positive.any():
        return PairedTest(None, name)
    auroc, covariance = delong(positive, np.stack([first, second]), clusters)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    difference = auroc[0] - auroc[1]
    if abs(difference) < 1e-12:
        return PairedTest(1.0, name)
    if not variance > 1e-15:
        return PairedTest(None, name)
    return PairedTest(float(2 * stats.norm.sf(abs(difference) / math.sqrt(variance))), name)


def accuracy_test(first: np.ndarray, second: np.ndarray, clusters: np.ndarray) -> PairedTest:
    """Are two models, of which bool (rows,) says where they are right, right equally often?

    The exact test of McNemar (1947) on the rows where one model alone is right; with several rows a
    patient, the chi-square of Obuchowski (1998), which adds up those rows by patient.
    """
    lead = first.astype(np.int64) - second.astype(np.int64)
    if singletons(clusters):
        wins, losses = int((lead > 0).sum()), int((lead < 0).sum())
        p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
        return PairedTest(p, "McNemar exact")
    by_patient = _sums(lead[None].astype(np.float64), clusters, clusters)[0]
    patients, squares = len(by_patient), float((by_patient**2).sum())
    name = "McNemar clustered by patient (Obuchowski 1998)"
    if not squares:
        return PairedTest(1.0, name)
    if patients < 2:
        return PairedTest(None, name)
    statistic = (patients - 1) / patients * float(by_patient.sum()) ** 2 / squares
    return PairedTest(float(stats.chi2.sf(statistic, df=1)), name)


def singletons(clusters: np.ndarray) -> bool:
    """Has every patient one row?"""
    return len(np.unique(clusters)) == len(clusters)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for being many (Holm 1979), in the order received; None stays None.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    corrected: list[float | None] = [None] * len(values)
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[i] = highest
    return corrected


def letters(count: int, different: Sequence[tuple[int, int]]) -> list[str]:
    """Letters for models 0, 1, ...: two that share a letter cannot be told apart.

    The insert-and-absorb algorithm of Piepho (2004). `different` are the pairs that were told apart.

    >>> letters(3, [(0, 2)])
    ['a', 'ab', 'b']
    """
    groups = [frozenset(range(count))]
    for i, j in different:
        split = [part for g in groups for part in ([g - {i}, g - {j}] if {i, j} <= g else [g])]
        distinct = list(dict.fromkeys(split))
        groups = [g for g in distinct if not any(g < other for other in distinct)]
    groups.sort(key=sorted)
    return ["".join(_letter(n) for n, g in enumerate(groups) if i in g) for i in range(count)]


def _letter(number: int) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return alphabet[number % 26] + "'" * (number // 26)


def _sums(values: np.ndarray, keys: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Sums of `values` (models, some rows) by patient: (models, patients)."""
    names = np.unique(clusters)
    places = np.searchsorted(names, keys)
    return np.stack([np.bincount(places, weights=row, minlength=len(names)) for row in values])
