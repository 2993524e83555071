"""What the operator of a server decides, and its defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass

from chestxray.errors import InputError

#: An X-ray film is about 20 million pixels.
MAX_PIXELS = 40_000_000
#: Bytes that decoding takes for each pixel of the costliest image that is accepted, and beside that: measured,
#: see docs/reliability.md.
DECODER_BYTES = 16
DECODER_ROOM = 64_000_000


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """``threads`` images are computed at once and ``waiting`` more may wait; an answer takes at most
    ``timeout`` seconds; a client (an address) may ask ``per_minute`` times, 0: as often as it likes.
    ``max_upload`` in bytes.
    A request must have come, and its answer have been taken, within ``upload_timeout`` seconds each, and one
    client may hold ``connections``. ``allow_links``: images may be named by a web address. ``behind_proxy``:
    the last X-Forwarded-For says who the client is.

    Raises:
        InputError: a number that is not positive.
    """

    threads: int
    waiting: int = 16
    timeout: float = 30.0
    per_minute: int = 120
    upload_timeout: float = 60.0
    connections: int = 20
    max_upload: int = 25_000_000
    max_pixels: int = MAX_PIXELS
    allow_links: bool = False
    behind_proxy: bool = False

    def __post_init__(self) -> None:
        for name in ("threads", "timeout", "upload_timeout", "connections", "max_upload", "max_pixels"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0. Received: {getattr(self, name)}.")
        for name in ("waiting", "per_minute"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more. Received: {getattr(self, name)}.")

    @property
    def decoder_memory(self) -> int:
        """Bytes that one decoding process may take beyond what it has when it starts."""
        return DECODER_BYTES * self.max_pixels + 4 * self.max_upload + DECODER_ROOM

    @property
    def held_bytes(self) -> int:
        """Bytes of requests that may be held at once, unfinished or waiting, of all clients together."""
        return 10 * self.max_upload

    @property
    def client_bytes(self) -> int:
        """The same of one client."""
        return 4 * self.max_upload
