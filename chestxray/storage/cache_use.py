"""Who uses an entry of the cache: one process at a time makes it, several read it, and each use is noted.

Entry ``KIND/NAME`` has a lock ``KIND/NAME.lock``, held while it is made or checked. In ``.use/KIND``, ``NAME.json`` is
the note of its last use, and ``NAME.PID-ID.lock`` is locked by a process that has opened it, until that process ends.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chestxray.storage.files import explained, write_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

FOLDER = ".use"
#: Entries that this process has opened -> its lock.
_OPENED: dict[Path, BaseFileLock] = {}
log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class LastUse:
    """``order`` counts the uses of all entries, so that a clock that goes back changes nothing; ``when`` is local time
    in ISO 8601, to be shown.
    """

    order: int = 0
    when: str = ""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the entry `path` for the block, in which no other process makes or deletes it; then note that it was used.

    From then on it counts as in use, until this process ends. Another process that holds it is waited for. Of a cache
    at an address, the entry is fetched before the block if it is missing, and copied there after it.

    Raises:
        OutputError: the cache's disk is full or cannot be written.
        InputError: the store at the address cannot be reached.
    """
    from filelock import FileLock, Timeout

    from chestxray.storage import remote_entries

    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(_lock(path))
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log.info(
                "Another process is at work on %s/%s in the cache: waiting for it ...", path.parent.name, path.name
            )
            lock.acquire()
        try:
            remote_entries.fetch(path)
            yield
            if path.exists():
                _note(path)
            remote_entries.put(path)
        finally:
            lock.release()


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Yield whether no process holds or uses the entry `path`; if so, none can open it in the block."""
    with _at_once(path) as got:
        yield got and not _users(path)


@contextmanager
def reading(path: Path) -> Iterator[bool]:
    """Yield whether no process is making the entry `path`; if so, none can change or delete it in the block."""
    with _at_once(path) as got:
        yield got


@contextmanager
def _at_once(path: Path) -> Iterator[bool]:
    from filelock import FileLock, Timeout

    lock = FileLock(_lock(path))
    try:
        with explained(path):
            lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def last(path: Path) -> LastUse:
    """Return the last use of an entry; that of one without a note is before all others."""
    try:
        content = json.loads(_record(path).read_bytes())
        return LastUse(int(content["order"]), str(content["when"]))
    except (OSError, ValueError, TypeError, KeyError):
        return LastUse()


def forget(path: Path) -> None:
    """Delete the notes on an entry that was deleted."""
    _record(path).unlink(missing_ok=True)


def _note(path: Path) -> None:
    from filelock import FileLock

    record = _record(path)
    record.parent.mkdir(parents=True, exist_ok=True)
    known = (last(root / name.stem) for root, name in _records(path))
    order = 1 + max((use.order for use in known), default=0)
    write_json(record, {"order": order, "when": time.strftime("%Y-%m-%dT%H:%M:%S")})
    if path not in _OPENED:
        mark = FileLock(record.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.lock"))
        mark.acquire(timeout=0)
        _OPENED[path] = mark


def _records(path: Path) -> Iterator[tuple[Path, Path]]:
    """The notes of all entries of the cache, each after the folder of its kind."""
    root = path.parent.parent
    for record in (root / FOLDER).glob("*/*.json"):
        yield root / record.parent.name, record


def _users(path: Path) -> bool:
    """Whether a process that lives has opened the entry. What dead ones left behind is removed."""
    from filelock import FileLock, Timeout

    for mark in _record(path).parent.glob("*.lock"):
        if mark.name.rpartition(".")[0].rpartition(".")[0] != path.name:
            continue
        lock = FileLock(mark)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        mark.unlink(missing_ok=True)
    return False


def _record(path: Path) -> Path:
    return path.parent.parent / FOLDER / path.parent.name / f"{path.name}.json"


def _lock(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


@atexit.register
def _release() -> None:
    for lock in _OPENED.values():
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
    _OPENED.clear()
