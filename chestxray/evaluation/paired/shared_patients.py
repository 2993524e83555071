"""Covariance of the figures of two tests that have patients in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from chestxray.data.grouping import patient_codes
from chestxray.evaluation.bootstrap import resamples
from chestxray.evaluation.finding_means import Drawn, replicates_of
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.weighted_metrics import Table as Weighted

#: A test of either task.
Table = Predictions | FindingPredictions


def shared(one: Table, other: Table) -> int:
    """Return the number of patients with rows in both; an image of an unknown patient is a patient of its own."""
    codes = _codes(one, other)
    count = len(one.rows)
    return len(np.intersect1d(codes[:count], codes[count:]))


def covariance(
    one: Sequence[Predictions],
    other: Sequence[Predictions],
    metric: str,
    positive: int | None,
    *,
    replicates: int,
    seed: int,
) -> float:
    """Return the covariance over patients of a figure of two tests, each the mean over its trainings.

    A bootstrap draws the patients of both tests together, each with all images. Returns 0 where no patient is in both.

    Args:
        one: the trainings tested on the rows of one test, in the same order.
        other: those tested on the rows of the other.
        metric: one of `HEADLINE`.
        positive: number of the positive class, None for means over classes.
        replicates: number of bootstrap replicates.
        seed: of the random draws.
    """
    if not shared(one[0], other[0]):
        return 0.0
    codes, count = _codes(one[0], other[0]), len(one[0].rows)
    sides = [[Weighted.of(p.truth, p.predicted, p.probabilities, positive) for p in side] for side in (one, other)]
    found: list[list[np.ndarray]] = [[], []]
    for weights in resamples(codes, replicates, seed):
        for values, tables, part in zip(found, sides, (weights[:, :count], weights[:, count:]), strict=True):
            values.append(np.mean([table.figures(part)[None, metric] for table in tables], axis=0))
    return _covariance(np.stack([np.concatenate(values) for values in found]))


def covariance_of_means(
    one: Sequence[FindingPredictions],
    other: Sequence[FindingPredictions],
    metric: str,
    findings: Sequence[str],
    *,
    replicates: int,
    seed: int,
) -> float:
    """Return the same of the mean of a figure over `findings`; `metric` is one of `finding_means.DRAWN`."""
    if not shared(one[0], other[0]):
        return 0.0
    codes, count = _codes(one[0], other[0]), len(one[0].rows)
    drawn: dict[int, Drawn] = {}
    sides: list[list[int]] = [[], []]
    for keys, tables, part in zip(sides, (one, other), (codes[:count], codes[count:]), strict=True):
        for table in tables:
            for name in findings:
                own = table.of_finding(name)
                keys.append(len(drawn))
                places = own.rows.index.to_numpy()
                drawn[keys[-1]] = Drawn.of(own.truth, own.predicted, own.probabilities[:, 1], part[places])
    found = replicates_of(drawn, int(codes.max()) + 1, replicates=replicates, seed=seed)
    if metric == "precision":
        # As in the mean itself: that of a finding that is never predicted is 0.
        found = {key: np.nan_to_num(values) for key, values in found.items()}
    return _covariance(np.stack([np.mean([found[key, metric] for key in keys], axis=0) for keys in sides]))


def _covariance(both: np.ndarray) -> float:
    """Return the covariance of the two rows of float (2, replicates), over the replicates in which both are finite."""
    finite = both[:, np.isfinite(both).all(axis=0)]
    return float(np.cov(finite)[0, 1]) if finite.shape[1] > 1 else 0.0


def _codes(one: Table, other: Table) -> np.ndarray:
    """Return the codes 0, 1, ... of the patients of the rows of both, concatenated."""
    columns = ["path", "patient", "source"]
    rows = pd.concat([one.rows[columns], other.rows[columns]], ignore_index=True)
    return pd.factorize(patient_codes(rows))[0]
