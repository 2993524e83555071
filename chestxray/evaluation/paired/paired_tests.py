"""Paired tests of two models on the same rows.

The classical tests take rows as independent. Where patients have several images, tests for clustered data are
used instead: each `DifferenceTest` names its test.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from chestxray.evaluation.paired import matched_pairs
from chestxray.evaluation.paired.p_value_function import DifferenceTest, t_test
from chestxray.evaluation.support import effective


def delong(positive: np.ndarray, scores: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUROCs of several models on the same rows, and their covariance.

    The estimator of DeLong et al. (1988), computed from ranks (Sun and Xu 2014), with sums over patients as in
    Obuchowski (1997); it equals DeLong's where every patient has one row.

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
    # Proportion of the other class that each row ranks above (or below), ties counting half.
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


def auroc_test(positive: np.ndarray, first: np.ndarray, second: np.ndarray, clusters: np.ndarray) -> DifferenceTest:
    """Return the test of the difference of the AUROCs of two scores, float (rows,), by `delong`.

    The reference distribution is Student's t, with degrees of freedom from the fewer of the patients with and
    without a positive row: with few patients, the normal distribution rejects too often.
    """
    name = "DeLong" if singletons(clusters) else "DeLong clustered by patient (Obuchowski 1997)"
    if positive.all() or not positive.any():
        return DifferenceTest(math.nan, name)
    auroc, covariance = delong(positive, np.stack([first, second]), clusters)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    fewer = min(effective(clusters[positive]), effective(clusters[~positive]))
    error = math.sqrt(variance) if variance > 1e-15 else 0.0
    return t_test(float(auroc[0] - auroc[1]), error, fewer - 1, name)


def accuracy_test(first: np.ndarray, second: np.ndarray, clusters: np.ndarray) -> DifferenceTest:
    """Return the test of the difference of two accuracies.

    `first` and `second`, bool (rows,), say whether each model is right; `clusters` are codes of the patients. The
    test is McNemar's mid-p on the rows where only one model is right; where patients have several rows, the
    chi-square test of Obuchowski (1998), which sums those rows by patient. Both come with the score interval of Tango
    (1998), on effective numbers of rows where patients have several (Rao and Scott 1992).
    """
    lead = first.astype(np.int64) - second.astype(np.int64)
    rows, wins, losses = len(lead), int((lead > 0).sum()), int((lead < 0).sum())
    value = (wins - losses) / rows if rows else math.nan
    if singletons(clusters):
        p = matched_pairs.mid_p(wins, losses)
        return DifferenceTest(value, "McNemar mid-p", matched_pairs.curve(wins, losses, rows, p) if rows else None)
    name = "McNemar clustered by patient (Obuchowski 1998)"
    by_patient = _sums(lead[None].astype(np.float64), clusters, clusters)[0]
    patients, squares = len(by_patient), float((by_patient**2).sum())
    if patients < 2:
        return DifferenceTest(value, name)
    if not squares:
        # Without discordant rows the correlation within patients is unknown.
        return DifferenceTest(value, name, matched_pairs.curve(0, 0, effective(clusters), 1.0))
    statistic = (patients - 1) / patients * float(by_patient.sum()) ** 2 / squares
    p = float(stats.chi2.sf(statistic, df=1))
    alike = squares / (wins + losses) if wins + losses else 1.0
    return DifferenceTest(value, name, matched_pairs.curve(wins / alike, losses / alike, rows / alike, p))


def singletons(clusters: np.ndarray) -> bool:
    """Return whether every patient has one row."""
    return len(np.unique(clusters)) == len(clusters)


def _sums(values: np.ndarray, keys: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Return the sums of `values` (models, some rows) by patient: (models, patients)."""
    names = np.unique(clusters)
    places = np.searchsorted(names, keys)
    return np.stack([np.bincount(places, weights=row, minlength=len(names)) for row in values])
