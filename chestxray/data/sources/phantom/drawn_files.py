"""The files of a set of phantoms: drawn aside, and moved into the cache when complete."""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from chestxray.storage.files import explained

T = TypeVar("T")
Record = dict[str, Any]

RECORDS = "records.json"
#: The kinds of unreadable files, used in turn.
SPOILT = ("truncated", "garbage", "empty")

log = logging.getLogger(__name__)


def drawn(
    films: Sequence[T], folder: Path, write_film: Callable[[T, Path], Record], columns: Iterable[str], size: int
) -> list[Record]:
    """Return the records of `films`, one each, having drawn them into `folder` unless they were drawn before.

    `write_film` draws one film of `size` pixels into a folder and returns its record, whose `columns` are the paths
    of its files relative to that folder, or ``""``; in what is returned they are absolute.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    columns = list(columns)
    records = _drawn_before(folder, columns)
    if records is None:
        with explained(folder):
            records = _draw_set(films, folder, write_film, size)
    for record in records:
        for column in columns:
            record[column] = str(folder / record[column]) if record[column] else ""
    return records


def _drawn_before(folder: Path, columns: list[str]) -> list[Record] | None:
    """Return the records of a set that is complete on disk, else None."""
    try:
        records = json.loads((folder / RECORDS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    named = (record[column] for record in records for column in columns)
    return records if all((folder / name).is_file() for name in named if name) else None


def _draw_set(films: Sequence[T], folder: Path, write_film: Callable[[T, Path], Record], size: int) -> list[Record]:
    log.info("Drawing %d phantoms of %d pixels into %s", len(films), size, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Drawn in another folder and renamed when complete, so that a killed or second process never leaves half a set.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        aside = Path(name) / "set"
        records = [write_film(film, aside) for film in films]
        (aside / RECORDS).write_text(json.dumps(records), encoding="utf-8")
        _publish(aside, folder)
    return records


def png(pixels: np.ndarray) -> bytes:
    """Return the PNG file of grey `pixels`, uint8 (height, width)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def spoil(content: bytes, how: str) -> bytes:
    """Return an image file made unreadable, `how` being one of `SPOILT`."""
    return {"truncated": content[: len(content) // 2], "garbage": content[:8] + b"\0" * 400, "empty": b""}[how]


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whose folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _publish(aside: Path, folder: Path) -> None:
    """Move a complete set to its final folder."""
    try:
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        # Another process was first, or files of an earlier set were deleted. The files of a key are
        # the same whoever draws them, so replacing them one by one disturbs no reader.
        for path in sorted(path for path in aside.rglob("*") if path.is_file()):
            target = folder / path.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
