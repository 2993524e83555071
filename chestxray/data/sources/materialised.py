"""Data sets that do not consist of image files: they are written to the cache as files once, and reused."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from chestxray.data.index import Index
from chestxray.data.sources.folder import compiled, patient_of
from chestxray.errors import DataError
from chestxray.plugin import SourceOptions
from chestxray.storage import cache_use, seal
from chestxray.storage.files import replacing

log = logging.getLogger(__name__)

#: To be raised whenever the same set would be written as other files.
VERSION = 2
_INDEX = "index.parquet"
_MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"II*\x00": ".tif", b"MM\x00*": ".tif", b"BM": ".bmp"}

#: One image: split, label, patient, original file name ("" if none), and the content of its file.
Item = tuple[str, str, str, str, bytes]
#: Errors of the operating system for a disk or folder that cannot be written; others that a client
#: library passes on concern the network or the data.
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS})


@dataclass(frozen=True)
class Contents:
    """The images of a data set, one after the other, and its licence and citation."""

    items: Iterable[Item]
    licence: str = ""
    citation: str = ""


def converted(
    kind: str, name: str, identity: Mapping[str, object], options: SourceOptions, contents: Callable[[], Contents]
) -> Index:
    """Write the images of `contents` to ``cache/KIND/NAME-HASH/SPLIT/LABEL/``, and return their index.

    `identity` identifies the set (address, version, size of a file); a set of the same identity that was
    written before is reused, without calling `contents`. Files are first written to a folder of another
    name, so that an interrupted conversion is started again. A patient pattern in `options` is searched
    in SPLIT/LABEL/NUMBER-NAME if the set itself has no patients.

    Raises:
        DataError: no images.
        OutputError: the cache's disk is full or cannot be written.
    """
    folder = options.cache / kind / f"{_safe(name)}-{_digest(identity)}"
    with cache_use.held(folder):
        if not _written_before(folder):
            _write(folder, name, contents())
    return _patients(_absolute(Index.read(folder / _INDEX), folder), folder, options.patient_pattern)


def png(pixels: np.ndarray) -> bytes:
    """Return grey pixels (height, width), uint8 or uint16, or colour (height, width, 3), uint8, as a lossless PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def of_the_disk(error: BaseException) -> OSError | None:
    """Return the error of a disk or folder that cannot be written if it caused `error`, else None."""
    link: BaseException | None = error
    for _ in range(10):
        if link is None:
            break
        if isinstance(link, OSError) and link.errno in _DISK:
            return link
        link = link.__cause__ or link.__context__
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, which says what is wrong, with a full stop."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if text.endswith(".") else text + "."


def suffix_of(content: bytes) -> str:
    """Return the suffix of a file by its first bytes, ``.img`` if they are unknown (decoding reports the reason)."""
    if content[128:132] == b"DICM":
        return ".dcm"
    return next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), ".img")


def _written_before(folder: Path) -> bool:
    """Whether the set is in the cache as it was written; of a large one, not every byte is compared."""
    if not folder.is_dir():
        return False
    wrong = seal.damage(folder, seal.OPENING)
    if wrong:
        log.warning("Damaged in the cache: %s (%s). It is written again.", folder, wrong[0])
    return not wrong


def _write(folder: Path, name: str, contents: Contents) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    records = []
    for number, (split, label, patient, called, content) in enumerate(contents.items):
        inner = Path(split or "all") / _safe(label) / _file_name(number, called, suffix_of(content))
        (partial / inner).parent.mkdir(parents=True, exist_ok=True)
        (partial / inner).write_bytes(content)
        records.append({"path": inner.as_posix(), "label": label, "patient": patient, "split": split})
    if not records:
        raise DataError(f"{name} has no images.")
    with replacing(partial / _INDEX) as temporary:
        index = Index.from_records(records, name=name, licence=contents.licence, citation=contents.citation)
        index.write(temporary)
    seal.write(partial)
    # The one before it was damaged. It is deleted only now: the set may no longer be there to be downloaded.
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def _absolute(index: Index, folder: Path) -> Index:
    return index.replace(index.rows.assign(path=str(folder) + "/" + index.rows["path"]))


def _patients(index: Index, folder: Path, pattern: str | None) -> Index:
    expression = compiled("patient pattern", pattern)
    if expression is None or (index.rows["patient"] != "").any():
        return index
    start = len(str(folder)) + 1
    found = [patient_of(path[start:], expression) for path in index.rows["path"]]
    return dataclasses.replace(index, rows=index.rows.assign(patient=found))


def _file_name(number: int, called: str, suffix: str) -> str:
    stem = _safe(Path(called.replace("\\", "/")).name.rpartition(".")[0] or called) if called else ""
    return f"{number:06d}{'-' + stem[-80:] if stem else ''}{suffix}"


def _safe(name: str) -> str:
    """Return `name` changed to a valid file name on any system, which cannot leave its folder."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".")[-100:] or "_"


def _digest(identity: Mapping[str, object]) -> str:
    text = json.dumps({"version": VERSION, **identity}, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
