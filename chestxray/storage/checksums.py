"""Checksums: whether a file is still what was written. They detect damaged and exchanged files, but do not protect
against somebody who rewrites the file and its checksum.

A run's folder has ``checksums.json`` for its binary files; entries of the cache have their own, see `decoded` and
`feature_cache`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import xxhash

from chestxray.errors import DataError
from chestxray.storage import schema
from chestxray.storage.files import write_json

FILE = "checksums.json"
#: Number of bytes read at a time.
_BLOCK = 2**22


def of(path: Path) -> str:
    """Return the 128-bit XXH3 hash of a file's bytes in hexadecimal digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def known(path: Path) -> str:
    """Return the checksum of a file as the ``checksums.json`` beside it lists it, or that of the file if it does not.

    Raises:
        DataError: ``checksums.json`` is damaged.
    """
    listed = path.parent / FILE
    return (schema.read(listed, dict[str, str]) if listed.is_file() else {}).get(path.name) or of(path)


def write(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of those `names` that are files in `folder` to ``checksums.json`` in it."""
    write_json(folder / FILE, {name: of(folder / name) for name in names if (folder / name).is_file()})


def all_match(folder: Path) -> bool:
    """Return whether every file listed in the ``checksums.json`` of `folder` is unchanged; True if there is no such
    file, as in folders of earlier versions.
    """
    known = folder / FILE
    try:
        listed: dict[str, str] = schema.read(known, dict[str, str]) if known.is_file() else {}
        return all(of(folder / Path(name).name) == wanted for name, wanted in listed.items())
    except (DataError, OSError):
        return False


def changed(path: Path) -> bool:
    """Return whether the ``checksums.json`` beside the file lists another checksum than the file has.

    Raises:
        DataError: ``checksums.json`` is damaged.
    """
    known = path.parent / FILE
    wanted = schema.read(known, dict[str, str]).get(path.name) if known.is_file() else None
    return wanted is not None and of(path) != wanted


def check(path: Path) -> None:
    """Compare the file with its checksum, if the ``checksums.json`` beside it lists one.

    Raises:
        DataError: the file is not the one that was written there, or ``checksums.json`` is damaged.
    """
    if changed(path):
        raise DataError(
            f"{path} is damaged: it is not the file that was written there, as its checksum in {FILE} says. "
            "Copy the folder again from where it was made, or run it again."
        )
