"""Decoding the images of an index to one memory-mapped uint8 array, once for all later runs.

A decoded set in the cache is a folder ``decoded/KEY`` with ``pixels.npy`` (rows, height, width), ``facts.parquet``
and ``seal.json``, by which a damaged set is detected and decoded again. Until it is complete, the folder is
called ``KEY.partial``, where each finished chunk of rows saves its facts and checksums: an interrupted run continues
after the chunks that are whole, and an incomplete set never has the final name.

Images that are cut to their lungs are read twice: first all of them small and whole, a set of its own, in which their
lungs are found by the process that asks for them; then each is cut at the resolution of its file. A worker that decodes
therefore needs no network, and an interrupted search for lungs continues too.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xxhash

from chestxray.data import lung_boxes
from chestxray.data.decoding_parts import Chunk, Fact, Way, decoded_by, decoded_rows
from chestxray.data.images.pixels import MAX_PIXELS, Box, Fit
from chestxray.data.index import Index
from chestxray.data.lung_boxes import LungFinder
from chestxray.errors import DataError, require
from chestxray.execution.executor import Executor
from chestxray.progress.bars import progress
from chestxray.storage import cache_use, checked_json, checksums, seal
from chestxray.storage.files import remove_parts, replacing

log = logging.getLogger(__name__)

#: To be raised whenever the same file would decode to other pixels or facts.
VERSION = 4
CHUNK = 64
#: Films whose lungs are found before they are written down.
BLOCK = 256
#: How often a killed process is replaced before the decoding is given up.
ATTEMPTS = 3
FACTS = ("width", "height", "mode", "format", "file_hash", "pixel_hash", "unreadable")


@dataclass(frozen=True)
class Decoded:
    """``pixels``: uint8 memory map (rows, height, width), zero for unreadable images; ``facts``: a frame of the same
    rows with the columns `FACTS`, in which ``unreadable`` is the reason or ``""``, and, of images that are cut to their
    lungs, with `lung_boxes.COLUMN`; ``seconds``: time taken. ``films``: the same images whole, as a memory map like
    ``pixels``, which they are where nothing is cut.
    """

    pixels: np.ndarray
    facts: pd.DataFrame
    folder: Path
    reused: bool
    seconds: float
    films: np.ndarray


def decode(
    index: Index,
    size: tuple[int, int],
    fit: Fit,
    cache: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    lungs: LungFinder | None = None,
    processes: int | None = None,
    executor: Executor | None = None,
) -> Decoded:
    """Decode every image of `index` to `size` (height, width) in pixels, or open the set if it was decoded before.

    With `lungs`, each is first cut to the box around its lungs; one in which they are not found is used whole.
    Images of more than `max_pixels` pixels count as unreadable. `processes` defaults to the number of processors
    that this process may use. With an `executor`, its workers decode, on all nodes of a cluster.

    Raises:
        InputError: a node of the cluster does not see the images.
        WorkerError: a worker died each time, or the cluster cannot be reached.
        OutputError: the cache's disk is full or cannot be written.
        MissingPackageError: pyarrow is not installed.
        PluginError: `lungs` are to be found by a plugin that is not installed, or fails.
    """
    require("Decoding images for training", "pyarrow")
    started = time.perf_counter()
    films = None
    if lungs is not None:
        films = whole(index, cache, max_pixels=max_pixels, processes=processes, executor=executor).pixels
    folder = cache / "decoded" / key(index, size, fit, max_pixels, lungs)
    # If two runs need the same set, the second one waits until the first has decoded it.
    with cache_use.held(folder):
        found = _open(folder) if folder.is_dir() else None
        reused = found is not None
        if found is None:
            if folder.is_dir():
                log.warning("Damaged in the cache: %s. It is deleted, and its images are decoded again.", folder)
                shutil.rmtree(folder)
            partial = folder.with_suffix(".partial")
            partial.mkdir(exist_ok=True)
            boxes = None if lungs is None or films is None else _boxes(films, partial, lungs)
            _fill(index, Way(size, fit, max_pixels), partial, boxes, processes, executor)
            _require_undamaged(index, partial, cache)
            partial.replace(folder)
            found = _mapped(folder)
    seconds = time.perf_counter() - started
    what = f"{len(index):,} images at {size[0]}x{size[1]}{', cut to their lungs' if lungs else ''}"
    if lungs is not None:
        facts = found[1]
        lung_boxes.say_unknown(facts.loc[facts["unreadable"] == "", lung_boxes.COLUMN].map(lung_boxes.from_text))
    if reused:
        log.info("Decoded before: %s, nothing to decode.", what)
    else:
        log.info("Decoded %s in %.1f s (%.0f images/s).", what, seconds, len(index) / seconds)
    return Decoded(*found, folder, reused, seconds, found[0] if films is None else films)


def whole(
    index: Index,
    cache: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    processes: int | None = None,
    executor: Executor | None = None,
) -> Decoded:
    """Decode every image as lungs and, in a run that cuts them out, copies are looked for in it: whole and small.

    Arguments and errors as of `decode`.
    """
    small = (lung_boxes.SIDE, lung_boxes.SIDE)
    return decode(index, small, "stretch", cache, max_pixels=max_pixels, processes=processes, executor=executor)


def opened(
    index: Index,
    size: tuple[int, int],
    fit: Fit,
    cache: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    lungs: LungFinder | None = None,
) -> Decoded | None:
    """Return the set if it was decoded before, None if it is not in the cache. Opens no image file."""
    names = [key(index, size, fit, max_pixels, lungs)]
    if lungs is not None:
        names.append(key(index, (lung_boxes.SIDE, lung_boxes.SIDE), "stretch", max_pixels))
    if not all((cache / "decoded" / name).is_dir() for name in names):
        return None
    return decode(index, size, fit, cache, max_pixels=max_pixels, lungs=lungs)


def key(
    index: Index, size: tuple[int, int], fit: str, max_pixels: int = MAX_PIXELS, lungs: LungFinder | None = None
) -> str:
    """Return the name of a decoded set, which depends on its files (path, size, modification time), on `size`, `fit`
    and `max_pixels`, on what finds the `lungs` and how they are cut out, and on `VERSION`.
    """
    cut = f":{lung_boxes.SIDE}:{lung_boxes.MARGIN}:{lungs.identity}" if lungs else ""
    digest = hashlib.blake2b(f"{VERSION}:{size}:{fit}:{max_pixels}{cut}".encode(), digest_size=12)
    for path in index.rows["path"]:
        try:
            status = os.stat(path)  # noqa: PTH116 - a Path for each of 100,000 files costs seconds
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path}\0missing\n".encode())
    return digest.hexdigest()


def name_of(pixels: np.ndarray) -> str:
    """Return the name in the cache of the decoded set that `pixels` is mapped from; ``""`` if `pixels` is in memory."""
    return Path(pixels.filename).parent.name if isinstance(pixels, np.memmap) and pixels.filename else ""


def known(cache: Path, name: str) -> Decoded | None:
    """Return the decoded set of that name, or None if it is missing or damaged. The image files need not exist."""
    folder = cache / "decoded" / name
    if not name or not folder.is_dir():
        return None
    with cache_use.held(folder):
        found = _open(folder) if folder.is_dir() else None
    return None if found is None else Decoded(*found, folder, True, 0.0, found[0])


def _open(folder: Path) -> tuple[np.ndarray, pd.DataFrame] | None:
    """Return pixels and facts of a set, or None if they are not what was written.

    This reads every byte, at the speed of the disk or, if cached in memory, at several GB/s. The steps that
    follow (the search for copies, training) read all bytes too, and then find them in memory.
    """
    return None if seal.damage(folder) else _mapped(folder)


def _mapped(folder: Path) -> tuple[np.ndarray, pd.DataFrame]:
    return np.load(folder / "pixels.npy", mmap_mode="r"), pd.read_parquet(folder / "facts.parquet")


def readable(index: Index, decoded: Decoded, limit: float) -> Index:
    """Return the index with the facts of decoding joined to it, and log the unreadable rows.

    Raises:
        DataError: more than the proportion `limit` of the rows is unreadable, or every row of a class.
    """
    facts = decoded.facts
    if "unreadable" in index.rows:
        # Of an image that could not even be opened, the source knows the reason.
        known = index.rows["unreadable"]
        facts = facts.assign(unreadable=known.where((known != "") & (facts["unreadable"] != ""), facts["unreadable"]))
    rows = index.rows.drop(columns=[c for c in facts if c in index.rows]).join(facts)
    bad = rows[rows["unreadable"] != ""]
    for row in bad.head(20).itertuples():
        log.warning("Unreadable: %s: %s", row.path, row.unreadable)
    if len(bad) > 20:
        log.warning("... and %d more unreadable images (all are listed in audit.json).", len(bad) - 20)
    first = f" The first: {bad['path'].iloc[0]}: {bad['unreadable'].iloc[0]}." if len(bad) else ""
    # A class without readable images is the more severe fault, and is reported first.
    for label in index.classes:
        of_class = index.members(label).to_numpy()
        if of_class.any() and (rows.loc[of_class, "unreadable"] != "").all():
            what = "class" if index.task == "classes" else "finding"
            raise DataError(f"None of the {of_class.sum()} images of {what} {label!r} can be read.{first}")
    if len(bad) > limit * len(rows):
        raise DataError(
            f"{len(bad)} of {len(rows)} images cannot be read, more than the allowed share of {limit:g} "
            f"(max_unreadable).{first}"
        )
    return index.replace(rows)


def _boxes(films: np.ndarray, partial: Path, lungs: LungFinder) -> list[Box | None]:
    """Return the box of the lungs of each of `films`, and keep those of each block for a run that goes on."""
    folder = partial / "boxes"
    folder.mkdir(exist_ok=True)
    found: list[Box | None] = []
    with progress("Finding lungs", len(films)) as advance:
        for start in range(0, len(films), BLOCK):
            some = films[start : start + BLOCK]
            file = folder / f"{start:09d}.json"
            texts = (checked_json.read(file) or {}).get("boxes")
            if texts is None:
                texts = [lung_boxes.as_text(box) for box in lungs.boxes(some)]
                checked_json.write(file, {"boxes": texts})
            found += map(lung_boxes.from_text, texts)
            advance(len(some))
    return found


def _fill(
    index: Index,
    way: Way,
    partial: Path,
    boxes: Sequence[Box | None] | None,
    processes: int | None,
    executor: Executor | None,
) -> None:
    shape = (len(index), *way.size)
    pixels = partial / "pixels.npy"
    if not _reserved(pixels, shape):
        shutil.rmtree(partial / "chunks", ignore_errors=True)
        reserve(pixels, shape)
    starts = _unfinished(partial, shape[0])
    if done := len(range(0, shape[0], CHUNK)) - len(starts):
        log.info("Resuming an interrupted decoding: %d chunks are finished.", done)
    paths = index.rows["path"].tolist()
    with progress("Decoding", shape[0], shape[0] - sum(min(CHUNK, shape[0] - start) for start in starts)) as advance:
        for attempt in itertools.count(1):
            chunks = [
                Chunk(start, paths[start : start + CHUNK], None if boxes is None else boxes[start : start + CHUNK])
                for start in starts
            ]
            try:
                if executor is None:
                    counts = _counts(partial, chunks, way, processes, apart=attempt > 1)
                else:
                    counts = (_keep(partial, *done) for done in decoded_by(executor, chunks, way))
                for count in counts:
                    advance(count)
                break
            except _WorkerKilled as error:
                starts = _unfinished(partial, shape[0])
                if attempt == ATTEMPTS:
                    raise DataError(
                        f"A process that decodes images was killed {attempt} times, by the system (which does so when "
                        "memory runs out) or by a decoder that crashed. Finished chunks are kept: repeat the command, "
                        "with more free memory or a smaller max_pixels."
                    ) from error
                log.warning("A process that decodes images was killed: going on with the chunks that are missing.")
    facts = [pd.read_parquet(_chunk(partial, start)) for start in range(0, shape[0], CHUNK)]
    table = pd.concat(facts, ignore_index=True)
    if boxes is not None:
        table[lung_boxes.COLUMN] = [lung_boxes.as_text(box) for box in boxes]
    with replacing(partial / "facts.parquet") as temporary:
        table.to_parquet(temporary)
    for part in ("chunks", "boxes"):
        shutil.rmtree(partial / part, ignore_errors=True)
    remove_parts(partial)
    seal.write(partial)


def _reserved(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether the array of an interrupted decoding is there, with the header that it was reserved with."""
    if not path.exists():
        return False
    try:
        found = np.load(path, mmap_mode="r")
    except Exception:  # what NumPy's parser of headers raises has no common root
        return False
    return found.shape == shape and found.dtype == np.uint8 and found.flags["C_CONTIGUOUS"]


