"""Optimism of a threshold: how much better its figures are on the rows that it was chosen on than on others.

Validation is resampled many times, patients with all their images. A threshold is chosen on each resample in
the same way and evaluated on the patients that were not drawn (leave-one-out bootstrap; Efron and Tibshirani
1997). The optimism is the figure of validation itself minus the mean of these. Harrell's difference between
resample and validation finds only two thirds of it, since a threshold changes in steps from row to row; the
one here is slightly too large, since a resample has fewer different patients.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Resamples of validation: the standard error of the optimism is then 1/14 of a threshold's standard deviation.
DRAWS = 200

#: Chooses a threshold from scores, float (rows,), positive rows, bool (rows,), and patients' codes, int (rows,).
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def of_threshold(
    scores: np.ndarray, positive: np.ndarray, clusters: np.ndarray, rule: Rule, *, seed: int = 0
) -> dict[str, float] | None:
    """Return the optimism of sensitivity and specificity at the threshold that `rule` chooses on these rows.

    `scores` float (rows,), `positive` bool (rows,), `clusters` codes of the patients int (rows,). Resamples
    in which the drawn or the other patients have rows of one class alone are left out; None where none remains.
    """
    codes = np.unique(clusters, return_inverse=True)[1]
    patients = int(codes.max()) + 1 if len(codes) else 0
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(patients + 1))
    generator = np.random.default_rng(seed)
    reached = []
    for _ in range(DRAWS):
        drawn = generator.integers(0, patients, patients)
        rows = np.concatenate([order[starts[k] : starts[k + 1]] for k in drawn]) if patients else order
        rest = ~np.isin(codes, drawn)
        if any(part.all() or not part.any() for part in (positive[rows], positive[rest])):
            continue
        # A patient drawn twice counts as two patients.
        threshold = rule(scores[rows], positive[rows], np.repeat(np.arange(patients), np.diff(starts)[drawn]))
        reached.append(_reached(scores[rest], positive[rest], threshold))
    if not reached:
        return None
    seen = _reached(scores, positive, rule(scores, positive, codes))
    sensitivity, specificity = np.subtract(seen, np.mean(reached, axis=0))
    return {"sensitivity": float(sensitivity), "specificity": float(specificity)}


def _reached(scores: np.ndarray, positive: np.ndarray, threshold: float) -> tuple[float, float]:
    called = scores >= threshold
    return float(called[positive].mean()), float((~called[~positive]).mean())
