"""How long a piece of work takes, on the clock and of all processors, alone or beside another way.

On a machine that others use too, two ways are comparable where they go in turn: what the others do
falls on both. Processor time hardly depends on them.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Spent(NamedTuple):
    """Seconds on the clock, and of all processors."""

    clock: float
    processors: float

    @classmethod
    def now(cls) -> Spent:
        """Counted from some moment on; processes that have ended are included."""
        return cls(time.perf_counter(), sum(os.times()[:4]))

    def since(self, before: Spent) -> Spent:
        """What was spent after `before`."""
        return Spent(self.clock - before.clock, self.processors - before.processors)


class Paired(NamedTuple):
    """Medians over the rounds: what each way spent, and how many times as much the plain way spent as
    ours in the same round, on the clock and of the processors.
    """

    plain: Spent
    ours: Spent
    clock: float
    processors: float


def spent(way: Callable[[], object]) -> Spent:
    """Of one go."""
    start = Spent.now()
    way()
    return Spent.now().since(start)


def paired(plain: Callable[[], object], ours: Callable[[], object], rounds: int = 5) -> Paired:
    """Both ways in turn, each first in every second round."""
    goes = []
    for number in range(rounds):
        if number % 2:
            mine, theirs = spent(ours), spent(plain)
        else:
            theirs, mine = spent(plain), spent(ours)
        goes.append((theirs, mine))
    return pair(goes)


def pair(goes: list[tuple[Spent, Spent]]) -> Paired:
    """What (plain, ours) of several rounds come to."""
    plain, ours = (
        Spent(statistics.median(go.clock for go in way), statistics.median(go.processors for go in way))
        for way in zip(*goes, strict=True)
    )
    ratios = [(a.clock / b.clock, a.processors / max(b.processors, 1e-3)) for a, b in goes]
    return Paired(plain, ours, *(statistics.median(part) for part in zip(*ratios, strict=True)))


def seconds(way: Callable[[], object]) -> float:
    """Of one go, on the clock."""
    return spent(way).clock


def fastest(way: Callable[[], object], times: int, least: float = 0.0) -> float:
    """Of several goes in a row, which take `least` seconds or more together: what the machine's other
    work does only ever adds.
    """
    taken: list[float] = []
    while len(taken) < times or sum(taken) < least:
        taken.append(seconds(way))
    return min(taken)