def _unfinished(partial: Path, rows: int) -> list[int]:
    """Return the first rows of the chunks that are missing, or that are no longer what was written."""
    pixels = np.load(partial / "pixels.npy", mmap_mode="r")
    return [start for start in range(0, rows, CHUNK) if not _finished(partial, start, pixels)]


def _finished(partial: Path, start: int, pixels: np.ndarray) -> bool:
    file = _chunk(partial, start)
    known = checked_json.read(file.with_suffix(".json"))
    return known is not None and file.is_file() and known == _sums(file, pixels[start : start + CHUNK])


def _sums(file: Path, pixels: np.ndarray) -> dict[str, str]:
    return {"facts": checksums.of(file), "pixels": xxhash.xxh3_128_hexdigest(np.ascontiguousarray(pixels).data)}


def _require_undamaged(index: Index, partial: Path, cache: Path) -> None:
    """Raise `DataError` if images that were decoded, and that lie in the cache, are not those that were written there.

    A large set of images is compared in part when it is opened; here the bytes were read anyway.
    """
    facts = pd.read_parquet(partial / "facts.parquet")
    found: dict[Path, list[tuple[Path, str]]] = {}
    for path, digest in zip(map(Path, index.rows["path"]), facts["file_hash"], strict=True):
        if path.is_relative_to(cache) and len(inner := path.relative_to(cache).parts) > 2 and path.is_file():
            found.setdefault(cache.joinpath(*inner[:2]), []).append((path, digest or checksums.of(path)))
    for entry, files in found.items():
        if wrong := seal.changed(entry, iter(files)):
            shutil.rmtree(partial)
            raise DataError(
                f"{len(wrong)} images of {entry.parent.name}/{entry.name} in the cache are damaged, the first: "
                f"{wrong[0]}. Delete it, and repeat the command: chestxray cache verify --delete --cache {cache}"
            )


