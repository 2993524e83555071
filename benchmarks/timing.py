"""Measures elapsed time and processor time, of one function or of two in comparison.

On a shared machine two functions are comparable if they alternate, since other load then affects both.
Processor time hardly depends on other load.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Spent(NamedTuple):
    """Elapsed seconds (``clock``), and processor time in seconds, summed over all processors."""

    clock: float
    processors: float

    @classmethod
    def now(cls) -> Spent:
        """Return the seconds since an arbitrary moment; child processes that have ended are included."""
        return cls(time.perf_counter(), sum(os.times()[:4]))

    def since(self, before: Spent) -> Spent:
        """Return the seconds spent after `before`."""
        return Spent(self.clock - before.clock, self.processors - before.processors)


class Paired(NamedTuple):
    """Medians over the rounds: the seconds of the baseline (``plain``) and of ours, and the ratios of baseline to
    ours within a round, of elapsed (``clock``) and of processor time.
    """

    plain: Spent
    ours: Spent
    clock: float
    processors: float


def spent(way: Callable[[], object]) -> Spent:
    """Return the time of one call."""
    start = Spent.now()
    way()
    return Spent.now().since(start)


def paired(plain: Callable[[], object], ours: Callable[[], object], rounds: int = 5) -> Paired:
    """Time both functions in alternation; each goes first in every second round."""
    goes = []
    for number in range(rounds):
        if number % 2:
            mine, theirs = spent(ours), spent(plain)
        else:
            theirs, mine = spent(plain), spent(ours)
        goes.append((theirs, mine))
    return pair(goes)


def pair(goes: list[tuple[Spent, Spent]]) -> Paired:
    """Return the medians over several rounds of (plain, ours)."""
    plain, ours = (
        Spent(statistics.median(go.clock for go in way), statistics.median(go.processors for go in way))
        for way in zip(*goes, strict=True)
    )
    ratios = [(a.clock / b.clock, a.processors / max(b.processors, 1e-3)) for a, b in goes]
    return Paired(plain, ours, *(statistics.median(part) for part in zip(*ratios, strict=True)))


def seconds(way: Callable[[], object]) -> float:
    """Return the elapsed seconds of one call."""
    return spent(way).clock


def fastest(way: Callable[[], object], times: int, least: float = 0.0) -> float:
    """Return the shortest time in seconds of several calls that take at least `least` seconds in total.

    The minimum is used since other load on the machine only adds time.
    """
    taken: list[float] = []
    while len(taken) < times or sum(taken) < least:
        taken.append(seconds(way))
    return min(taken)
