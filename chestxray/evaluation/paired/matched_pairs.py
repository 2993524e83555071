"""Two models right or wrong on the same rows: the p-value function of the difference of their accuracies.

The score test of Tango (1998), whose p at no difference is that of McNemar without correction, is scaled so
that its p there is that of a better test: McNemar's mid-p, or the clustered test of Obuchowski.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import stats


def mid_p(wins: int, losses: int) -> float:
    """McNemar's mid-p of as many rows on which one model alone is right (Fagerland et al. 2013).

    The exact p counts half of what was observed itself; it keeps the level nearly everywhere and rejects
    more often than the exact test, which stays far below it.

    >>> round(mid_p(1, 7), 3)  # Fagerland et al. 2013, first example; exact .070
    0.039
    """
    if wins == losses:
        return 1.0
    fewer, rows = min(wins, losses), wins + losses
    return float(2 * stats.binom.cdf(fewer - 1, rows, 0.5) + stats.binom.pmf(fewer, rows, 0.5))


def score(wins: float, losses: float, rows: float, difference: float) -> float:
    """Tango's score of the hypothesis that the first model is right more often by `difference`.

    `wins` and `losses` are the rows on which the first, or the second, alone is right, of `rows`; counts may
    be effective ones, as of rows that resemble each other.
    """
    # The share of losses that is most likely if the difference is as large as that.
    slope = (2 * rows - wins + losses) * difference - wins - losses
    free = losses * difference * (1 - difference)
    share = (math.sqrt(max(0.0, slope**2 + 8 * rows * free)) - slope) / (4 * rows)
    variance = rows * (2 * share + difference * (1 - difference))
    found = wins - losses - rows * difference
    if variance <= 1e-12 * rows:
        return 0.0 if abs(found) <= 1e-9 * rows else math.copysign(math.inf, found)
    return found / math.sqrt(variance)


def curve(wins: float, losses: float, rows: float, p: float) -> Callable[[float], float]:
    """The p-value function of Tango's score, scaled so that it is `p` at no difference."""
    plain = abs(score(wins, losses, rows, 0.0))
    scale = float(stats.norm.isf(max(p, 1e-300) / 2)) / plain if plain > 0 and p < 1 else 1.0

    def function(difference: float) -> float:
        if not -1 < difference < 1:
            return 0.0
        return float(2 * stats.norm.sf(abs(score(wins, losses, rows, difference)) * scale))

    return function