def reserve(path: Path, shape: tuple[int, ...], kind: np.dtype | type = np.uint8) -> None:
    """Create an array file with all its disk space allocated, so that a full disk is reported at once: writing
    to a sparse memory map on a full disk would kill the process with a bus error instead.
    """
    with replacing(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=kind, shape=shape)
        size = array.offset + array.nbytes
        del array
        with temporary.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)


class _WorkerKilled(Exception):
    """A process that decodes ended without an exception of its own."""


def _counts(
    partial: Path, chunks: list[Chunk], way: Way, processes: int | None, *, apart: bool = False
) -> Iterator[int]:
    """Decode `chunks` by processes of this machine, and yield the number of images of each when it is kept."""
    # Starting processes takes about two seconds: a small set is decoded faster without them. What killed a process
    # before must not be decoded in this one.
    if not apart and (processes == 1 or len(chunks) <= 4):
        yield from (_decode_chunk(partial, chunk, way) for chunk in chunks)
        return
    from joblib import Parallel, cpu_count, delayed
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        yield from Parallel(n_jobs=processes or cpu_count(), return_as="generator_unordered")(
            delayed(_decode_chunk)(partial, chunk, way) for chunk in chunks
        )
    except TerminatedWorkerError as error:
        raise _WorkerKilled from error
    finally:
        # joblib would keep the idle processes for minutes.
        get_reusable_executor().shutdown(wait=True)


def _decode_chunk(partial: Path, chunk: Chunk, way: Way) -> int:
    return _keep(partial, chunk, *decoded_rows(chunk, way))


def _keep(partial: Path, chunk: Chunk, decoded: np.ndarray, facts: list[Fact]) -> int:
    """Write the rows of a chunk to the array, then their facts and checksums, which marks it as done."""
    pixels = np.load(partial / "pixels.npy", mmap_mode="r+")
    rows = slice(chunk.start, chunk.start + len(chunk.paths))
    pixels[rows] = decoded
    pixels.flush()
    file = _chunk(partial, chunk.start)
    with replacing(file) as temporary:
        pd.DataFrame(facts, columns=list(FACTS)).to_parquet(temporary)
    checked_json.write(file.with_suffix(".json"), _sums(file, pixels[rows]))
    return len(chunk.paths)


def _chunk(partial: Path, start: int) -> Path:
    return partial / "chunks" / f"{start:09d}.parquet"
