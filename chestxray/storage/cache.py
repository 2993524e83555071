"""The cache folder, for files that chestxray can make again: decoded arrays, drawn phantoms, downloads."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = "CHESTXRAY_CACHE"
#: A folder is cleared only if it contains this file, which marks it as a cache of chestxray.
_MARK = "CHESTXRAY_CACHE.txt"
_MARK_TEXT = "This folder is a cache of chestxray. `chestxray cache clear` empties it.\n"


def root(folder: str | Path | None = None) -> Path:
    """Return the cache folder: `folder`, else ``$CHESTXRAY_CACHE``, else the platform's cache folder.

    The folder is created if it is missing.

    Raises:
        OutputError: it cannot be created or written.
    """
    import platformdirs

    from chestxray.storage.files import explained

    chosen = folder or os.environ.get(ENVIRONMENT) or platformdirs.user_cache_dir("chestxray")
    path = Path(chosen).expanduser().absolute()
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        if not any(path.iterdir()):
            (path / _MARK).write_text(_MARK_TEXT, encoding="utf-8")
    return path


@dataclass(frozen=True)
class CacheEntry:
    """One file or folder in the cache: its ``kind`` (decoded, phantom, ...), name, size in bytes and path."""

    kind: str
    name: str
    bytes: int
    path: Path


def entries(folder: Path) -> list[CacheEntry]:
    """Return the entries of the cache, largest first."""
    found = [
        CacheEntry(kind.name, item.name, _size(item), item)
        for kind in folder.iterdir()
        if kind.is_dir()
        for item in kind.iterdir()
        if item.suffix != ".lock"
    ]
    return sorted(found, key=lambda entry: (-entry.bytes, entry.name))


def clear(folder: Path, kind: str | None = None) -> int:
    """Delete the cache's entries (of one `kind`) and return the bytes freed.

    Raises:
        InputError: `folder` was not made by chestxray; nothing is deleted.
    """
    from chestxray.errors import InputError

    if not (folder / _MARK).is_file():
        raise InputError(
            f"{folder} is not a cache of chestxray ({_MARK} is missing); nothing was deleted. Delete it by hand."
        )
    chosen = [entry for entry in entries(folder) if kind in (None, entry.kind)]
    for entry in chosen:
        if entry.path.is_dir():
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink()
    return sum(entry.bytes for entry in chosen)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
