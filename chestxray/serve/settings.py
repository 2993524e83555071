"""What the operator of a server decides, and its defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass

from chestxray.errors import InputError

#: An X-ray film is about 20 million pixels; a decoder takes up to four bytes for each.
MAX_PIXELS = 40_000_000


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """``threads`` images are computed at once and ``waiting`` more may wait; an answer takes at most
    ``timeout`` seconds; a client (an address) may ask ``per_minute`` times, 0: as often as it likes.
    ``max_upload`` in bytes. ``allow_links``: images may be named by a web address. ``behind_proxy``:
    the last X-Forwarded-For says who the client is.

    Raises:
        InputError: a number that is not positive.
    """

    threads: int
    waiting: int = 16
    timeout: float = 30.0
    per_minute: int = 120
    max_upload: int = 25_000_000
    max_pixels: int = MAX_PIXELS
    allow_links: bool = False
    behind_proxy: bool = False

    def __post_init__(self) -> None:
        for name in ("threads", "timeout", "max_upload", "max_pixels"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0. Received: {getattr(self, name)}.")
        for name in ("waiting", "per_minute"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more. Received: {getattr(self, name)}.")
