"""Verifies the entries of the cache wholly, each by the checksums that its kind has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from chestxray.storage import cache_use, checked_json, row_checksums, seal
from chestxray.storage.cache import CacheEntry

State = Literal["whole", "damaged", "incomplete", "busy", "unsealed"]


def verify(entry: CacheEntry, advance: Callable[[int], object] | None = None) -> tuple[State, list[str]]:
    """Read every byte of an entry; return its state, and what is damaged in phrases.

    ``incomplete`` is what an interrupted program left behind, which later runs go on from after a check of their own;
    ``busy`` what another process makes at present; ``unsealed`` what has no checksums: files of a library, such as
    downloads of tensorflow-datasets, or of an earlier version, which are not used.
    """
    with cache_use.reading(entry.whole) as free:
        if not free:
            return "busy", []
        if not entry.complete:
            return "incomplete", []
        if entry.kind == "activations":
            found = row_checksums.damage(entry.path)
        elif entry.path.is_file():
            found = [] if checked_json.read(entry.path) is not None else ["its content has another checksum"]
        else:
            # Sets of tensorflow-datasets are sealed by version, below the entry.
            sealed = sorted(path.parent for path in entry.path.rglob(seal.FILE))
            if not sealed:
                return "unsealed", []
            found = [phrase for folder in sealed for phrase in seal.damage(folder, advance=advance)]
    return ("damaged" if found else "whole"), found
