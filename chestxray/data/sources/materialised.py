"""Sets that do not come as image files: written as files once, into the cache, and used again."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
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
from chestxray.storage.files import explained, replacing

#: Changes whenever the same set would be written as other files.
VERSION = 1
_INDEX = "index.parquet"
_MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"II*\x00": ".tif", b"MM\x00*": ".tif", b"BM": ".bmp"}

#: One image: split, label, patient, what it was called ("" if nothing), and its file's content.
Item = tuple[str, str, str, str, bytes]
#: What the operating system says of a disk or folder that cannot be written; other refusals that a
#: client passes on are the network's or the data's.
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS})


@dataclass(frozen=True)
class Contents:
    """A set's images, one after the other, and what it says of itself."""

    items: Iterable[Item]
    licence: str = ""
    citation: str = ""


def converted(
    kind: str, name: str, identity: Mapping[str, object], options: SourceOptions, contents: Callable[[], Contents]
) -> Index:
    """The index of a set whose images `contents` holds, written to ``cache/KIND/NAME-HASH/SPLIT/LABEL/``.

    `identity` is what makes the set this one (address, version, size of a file); a set of the same
    identity that was written before is used again, without asking for its `contents`. Files are drawn into a
    folder of another name, so that an interrupted conversion starts clean. A patient pattern of
    `options` is searched in SPLIT/LABEL/NUMBER-NAME where the set itself names no patient.

    Raises:
        DataError: no image.
        OutputError: the cache's disk is full or cannot be written.
    """
    from filelock import FileLock

    folder = options.cache / kind / f"{_safe(name)}-{_digest(identity)}"
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not (folder / _INDEX).is_file():
                _write(folder, name, contents())
    return _patients(_absolute(Index.read(folder / _INDEX), folder), folder, options.patient_pattern)


def png(pixels: np.ndarray) -> bytes:
    """Grey pixels (height, width), uint8 or uint16, as PNG, bit for bit; colour (…, 3) as RGB."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def of_the_disk(error: BaseException) -> OSError | None:
    """The disk's or folder's refusal behind an error of a client, or None."""
    link: BaseException | None = error
    for _ in range(10):
        if link is None:
            break
        if isinstance(link, OSError) and link.errno in _DISK:
            return link
        link = link.__cause__ or link.__context__
    return None


def first_line(error: BaseException) -> str:
    """The first line of a message, which alone says what is wrong."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if text.endswith(".") else text + "."


def suffix_of(content: bytes) -> str:
    """A file's suffix by its first bytes; ``.img`` where they say nothing (decoding will say why)."""
    if content[128:132] == b"DICM":
        return ".dcm"
    return next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), ".img")


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
    # Files without an index are what another version left behind.
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
    """A name that can be a file's on any system and cannot leave its folder."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".")[-100:] or "_"


def _digest(identity: Mapping[str, object]) -> str:
    text = json.dumps({"version": VERSION, **identity}, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
