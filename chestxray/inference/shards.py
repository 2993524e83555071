"""Bulk prediction in parts: each process, here or on another machine, answers for a share of the files.

Shares begin where a batch does, so that every image is in the batch it would be in otherwise, and has the same
probabilities to the last bit; they are given back in the order of the files.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chestxray.errors import InputError
from chestxray.execution.executor import Executor
from chestxray.execution.parts import MEMORY, Part
from chestxray.inference import opening
from chestxray.inference.batch_prediction import Batch, predicted

if TYPE_CHECKING:
    from chestxray.evaluation.decision.finding_rule import Rule
    from chestxray.inference.output_file import Overlays

#: Files of a share at least, as each process opens the model anew, and at most, as a share whose process dies is
#: predicted again.
FEWEST, MOST = 256, 4096
#: Shares of all files where the number of workers is not said.
SHARES = 16


@dataclass(frozen=True)
class Request:
    """What to predict with: the ``run``, of this ``fingerprint``, and how, as in `predicted`.

    ``folder`` is the working directory, from which relative paths start. Overlays are written to ``heatmaps`` by
    ``rule``.
    """

    run: Path
    fingerprint: str
    folder: Path
    rule: Rule
    heatmaps: Path | None
    batch_size: int
    max_pixels: int


def predicted_by(
    executor: Executor, request: Request, paths: Sequence[str]
) -> Generator[tuple[Batch, Sequence[Overlays]]]:
    """Yield batches without their pixels and maps, in order, with the names of their overlays.

    Raises:
        WorkerError: a process died each time, or a cluster cannot be reached.
        ChestXrayError: as `opening.open_engine` and `write_overlays`.
    """
    shares = split(paths, request.batch_size, executor.workers)
    parts = [
        Part(
            f"images {share[0] + 1:,} to {share[1]:,}",
            share_of,
            {"request": request, "paths": paths[share[0] : share[1]]},
            gpus=1,
            memory=executor.memory or MEMORY,
        )
        for share in shares
    ]
    places = {part.name: place for place, part in enumerate(parts)}
    early: dict[int, list[tuple[Batch, Sequence[Overlays]]]] = {}
    due = 0
    with closing(executor.run(parts)) as outcomes:
        for outcome in outcomes:
            early[places[outcome.part.name]] = outcome.value()
            while due in early:
                yield from early.pop(due)
                due += 1


def split(paths: Sequence[str], batch_size: int, workers: int | None) -> list[tuple[int, int]]:
    """Return the shares of `paths` as (begin, end), each but the last of whole batches.

    >>> split(["x"] * 1000, 32, 2)
    [(0, 512), (512, 1000)]
    """
    files = min(MOST, max(FEWEST, -(-len(paths) // (workers or SHARES))))
    size = -(-files // batch_size) * batch_size
    return [(begin, min(begin + size, len(paths))) for begin in range(0, len(paths), size)]


def share_of(request: Request, paths: Sequence[str]) -> list[tuple[Batch, Sequence[Overlays]]]:
    """Predict a share, in a process of its own; its working directory becomes that of `request`.

    Raises:
        InputError: the working directory is not there, or another run is in the folder.
        ChestXrayError: as `predicted_by`.
    """
    from chestxray.inference.overlay_files import overlays_of

    try:
        os.chdir(request.folder)
    except OSError as error:
        raise InputError(
            f"{platform.node()} does not see {request.folder}: images and run must be seen by the same path on every "
            "node, such as one of a network file system."
        ) from error
    engine = opening.open_engine(request.run)
    if opening.fingerprint(request.run) != request.fingerprint:
        raise InputError(f"{platform.node()} has another run in {request.run} than the driver.")
    batches = []
    for batch in predicted(
        engine,
        paths,
        batch_size=request.batch_size,
        maps=request.heatmaps is not None,
        max_pixels=request.max_pixels,
    ):
        names = overlays_of(request.heatmaps, batch, engine, request.rule)
        outputs = None if batch.outputs is None else dataclasses.replace(batch.outputs, maps=None, mapped=None)
        batches.append((Batch(batch.paths, batch.reasons, np.empty((0, 0, 0), np.uint8), outputs), names))
    return batches
