"""A cache at an address of fsspec: its entries lie in a local folder too, and are fetched and copied whole.

The local folder has the address in a file, so that whoever opens an entry knows of it.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

from chestxray.errors import DataError
from chestxray.storage import remote
from chestxray.storage.files import explained, write_text
from chestxray.storage.remote import is_address

__all__ = ["attach", "fetch", "is_address", "put"]

log = logging.getLogger(__name__)

_FILE = "CHESTXRAY_REMOTE.txt"
#: Timings are of one machine.
_LOCAL = ("jit", "fetched", "outputs")


def attach(address: str, base: Path, mark: str, text: str) -> Path:
    """Return the local folder below `base` of the cache at `address`, with the files that mark it as a cache."""
    digest = hashlib.blake2b(address.rstrip("/").encode(), digest_size=8).hexdigest()
    path = base.absolute() / ".remote" / digest
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        if not (path / _FILE).is_file():
            write_text(path / mark, text)
            write_text(path / _FILE, address.rstrip("/") + "\n")
    return path


def fetch(entry: Path) -> None:
    """Fetch an entry that is not there, if its cache is one of an address that has it.

    Raises:
        InputError: the store cannot be reached.
    """
    mirror = None if entry.exists() else _mirror(entry)
    if mirror is None or not mirror.files:
        return
    log.info("Fetching %s", mirror.address)
    partial = entry.with_name(entry.name + ".partial")
    # What was begun here is less than what is there.
    shutil.rmtree(partial, ignore_errors=True)
    try:
        mirror.fetch(partial)
    except DataError as error:
        log.warning("%s It is made anew.", error)
        shutil.rmtree(partial, ignore_errors=True)
        # Otherwise what is made anew, being the same, would be taken to be there.
        mirror.claim()
        return
    partial.replace(entry)


def put(entry: Path) -> None:
    """Copy what has changed of an entry to the address of its cache, if it has one. Raises as `fetch`."""
    mirror = _mirror(entry)
    if mirror is not None and entry.is_dir():
        mirror.push(entry, complete=True)


def _mirror(entry: Path) -> remote.Mirror | None:
    file = entry.parent.parent / _FILE
    if entry.parent.name in _LOCAL or not file.is_file():
        return None
    return remote.Mirror(f"{file.read_text(encoding='utf-8').strip()}/{entry.parent.name}/{entry.name}")
