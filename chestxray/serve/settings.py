"""Settings of a server, with their defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass

from chestxray.errors import InputError

#: A radiograph has about 20 million pixels.
MAX_PIXELS = 40_000_000
#: Memory of decoding in bytes: for each pixel of the most expensive accepted image, and in addition. Measured, see
#: docs/reliability.md.
DECODER_BYTES = 16
DECODER_ROOM = 64_000_000


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    ``threads``: images computed at the same time; ``waiting``: further images that may wait. ``timeout``: most
    seconds until an answer. ``per_minute``: most requests a minute of a client (an address), 0: no limit.
    ``upload_timeout``: most seconds to receive a request, and to send its response. ``grace``: seconds that requests
    that have begun have when the server stops. ``connections``: most connections of a client. ``max_upload``: most
    bytes of an image file, ``max_pixels``: most pixels. ``allow_links``: images may be given by a URL.
    ``behind_proxy``: the last X-Forwarded-For is the address of the client. Of a server of several processes,
    ``per_minute`` is a limit of all together; the others are of each.

    Raises:
        InputError: a number that is not positive.
    """

    threads: int
    waiting: int = 16
    timeout: float = 30.0
    per_minute: int = 120
    upload_timeout: float = 60.0
    grace: float = 5.0
    connections: int = 20
    max_upload: int = 25_000_000
    max_pixels: int = MAX_PIXELS
    allow_links: bool = False
    behind_proxy: bool = False

    def __post_init__(self) -> None:
        for name in ("threads", "timeout", "upload_timeout", "grace", "connections", "max_upload", "max_pixels"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0. Received: {getattr(self, name)}.")
        for name in ("waiting", "per_minute"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more. Received: {getattr(self, name)}.")

    @property
    def last(self) -> float:
        """Most seconds from the signal to stop to the end of a process."""
        return self.grace + 3

    @property
    def decoder_memory(self) -> int:
        """Most bytes of memory of one decoding process, in addition to those at its start."""
        return DECODER_BYTES * self.max_pixels + 4 * self.max_upload + DECODER_ROOM

    @property
    def held_bytes(self) -> int:
        """Most bytes of requests in memory, unfinished or waiting, of all clients together."""
        return 10 * self.max_upload

    @property
    def client_bytes(self) -> int:
        """Most bytes of requests in memory of one client."""
        return 4 * self.max_upload
