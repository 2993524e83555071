"""Decoding in parts: each process, here or on another machine, decodes a share of the images and sends the pixels back.

Only the driver writes to the cache, so the cache need not be seen by the others; the images must be.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np

from chestxray.data.images.pixels import Box, Fit, UnreadableImage
from chestxray.data.images.reading import read
from chestxray.errors import InputError
from chestxray.execution.executor import Executor
from chestxray.execution.parts import GIB, Part

#: Images of a share at least, as each begins a process; and bytes of their pixels at most, which are sent at once.
FEWEST, MOST_BYTES = 256, 2**26
#: Shares of all images where that is between the two.
SHARES = 32
_ABSENT = -1

#: Of an image: width, height, mode, format, file_hash, pixel_hash, and why it is unreadable.
Fact = tuple[int, int, str, str, str, str, str]


@dataclass(frozen=True)
class Way:
    """How to decode: to ``size`` (height, width); images of more than ``max_pixels`` pixels count as unreadable."""

    size: tuple[int, int]
    fit: Fit
    max_pixels: int


@dataclass(frozen=True)
class Chunk:
    """Images ``paths`` of the rows from ``start``; ``boxes``: the part of each that is kept, None for all of it."""

    start: int
    paths: Sequence[str]
    boxes: Sequence[Box | None] | None = None


def decoded_rows(chunk: Chunk, way: Way) -> tuple[np.ndarray, list[Fact]]:
    """Return the pixels, uint8 (images, height, width), zero for unreadable images, and the facts of each image."""
    pixels = np.zeros((len(chunk.paths), *way.size), np.uint8)
    facts: list[Fact] = []
    for row, (path, box) in enumerate(zip(chunk.paths, chunk.boxes or repeat(None))):  # noqa: B905 - one is endless
        try:
            image = read(Path(path), size=way.size, fit=way.fit, max_pixels=way.max_pixels, box=box)
        except UnreadableImage as error:
            facts.append((0, 0, "", "", "", "", str(error)))
            continue
        pixels[row] = image.pixels
        facts.append((image.width, image.height, image.mode, image.format, image.file_hash, image.pixel_hash, ""))
    return pixels, facts


def decoded_by(
    executor: Executor, chunks: Sequence[Chunk], way: Way
) -> Generator[tuple[Chunk, np.ndarray, list[Fact]]]:
    """Yield each chunk with its pixels and facts, as `decoded_rows` does, when it is decoded.

    Raises:
        InputError: a node does not see the images that this machine sees.
        WorkerError: a process died each time, or a cluster cannot be reached.
    """
    parts = [
        Part(
            f"images {share[0].start + 1:,} to {share[-1].start + len(share[-1].paths):,}",
            decode_share,
            {"chunks": share, "sizes": [list(map(_bytes, chunk.paths)) for chunk in share], "way": way},
            memory=executor.memory or GIB,
            processors=1,
        )
        for share in shares([replace(one, paths=[*map(os.path.abspath, one.paths)]) for one in chunks], way.size)
    ]
    with closing(executor.run(parts)) as outcomes:
        for outcome in outcomes:
            yield from outcome.value()


def shares(chunks: Sequence[Chunk], size: tuple[int, int]) -> list[list[Chunk]]:
    """Return `chunks`, of as many images each, in shares.

    >>> images = [Chunk(start, ["x.png"] * 64) for start in range(0, 640, 64)]
    >>> [len(share) for share in shares(images, (224, 224))]
    [4, 4, 2]
    """
    images = sum(len(chunk.paths) for chunk in chunks)
    wanted = min(max(FEWEST, images // SHARES), MOST_BYTES // (size[0] * size[1]))
    length = max(1, wanted // max((len(chunk.paths) for chunk in chunks), default=1))
    return [list(chunks[begin : begin + length]) for begin in range(0, len(chunks), length)]


def decode_share(
    chunks: Sequence[Chunk], sizes: Sequence[Sequence[int]], way: Way
) -> list[tuple[Chunk, np.ndarray, list[Fact]]]:
    """Decode a share, in a process of its own. `sizes`: the bytes of each file where the driver is, -1 if it is absent.

    Raises:
        InputError: a file is not here, or another one is.
    """
    for chunk, expected in zip(chunks, sizes, strict=True):
        for path, size in zip(chunk.paths, expected, strict=True):
            if (here := _bytes(path)) != size:
                found = "another file there" if here != _ABSENT else "none"
                raise InputError(
                    f"{platform.node()} does not see {path}, but {found}: images must be seen by the same path on "
                    "every node, such as one of a network file system."
                )
    return [(chunk, *decoded_rows(chunk, way)) for chunk in chunks]


def _bytes(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a Path for each of 100,000 files costs seconds
    except OSError:
        return _ABSENT
