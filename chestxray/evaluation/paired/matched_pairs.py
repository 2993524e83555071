"""The p-value function of the difference of two accuracies on the same rows (matched pairs).

The score test of Tango (1998), whose p at no difference is that of McNemar without correction, is scaled so
that its p at no difference is that of a better test: McNemar's mid-p, or the clustered test of Obuchowski.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import stats


def mid_p(wins: int, losses: int) -> float:
    """Return McNemar's mid-p (Fagerland et al. 2013).

    `wins` and `losses` count the rows on which only the first, or only the second, model is right. The mid-p counts
    half the probability of the observed table. It keeps the level nearly everywhere and has more power
    than the exact test, which is conservative.

    >>> round(mid_p(1, 7), 3)  # Fagerland et al. 2013, first example; exact .070
    0.039
    """
    if wins == losses:
        return 1.0
    fewer, rows = min(wins, losses), wins + losses
    return float(2 * stats.binom.cdf(fewer - 1, rows, 0.5) + stats.binom.pmf(fewer, rows, 0.5))


def score(wins: float, losses: float, rows: float, difference: float) -> float:
    """Return Tango's score statistic of the hypothesis that the first accuracy is higher by `difference`.

    `wins` and `losses` count the rows on which only the first, or only the second, model is right, out of `rows`;
    counts may be effective numbers where rows are clustered.
    """
    # Maximum-likelihood proportion of losses under the hypothesis.
    slope = (2 * rows - wins + losses) * difference - wins - losses
    free = losses * difference * (1 - difference)
    share = (math.sqrt(max(0.0, slope**2 + 8 * rows * free)) - slope) / (4 * rows)
    variance = rows * (2 * share + difference * (1 - difference))
    found = wins - losses - rows * difference
    if variance <= 1e-12 * rows:
        return 0.0 if abs(found) <= 1e-9 * rows else math.copysign(math.inf, found)
    return found / math.sqrt(variance)


def curve(wins: float, losses: float, rows: float, p: float) -> Callable[[float], float]:
    """Return the p-value function of Tango's score, scaled so that it is `p` at no difference."""
    plain = abs(score(wins, losses, rows, 0.0))
    scale = float(stats.norm.isf(max(p, 1e-300) / 2)) / plain if plain > 0 and p < 1 else 1.0

    def function(difference: float) -> float:
        if not -1 < difference < 1:
            return 0.0
        return float(2 * stats.norm.sf(abs(score(wins, losses, rows, difference)) * scale))

    return function
