"""Inference on many image files: files are decoded in parallel, ahead of the inference that needs them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chestxray.data.images.pixels import MAX_PIXELS, UnreadableImage
from chestxray.data.images.reading import read
from chestxray.inference.engine import Engine, Outputs

if TYPE_CHECKING:
    from chestxray.data.images.pixels import Fit

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

    A few batches are in memory at once, however many files there are. `processes`: decode in
    processes rather than threads; default: where there are many files.
    """
    for part, pixels, reasons in decoded(
        paths, engine.image_size, engine.fit, batch_size=batch_size, max_pixels=max_pixels, processes=processes
    ):
        yield Batch(part, reasons, pixels, engine.run(pixels, maps=maps) if len(pixels) else None)


def decoded(
    paths: Sequence[str],
    size: tuple[int, int],
    fit: Fit,
    *,
    batch_size: int = 32,
    max_pixels: int = MAX_PIXELS,
    processes: bool | None = None,
) -> Iterator[tuple[Sequence[str], np.ndarray, list[str]]]:
    """Yield batches of files: their paths, the pixels, uint8 (readable, height, width), of the readable ones, and the
    reasons of `Batch`. While one batch is used, the next ones are decoded on all processors.
    """
    workers = _processors()
    ahead = 1 + math.ceil(2 * workers * CHUNK / batch_size)
    starts = iter(range(0, len(paths), batch_size))
    waiting: deque[tuple[Sequence[str], list[Future[Any]]]] = deque()
    with _pool(workers, len(paths) >= MANY if processes is None else processes) as pool:

        def submit() -> None:
            if (start := next(starts, None)) is not None:
                part = paths[start : start + batch_size]
                chunks = [part[i : i + CHUNK] for i in range(0, len(part), CHUNK)]
                waiting.append((part, [pool.submit(_read_all, chunk, size, fit, max_pixels) for chunk in chunks]))

        for _ in range(ahead):
            submit()
        while waiting:
            part, futures = waiting.popleft()
            results = [future.result() for future in futures]
            submit()
            yield (
                part,
                np.concatenate([pixels for pixels, _ in results]),
                [r for _, reasons in results for r in reasons],
            )


def _read_all(paths: Sequence[str], size: tuple[int, int], fit: Fit, max_pixels: int) -> tuple[np.ndarray, list[str]]:
    pixels, reasons = np.empty((len(paths), *size), dtype=np.uint8), []
    kept = 0
    for path in paths:
        try:
            pixels[kept] = read(Path(path), size=size, fit=fit, max_pixels=max_pixels).pixels
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
