"""Seals: the sizes and checksums of all files of a cache entry, in ``seal.json`` in its folder.

A seal is written last, before an entry gets its name, and has a checksum of its own. It detects damage and files that
are missing, but does not protect against somebody who rewrites the files and the seal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from chestxray.storage import checked_json, checksums

FILE = "seal.json"
#: Bytes of an entry that are hashed when it is opened, about half a second once they are in memory.
OPENING = 2**30

#: Path relative to the entry -> size in bytes and XXH3 of its content.
Files = dict[str, tuple[int, str]]


def write(folder: Path) -> None:
    """Seal all files that are in `folder` now."""
    files = {
        path.relative_to(folder).as_posix(): (path.stat().st_size, checksums.of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE
    }
    checked_json.write(folder / FILE, {name: list(facts) for name, facts in files.items()})


def extend(folder: Path) -> None:
    """Seal the files that came to `folder`, or changed in size, since it was sealed, beside those sealed before."""
    known = read(folder) or {}
    files: Files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != FILE:
            name, size = path.relative_to(folder).as_posix(), path.stat().st_size
            same = name in known and known[name][0] == size
            files[name] = known[name] if same else (size, checksums.of(path))
    checked_json.write(folder / FILE, {name: list(facts) for name, facts in files.items()})


def read(folder: Path) -> Files | None:
    """Return the files of a sealed folder; None if it has no seal, or a damaged one."""
    content = checked_json.read(folder / FILE)
    return None if content is None else {name: (int(size), str(digest)) for name, (size, digest) in content.items()}


def damage(folder: Path, most: int | None = None, advance: Callable[[int], object] | None = None) -> list[str]:
    """Return what is wrong with the files of a sealed folder, a phrase for each file; nothing if it is whole.

    The size of every file is compared. With `most`, about so many bytes are hashed: all of them in a folder of at most
    that size, otherwise the files at its top, and a sample of the others, evenly spread. That misses a changed byte
    in a file outside of the sample. `advance` is called with the bytes of each file after it was compared.
    """
    files = read(folder)
    if files is None:
        return [f"{FILE} is missing or damaged"]
    hashed = set(files if most is None else _sample(files, most))
    found = []
    for name, (size, digest) in files.items():
        path = folder / name
        try:
            if path.stat().st_size != size:
                found.append(f"{name} has {path.stat().st_size:,} bytes of {size:,}")
            elif name in hashed and checksums.of(path) != digest:
                found.append(f"{name} has other content")
        except OSError as error:
            found.append(f"{name}: {(error.strerror or str(error)).lower()}")
        if advance is not None:
            advance(size)
    return found


def changed(folder: Path, found: Iterator[tuple[Path, str]]) -> list[Path]:
    """Return those paths of `found`, with the checksums of their content, that are not as sealed in `folder`."""
    files = read(folder) or {}
    return [
        path
        for path, digest in found
        if (known := files.get(path.relative_to(folder).as_posix())) is not None and known[1] != digest
    ]


def _sample(files: Files, most: int) -> list[str]:
    total = sum(size for size, _ in files.values())
    if total <= most:
        return list(files)
    inner = [name for name in files if "/" in name]
    return [name for name in files if "/" not in name] + inner[:: -(-total // most)]
