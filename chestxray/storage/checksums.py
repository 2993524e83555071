"""Checksums: whether a file is still what was written. They tell damage, and a file that was put in another's
place; they are no seal against someone who writes both anew.

A run's folder has ``checksums.json`` for the files that nobody can look into; entries of the cache have
their own, see `decoded` and `feature_cache`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import xxhash

from chestxray.errors import DataError
from chestxray.storage import schema
from chestxray.storage.files import write_json

FILE = "checksums.json"
#: Bytes read at a time.
_BLOCK = 2**22


def of(path: Path) -> str:
    """The XXH3 of a file's bytes, 128 bits in hexadecimal digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write(folder: Path, names: Iterable[str]) -> None:
    """Write ``checksums.json`` of those of `names` that are files of `folder`."""
    write_json(folder / FILE, {name: of(folder / name) for name in names if (folder / name).is_file()})


def all_match(folder: Path) -> bool:
    """Whether each file that ``checksums.json`` in `folder` names is what was written; True without such a list,
    which earlier versions did not write.
    """
    known = folder / FILE
    try:
        listed: dict[str, str] = schema.read(known, dict[str, str]) if known.is_file() else {}
        return all(of(folder / Path(name).name) == wanted for name, wanted in listed.items())
    except (DataError, OSError):
        return False


def check(path: Path) -> None:
    """Compare the file with the ``checksums.json`` beside it, where there is one that names it.

    Raises:
        DataError: the file is not the one that was written there, or the list is damaged.
    """
    known = path.parent / FILE
    if not known.is_file():
        return
    wanted = schema.read(known, dict[str, str]).get(path.name)
    if wanted is not None and of(path) != wanted:
        raise DataError(
            f"{path} is damaged: it is not the file that was written there, as its checksum in {known.name} says. "
            "Copy the folder again from where it was made, or run it again."
        )
