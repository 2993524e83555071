"""How much better a threshold looks on the rows that chose it than it is: Harrell's (1996) optimism.

Validation is drawn anew many times, patients with all their images; each draw chooses a threshold as
validation did. The optimism is how much more it reaches on the draw than on validation itself.
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
    without rows of both kinds are left out; None where there are no others.

    >>> rows = np.random.default_rng(0).normal(size=40)
    >>> from chestxray.thresholds import choose
    >>> found = of_threshold(rows, np.arange(40) < 20, np.arange(40), lambda s, p, c: choose(s, p))
    >>> found["sensitivity"] + found["specificity"] > 0.1
    True
    """
    codes = np.unique(clusters, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 2)) if len(codes) else np.zeros(1, dtype=int)
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(DRAWS):
        drawn = generator.integers(0, len(starts) - 1, len(starts) - 1)
        rows = np.concatenate([order[starts[k] : starts[k + 1]] for k in drawn])
        # A patient drawn twice is two patients.
        patients = np.repeat(np.arange(len(drawn)), starts[drawn + 1] - starts[drawn])
        if positive[rows].all() or not positive[rows].any():
            continue
        threshold = rule(scores[rows], positive[rows], patients)
        found.append(
            np.subtract(_reached(scores[rows], positive[rows], threshold), _reached(scores, positive, threshold))
        )
    if not found:
        return None
    sensitivity, specificity = np.mean(found, axis=0)
    return {"sensitivity": float(sensitivity), "specificity": float(specificity)}


def _reached(scores: np.ndarray, positive: np.ndarray, threshold: float) -> tuple[float, float]:
    called = scores >= threshold
    return float(called[positive].mean()), float((~called[~positive]).mean())
