"""Checksums of the rows of several arrays together, by which a row that was damaged is found when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xxhash

#: uint64 (rows,), 0 where nothing is computed yet.
FILE = "checksums.npy"
#: Rows that are compared at once.
_BLOCK = 256


def of(arrays: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Checksums uint64 (rows,), never 0, of `rows` of all `arrays` together."""
    found = np.empty(len(rows), np.uint64)
    for place, row in enumerate(rows):
        digest = xxhash.xxh3_64()
        for array in arrays:
            digest.update(np.ascontiguousarray(array[row]).data)
        found[place] = digest.intdigest() or 1
    return found


def damage(folder: Path) -> list[str]:
    """Return what is wrong with the arrays ``0.npy``, ``1.npy``, ... of a folder; nothing if all rows that were
    computed have their checksums.
    """
    try:
        sums = np.load(folder / FILE)
        arrays = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("[0-9]*.npy"))]
        if not arrays or sums.dtype != np.uint64 or {len(array) for array in arrays} != {len(sums)}:
            return ["its arrays and checksums do not belong together"]
    except Exception as error:  # what NumPy's parser of headers raises has no common root
        return [f"it cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"]
    known = np.flatnonzero(sums)
    blocks = [known[start : start + _BLOCK] for start in range(0, len(known), _BLOCK)]
    wrong = sum(int((of(arrays, rows) != sums[rows]).sum()) for rows in blocks)
    return [f"{wrong} of {len(known)} rows have other content"] if wrong else []
