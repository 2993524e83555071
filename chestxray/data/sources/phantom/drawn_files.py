"""The files of a set of phantoms: drawn aside, and moved into the cache when complete."""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from chestxray.storage import cache_use, seal
from chestxray.storage.cache import PARTIAL

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
    # If two runs need the same set, the second one waits until the first has drawn it.
    with cache_use.held(folder):
        records = _drawn_before(folder)
        if records is None:
            records = _draw_set(films, folder, write_film, size)
    for record in records:
        for column in columns:
            record[column] = str(folder / record[column]) if record[column] else ""
    return records


def _drawn_before(folder: Path) -> list[Record] | None:
    """Return the records of a set that is in the cache as it was written, else None."""
    if not (folder / seal.FILE).is_file():
        return None
    if wrong := seal.damage(folder, seal.OPENING):
        log.warning("Damaged in the cache: %s (%s). It is drawn again.", folder, wrong[0])
        return None
    return json.loads((folder / RECORDS).read_text(encoding="utf-8"))


def _draw_set(films: Sequence[T], folder: Path, write_film: Callable[[T, Path], Record], size: int) -> list[Record]:
    log.info("Drawing %d phantoms of %d pixels into %s", len(films), size, folder)
    # Drawn in another folder and renamed when complete, so that a killed process never leaves half a set.
    aside = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        records = [write_film(film, aside) for film in films]
        (aside / RECORDS).write_text(json.dumps(records), encoding="utf-8")
        seal.write(aside)
        _publish(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
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
    if not folder.is_dir():
        aside.rename(folder)
        return
    # Files of an earlier set were deleted or damaged. The files of a key are the same whenever they are drawn, so
    # replacing them one by one disturbs no reader; the seal is replaced last.
    for path in sorted((path for path in aside.rglob("*") if path.is_file()), key=lambda path: path.name == seal.FILE):
        target = folder / path.relative_to(aside)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
