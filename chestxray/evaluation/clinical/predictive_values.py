"""Positive and negative predictive values at an assumed prevalence instead of that of the test.

They follow from sensitivity, specificity and prevalence by Bayes's rule, on the assumption, which a test
cannot check, that sensitivity and specificity are those of the test. Their intervals come from those of
sensitivity and specificity, which are figures of different images, by the method of variance estimates
recovery for a ratio (MOVER-R; Donner and Zou 2012): unlike the logit interval (Mercaldo, Lau and Zhou
2007) it is defined where no negative image was called positive.
"""

from __future__ import annotations

import math

from chestxray.evaluation.intervals import Figure

_ABSENT = Figure(None, None, None)


def ppv(sensitivity: Figure, specificity: Figure, prevalence: float) -> Figure:
    """Return the positive predictive value at `prevalence`, above 0 and below 1.

    It has no interval where sensitivity or specificity has none.

    >>> found = ppv(Figure(0.9, 0.8, 0.95), Figure(0.9, 0.85, 0.94), 0.01)
    >>> [round(end, 3) for end in (found.low, found.value, found.high)]
    [0.056, 0.083, 0.132]
    """
    return _of_odds(sensitivity, _rest(specificity), prevalence / (1 - prevalence))


def npv(sensitivity: Figure, specificity: Figure, prevalence: float) -> Figure:
    """Return the negative predictive value at `prevalence`, above 0 and below 1."""
    return _of_odds(specificity, _rest(sensitivity), (1 - prevalence) / prevalence)


def _rest(share: Figure) -> Figure:
    value, low, high = (None if end is None else 1 - end for end in (share.value, share.high, share.low))
    return Figure(value, low, high)


def _of_odds(above: Figure, below: Figure, scale: float) -> Figure:
    """Return the proportion whose odds are `scale` times the ratio of two independent shares."""
    if above.value is None or below.value is None or above.value + below.value == 0:
        return _ABSENT
    value = _share(scale * _ratio(above.value, below.value))
    if above.low is None or above.high is None or below.low is None or below.high is None:
        return Figure(value, None, None)
    low, high = ratio_limits(above, below)
    return Figure(value, min(value, _share(scale * low)), max(value, _share(scale * high)))


def ratio_limits(above: Figure, below: Figure) -> tuple[float, float]:
    """Return the limits of the ratio of two independent figures of at least 0 that have limits; the upper one is
    infinite where the interval of `below` reaches 0.
    """
    assert above.value is not None and above.low is not None and above.high is not None
    assert below.value is not None and below.low is not None and below.high is not None
    product = above.value * below.value
    narrow, wide = above.low * (2 * above.value - above.low), below.high * (2 * below.value - below.high)
    low = _ratio(narrow, product + math.sqrt(max(0.0, product**2 - narrow * wide)))
    narrow, wide = below.low * (2 * below.value - below.low), above.high * (2 * above.value - above.high)
    reach = product + math.sqrt(max(0.0, product**2 - narrow * wide))
    return low, (reach / narrow if narrow > 0 else math.inf)


def _ratio(above: float, below: float) -> float:
    if below <= 0:
        return math.inf if above > 0 else 0.0
    return above / below


def _share(odds: float) -> float:
    return 1.0 if odds == math.inf else odds / (1 + odds)
