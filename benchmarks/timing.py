"""How long a piece of work takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds(way: Callable[[], object]) -> float:
    """Of one go."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def fastest(way: Callable[[], object], times: int) -> float:
    """Of several goes in a row: what the machine's other work does only ever adds."""
    return min(seconds(way) for _ in range(times))
