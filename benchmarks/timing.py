"""How long a piece of work takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds(way: Callable[[], object]) -> float:
    """Of one go."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def fastest(way: Callable[[], object], times: int, least: float = 0.0) -> float:
    """Of several goes in a row, which take `least` seconds or more together: what the machine's other
    work does only ever adds.
    """
    taken: list[float] = []
    while len(taken) < times or sum(taken) < least:
        taken.append(seconds(way))
    return min(taken)
