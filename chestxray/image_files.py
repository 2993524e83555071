"""Image files that somebody named: which they are, and what their overlays are called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from chestxray.errors import DataError, InputError
from chestxray.files import replacing
from chestxray.images import SUFFIXES
from chestxray.overlay import overlay

if TYPE_CHECKING:
    from chestxray.answers import Answer
    from chestxray.bulk import Batch


def listed(paths: Iterable[Path], *, recursive: bool = False) -> list[str]:
    """The files among `paths` as they are, and the image files in the folders among them, sorted.

    In a folder, hidden files are passed over, and those that are no images by their suffix; a file
    without a suffix counts where it bears DICOM's mark. With `recursive`, folders below are searched
    too, but hidden ones, ``__MACOSX`` and circles of links. No file is named twice.

    Raises:
        InputError: a path that does not exist.
        DataError: a folder without images.
    """
    paths = list(paths)
    if missing := [path for path in paths if not path.exists()]:
        more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        raise InputError(f"No such file or folder: {missing[0]}{more}.")
    found: dict[str, None] = {}
    for path in paths:
        if not path.is_dir():
            found[str(path)] = None
            continue
        inside = list(_inside(path, recursive))
        if not inside:
            hint = "" if recursive else " Folders below it are searched with --recursive."
            raise DataError(f"No images in {path}. Looked for files ending in {' '.join(sorted(SUFFIXES))}.{hint}")
        found.update(dict.fromkeys(inside))
    return list(found)


def overlay_name(path: str) -> str:
    """A file name of its own for the overlay of the image at `path`: letters, digits, ``._-`` alone.

    >>> overlay_name("../a b.png")
    'a-b-5600e982328d7db5.png'
    """
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem).strip("-.")[:60]
    digest = xxhash.xxh3_64_hexdigest(path.encode("utf-8", "surrogateescape"))
    return f"{readable or 'image'}-{digest}.png"


def write_overlays(folder: Path, answers: Sequence[Answer], batch: Batch) -> list[str | None]:
    """Write the overlays of `batch` to `folder`; their names, None for what was unreadable or refused.

    Raises:
        OutputError: the folder cannot be written to.
    """
    from PIL import Image

    if batch.outputs is None or batch.outputs.maps is None:
        return [None] * len(answers)
    names: list[str | None] = []
    readable = iter(zip(batch.pixels, batch.outputs.maps, strict=True))
    for answer in answers:
        pixels, heat = (None, None) if answer.unreadable else next(readable)
        if pixels is None or heat is None or answer.refused:
            names.append(None)
            continue
        names.append(overlay_name(answer.path))
        with replacing(folder / overlay_name(answer.path)) as temporary:
            Image.fromarray(np.ascontiguousarray(overlay(pixels, heat))).save(temporary)
    return names


def _inside(root: Path, recursive: bool) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    for folder, children, names in os.walk(root, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116 - os.walk gives text
        if (status.st_dev, status.st_ino) in seen:
            children.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        wanted = sorted(name for name in children if not name.startswith(".") and name != "__MACOSX")
        children[:] = wanted if recursive else []
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and (path.suffix.lower() in SUFFIXES or (not path.suffix and _is_dicom(path))):
                yield str(path)


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
