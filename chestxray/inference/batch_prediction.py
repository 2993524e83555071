"""Inference on many image files: files are decoded in parallel, ahead of the inference that needs them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chestxray.data import lung_boxes
from chestxray.data.images.pixels import MAX_PIXELS, Box, UnreadableImage
from chestxray.data.images.reading import read
from chestxray.inference.engine import Engine, Outputs

if TYPE_CHECKING:
    from chestxray.data.images.pixels import Fit
    from chestxray.data.lung_boxes import LungFinder

#: Files that one worker decodes in one task.
CHUNK = 8
#: Number of files from which processes decode instead of threads: with fewer, starting processes takes longer.
MANY = 1000


@dataclass(frozen=True)
class Batch:
    """A batch of files with their outputs.

    ``reasons``: why each of ``paths`` cannot be read, empty where it can. ``pixels``, uint8 (readable, height,
    width), and the rows of ``outputs`` are those of the readable files, in order; ``outputs`` is None where no file
    is readable.
    """

    paths: Sequence[str]
    reasons: Sequence[str]
    pixels: np.ndarray
    outputs: Outputs | None


def predicted(
    engine: Engine,
    paths: Sequence[str],
    *,
    batch_size: int = 32,
    maps: bool = False,
    max_pixels: int = MAX_PIXELS,
    processes: bool | None = None,
) -> Iterator[Batch]:
    """Read the files `paths` and run `engine` on them; yield a batch at a time, in order.

    Files are cut to their lungs where the engine's segmenter does that. A few batches are in memory at once, however
    many files there are. `processes`: decode in processes rather than threads; default: where there are many files.
    """
    for part, pixels, reasons, _ in decoded(
        paths,
        engine.image_size,
        engine.fit,
        lungs=engine.segmenter,
        batch_size=batch_size,
        max_pixels=max_pixels,
        processes=processes,
    ):
        yield Batch(part, reasons, pixels, engine.run(pixels, maps=maps) if len(pixels) else None)


class Read(NamedTuple):
    """A batch of files that are read: ``paths``, ``pixels`` and ``reasons`` as of `Batch`; ``boxes``: the part of each
    readable file that ``pixels`` show, None for all of it.
    """

    paths: Sequence[str]
    pixels: np.ndarray
    reasons: list[str]
    boxes: list[Box | None]


def decoded(
    paths: Sequence[str],
    size: tuple[int, int],
    fit: Fit,
    *,
    lungs: LungFinder | None = None,
    batch_size: int = 32,
    max_pixels: int = MAX_PIXELS,
    processes: bool | None = None,
) -> Iterator[Read]:
    """Yield batches of files. While one batch is used, the next ones are decoded on all processors.

    With `lungs`, each file is read small and whole first, to find the box that it is then cut to; of those without one,
    which are used whole, the number is logged.
    """
    workers = _processors()
    ahead = 1 + math.ceil(2 * workers * CHUNK / batch_size)
    parts = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    with _pool(workers, len(paths) >= MANY if processes is None else processes) as pool:

        def reading(part: Sequence[str], shape: tuple[int, int], how: Fit, boxes: Sequence[Box | None]) -> list[Any]:
            chunks = [slice(i, i + CHUNK) for i in range(0, len(part), CHUNK)]
            return [pool.submit(_read_all, part[one], shape, how, max_pixels, boxes[one]) for one in chunks]

        if lungs is None:
            waiting = ((part, [None] * len(part), reading(part, size, fit, [None] * len(part))) for part in parts)
            yield from (read for read, _ in _in_turn(waiting, ahead))
            return
        small = (lung_boxes.SIDE, lung_boxes.SIDE)
        whole = ((part, [None] * len(part), reading(part, small, "stretch", [None] * len(part))) for part in parts)
        found: list[Box | None] = []

        def cut() -> Iterator[tuple[Sequence[str], list[Box | None], list[Any]]]:
            for read, good in _in_turn(whole, ahead):
                boxes: list[Box | None] = [None] * len(read.paths)
                for place, box in zip(good, lungs.boxes(read.pixels) if good else [], strict=True):
                    boxes[place] = box
                    found.append(box)
                yield read.paths, boxes, reading(read.paths, size, fit, boxes)

        yield from (read for read, _ in _in_turn(cut(), ahead))
        lung_boxes.say_unknown(found)


def _in_turn(
    submitted: Iterator[tuple[Sequence[str], Sequence[Box | None], list[Future[Any]]]], ahead: int
) -> Iterator[tuple[Read, list[int]]]:
    """Yield the batches whose files are `submitted`, `ahead` of which are read at a time, and the places of the
    readable files in each.
    """
    waiting = deque(islice(submitted, ahead))
    while waiting:
        part, boxes, futures = waiting.popleft()
        results = [future.result() for future in futures]
        waiting.extend(islice(submitted, 1))
        reasons = [reason for _, some in results for reason in some]
        good = [place for place, reason in enumerate(reasons) if not reason]
        pixels = np.concatenate([pixels for pixels, _ in results])
        yield Read(part, pixels, reasons, [boxes[place] for place in good]), good


def _read_all(
    paths: Sequence[str], size: tuple[int, int], fit: Fit, max_pixels: int, boxes: Sequence[Box | None]
) -> tuple[np.ndarray, list[str]]:
    pixels, reasons = np.empty((len(paths), *size), dtype=np.uint8), []
    kept = 0
    for path, box in zip(paths, boxes, strict=True):
        try:
            pixels[kept] = read(Path(path), size=size, fit=fit, max_pixels=max_pixels, box=box).pixels
        except UnreadableImage as error:
            reasons.append(str(error))
            continue
        reasons.append("")
        kept += 1
    return pixels[:kept], reasons


@contextmanager
def _pool(workers: int, processes: bool) -> Iterator[Any]:
    if not processes:
        threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            yield threads
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
        return
    # Loky's processes import only what their tasks need, not the main program: TensorFlow is not loaded again.
    from joblib.externals.loky import ProcessPoolExecutor

    pool = ProcessPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def _processors() -> int:
    from joblib import cpu_count

    return cpu_count()
