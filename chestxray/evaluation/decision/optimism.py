"""How much better a threshold looks on the rows that chose it than it is: its optimism.

Validation is drawn anew many times, patients with all their images; each draw chooses a threshold as
validation did, which is judged on the patients that were not drawn (leave-one-out bootstrap; Efron and
Tibshirani 1997). The optimism is how much less these get than validation itself, on average. Harrell's
difference between draw and validation finds only two thirds of it, since a threshold jumps from row to
row; this one errs a little on the safe side, since a draw has fewer different patients.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Draws of validation: the optimism's own error is then a fourteenth of what one threshold varies by.
DRAWS = 200

#: A threshold from scores (rows,), which are positive (rows,), and patients' codes (rows,).
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def of_threshold(
    scores: np.ndarray, positive: np.ndarray, clusters: np.ndarray, rule: Rule, *, seed: int = 0
) -> dict[str, float] | None:
    """The optimism of sensitivity and specificity at the threshold that `rule` chooses on these rows.

    `scores` float (rows,), `positive` bool (rows,), `clusters` codes of the patients int (rows,). Draws
    that leave rows of one kind alone, on either side, are left out; None where there are no others.
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
        # A patient drawn twice is two patients.
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
