"""The cache folder, for files that chestxray can make again: decoded arrays, drawn phantoms, downloads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chestxray.storage import cache_use
from chestxray.storage.cache_use import LastUse

ENVIRONMENT = "CHESTXRAY_CACHE"
#: A folder is cleared only if it contains this file, which marks it as a cache of chestxray.
MARK = "CHESTXRAY_CACHE.txt"
MARK_TEXT = "This folder is a cache of chestxray. `chestxray cache clear` empties it.\n"
#: Ending of what is not complete yet, and of what is being deleted.
PARTIAL, DELETED = ".partial", ".deleted"


def root(folder: str | Path | None = None) -> Path:
    """Return the cache folder: `folder`, else ``$CHESTXRAY_CACHE``, else the platform's cache folder.

    The folder is created if it is missing. Of an address such as ``s3://bucket/cache``, it is a folder of its own below
    the platform's cache folder, whose entries are fetched from the address and copied there.

    Raises:
        OutputError: it cannot be created or written.
    """
    import platformdirs

    from chestxray.storage import remote_entries
    from chestxray.storage.files import explained

    chosen = folder or os.environ.get(ENVIRONMENT) or platformdirs.user_cache_dir("chestxray")
    if remote_entries.is_address(chosen):
        return remote_entries.attach(str(chosen), Path(platformdirs.user_cache_dir("chestxray")), MARK, MARK_TEXT)
    path = Path(chosen).expanduser().absolute()
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        if not any(path.iterdir()):
            (path / MARK).write_text(MARK_TEXT, encoding="utf-8")
    return path


@dataclass(frozen=True)
class CacheEntry:
    """One file or folder in the cache: its ``kind`` (decoded, phantom, ...), name, size in bytes, path and last use."""

    kind: str
    name: str
    bytes: int
    path: Path
    used: LastUse

    @property
    def complete(self) -> bool:
        """False for what an interrupted program left behind, or another is making."""
        return self.path.suffix not in (PARTIAL, DELETED)

    @property
    def whole(self) -> Path:
        """The path of the entry when it is complete, by which it is locked."""
        return self.path if self.complete else self.path.with_suffix("")


def entries(folder: Path) -> list[CacheEntry]:
    """Return the entries of the cache, largest first."""
    found = [
        CacheEntry(kind.name, item.name, _size(item), item, cache_use.last(item))
        for kind in folder.iterdir()
        if kind.is_dir() and not kind.name.startswith(".")
        for item in kind.iterdir()
        if item.suffix != ".lock" and not item.name.startswith(".")
    ]
    return sorted(found, key=lambda entry: (-entry.bytes, entry.name))


def clear(folder: Path, kind: str | None = None) -> tuple[int, list[CacheEntry]]:
    """Delete the cache's entries (of one `kind`); return the bytes freed, and entries that are kept since a running
    process uses them.

    Raises:
        InputError: `folder` was not made by chestxray; nothing is deleted.
    """
    _require_ours(folder)
    chosen = [entry for entry in entries(folder) if kind in (None, entry.kind)]
    kept = [entry for entry in chosen if not delete(entry)]
    return sum(entry.bytes for entry in chosen if entry not in kept), kept


def prune(folder: Path, keep: int) -> Iterator[tuple[CacheEntry, bool]]:
    """Delete entries until at most `keep` bytes are left, first what is incomplete, then what was not used for longest.

    Yields each entry that had to go, and whether it was deleted: not if a running process uses it.

    Raises:
        InputError: `folder` was not made by chestxray; nothing is deleted.
    """
    _require_ours(folder)
    found = entries(folder)
    left = sum(entry.bytes for entry in found)
    for entry in sorted(found, key=lambda entry: (entry.complete, entry.used, entry.name)):
        if left <= keep:
            return
        deleted = delete(entry)
        left -= entry.bytes * deleted
        yield entry, deleted


def delete(entry: CacheEntry) -> bool:
    """Delete an entry and return True, or return False if a running process makes or uses it."""
    from chestxray.storage.files import explained

    with explained(entry.path), cache_use.alone(entry.whole) as free:
        if not free:
            return False
        # Renamed first: what is deleted in part must not be taken for an entry.
        doomed = entry.path if entry.path.suffix == DELETED else entry.path.with_name(entry.path.name + DELETED)
        if doomed != entry.path:
            entry.path.replace(doomed)
        if doomed.is_dir():
            shutil.rmtree(doomed)
        else:
            doomed.unlink()
        cache_use.forget(entry.path)
    return True


def _require_ours(folder: Path) -> None:
    from chestxray.errors import InputError

    if not (folder / MARK).is_file():
        raise InputError(
            f"{folder} is not a cache of chestxray ({MARK} is missing); nothing was deleted. Delete it by hand."
        )


def _size(path: Path) -> int:
    # Another process may delete or rename files meanwhile.
    total = 0
    for file in (path, *path.rglob("*")):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue
    return total
