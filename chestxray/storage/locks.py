"""Locks between processes, on files that the disk releases when a process ends, however it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chestxray.errors import OutputError
from chestxray.storage.files import explained

log = logging.getLogger(__name__)


@contextmanager
def exclusive(file: Path, place: Path, busy: str, *, patience: float = 0, keep: bool = True) -> Iterator[None]:
    """Hold a lock on `file` within the block, so that no two processes write to `place` at the same time.

    Another process that holds it is waited for during `patience` seconds. Where the disk knows no locks, a warning
    says so. Without `keep` the file is deleted at the end.

    Raises:
        OutputError: another process holds the lock, which the message `busy` says; or it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file, timeout=patience)
    with explained(place):
        try:
            lock.acquire()
        except Timeout as error:
            raise OutputError(busy) from error
        except NotImplementedError:
            log.warning("The disk of %s knows no locks: see that no other process writes there.", place)
    try:
        yield
    finally:
        if not keep:
            with suppress(PermissionError):  # of Windows, while it is open
                file.unlink(missing_ok=True)
        lock.release()
