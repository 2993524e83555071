"""Images that are no files on disk: `SourcePlugin.open` is asked for each key once, and its bytes become a file in the
cache.

Everything that reads images then reads files, wherever they came from: decoding in other processes and on other
machines, audit, controls, export. The files of a set are in the folder ``opened/KIND-DIGEST`` of the cache, each in a
folder of 256 and named by the hash of its key. Each is written whole or not at all, so that an interrupted command goes
on where it was; the seal of the folder, written at the end, has their checksums.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from chestxray.data.index import Index
from chestxray.data.sources.materialised import suffix_of
from chestxray.errors import ChestXrayError, first_line
from chestxray.progress.bars import progress
from chestxray.storage import cache_use, seal
from chestxray.storage.files import remove_parts, write_bytes

log = logging.getLogger(__name__)

Open = Callable[[str], bytes]
#: The column that keeps the key of an image, ``""`` where the image was a file.
KEY = "key"
#: The column that names the opener of a row until `as_files` has opened it.
OPENER = "opener"
#: Keys that are opened at a time: most of such a call is waiting, for a server or a disk.
THREADS = 8


def keyed(index: Index, opener: str) -> Index:
    """Return the index with its paths as keys, which `as_files` opens by the function named `opener`."""
    return index.replace(index.rows.assign(**{KEY: index.rows["path"], OPENER: opener}))


def as_files(index: Index, openers: Mapping[str, Open], cache: Path) -> Index:
    """Return the index with files in the cache as the paths of its rows that have keys, in the column ``path`` and
    those of the kind path, such as masks. Rows keep their order.

    What cannot be opened has a path where there is no file, and the reason in the column ``unreadable``: it is counted
    among the unreadable images, and tried again by the next command.

    Raises:
        OutputError: the cache's disk is full or cannot be written.
    """
    if OPENER not in index.rows:
        return index
    rows = index.rows.drop(columns=OPENER)
    reasons: dict[str, str] = {}
    for name, open_key in openers.items():
        own = (index.rows[OPENER] == name).to_numpy()
        columns = ["path", *(column for column in rows if index.kind(column) == "path")]
        keys = [key for key in dict.fromkeys(rows.loc[own, columns].fillna("").to_numpy().ravel(order="F")) if key]
        paths, failed = _opened(name, keys, open_key, cache)
        for column in columns:
            rows.loc[own, column] = rows.loc[own, column].map(paths | {"": ""})
        reasons |= {paths[key]: reason for key, reason in failed.items()}
    if reasons:
        rows = rows.assign(unreadable=rows["path"].map(reasons).fillna("").astype(object))
    return index.replace(rows)


def _opened(name: str, keys: Sequence[str], open_key: Open, cache: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the path of each key, and why some could not be opened."""
    folder = cache / "opened" / f"{re.sub(r'[^A-Za-z0-9_]+', '_', name.partition(':')[0])}-{_digest(name)}"
    with cache_use.held(folder):
        folder.mkdir(exist_ok=True)
        kept = _whole_files(folder)
        stems = {key: _stem(key) for key in keys}
        missing = [key for key, stem in stems.items() if stem not in kept]
        if not missing:
            return {key: str(folder / kept[stem]) for key, stem in stems.items()}, {}
        remove_parts(folder)
        failed: dict[str, str] = {}
        try:
            with progress("Opening", len(keys), len(keys) - len(missing)) as advance:
                for key, content in _contents(missing, open_key):
                    if isinstance(content, bytes):
                        kept[stems[key]] = stems[key] + suffix_of(content)
                        write_bytes(folder / kept[stems[key]], content)
                    else:
                        failed[key] = content
                    advance(1)
        finally:
            seal.extend(folder)
    log.info("Opened %d images of %s.", len(missing) - len(failed), name)
    return {key: str(folder / kept.get(stem, stem)) for key, stem in stems.items()}, failed


def _contents(keys: Sequence[str], open_key: Open) -> Iterator[tuple[str, bytes | str]]:
    """Yield each key with its bytes, or with why it could not be opened. Few are in memory at a time."""
    waiting: deque[tuple[str, Future[bytes | str]]] = deque()
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="open")
    try:
        for key in keys:
            waiting.append((key, threads.submit(_content, key, open_key)))
            if len(waiting) > 2 * THREADS:
                first, future = waiting.popleft()
                yield first, future.result()
        for key, future in waiting:
            yield key, future.result()
    finally:
        threads.shutdown(cancel_futures=True)


def _content(key: str, open_key: Open) -> bytes | str:
    try:
        content = open_key(key)
    # Archives, servers and their clients each raise their own errors: none of them may cost the other images.
    except Exception as error:
        kind = "" if isinstance(error, ChestXrayError) else f"{type(error).__name__}: "
        return f"{key} cannot be opened ({kind}{first_line(error)})"
    return content if isinstance(content, bytes) else f"{key} was opened as {type(content).__name__}, not as bytes"


def _whole_files(folder: Path) -> dict[str, str]:
    """Return the files of `folder`, without and with their suffixes. Those of another size than when they were sealed
    are deleted.
    """
    sealed = seal.read(folder) or {}
    found = {}
    for inner in sorted(os.scandir(folder), key=lambda entry: entry.name):
        for file in os.scandir(inner) if inner.is_dir() else ():
            name = f"{inner.name}/{file.name}"
            if name in sealed and file.stat().st_size != sealed[name][0]:
                log.warning("Damaged in the cache: %s. It is opened again.", file.path)
                Path(file.path).unlink()
            elif not file.name.startswith("."):
                found[name.partition(".")[0]] = name
    return found


def _stem(key: str) -> str:
    digest = _digest(key)
    return f"{digest[:2]}/{digest}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
