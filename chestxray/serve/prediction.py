"""Answers of all models for one image, with limits on concurrency and time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from chestxray.data import lung_boxes
from chestxray.inference.answer import answers
from chestxray.inference.finding_answer import FindingAnswer
from chestxray.serve.data_uris import heat_map
from chestxray.serve.decoding import Decoders, Way
from chestxray.serve.errors import RequestProblem
from chestxray.serve.loading import Served
from chestxray.serve.settings import Settings

if TYPE_CHECKING:
    from chestxray.data.images.pixels import Box
    from chestxray.inference.engine import Engine, Outputs
    from chestxray.inference.heat_maps import HeatMaps
    from chestxray.inference.image_answer import ImageAnswer
    from chestxray.models.lung_segmenter import LungSegmenter

T = TypeVar("T")


def answer_image(
    content: bytes,
    kind: str,
    models: Sequence[Served],
    decoders: Decoders,
    max_pixels: int,
    deadline: float,
    *,
    maps: bool,
    pictures: bool,
) -> dict[str, Any]:
    """Return the answers of all `models` for the image file `content`, in the format of ``/api/predict``.

    An image is decoded once for each size and fit of the models, and cut to its lungs where their images are, exactly
    as `chestxray predict` does, so that both give the same answers. Decoding ends at `deadline`, a time of
    `time.monotonic`.

    Raises:
        RequestProblem: the image cannot be read, or not in time.
    """
    read: dict[Any, tuple[np.ndarray, str | None]] = {}
    for segmenter in dict.fromkeys(model.engine.segmenter for model in models):
        engines = [model.engine for model in models if model.engine.segmenter == segmenter]
        ways = list(dict.fromkeys((engine.image_size, engine.fit) for engine in engines))
        box = None if segmenter is None else _box(content, segmenter, decoders, max_pixels, deadline)
        decoded = decoders.decode(content, ways, ways if pictures else (), max_pixels, deadline, box)
        shown = decoded.pictures if pictures else [None] * len(ways)
        for way, pixels, picture in zip(ways, decoded.pixels, shown, strict=True):
            read[segmenter, *way] = pixels, picture
    found = []
    for model in models:
        engine = model.engine
        pixels, picture = read[engine.segmenter, engine.image_size, engine.fit]
        try:
            outputs = engine.run(pixels[np.newaxis], maps=maps and engine.heat_maps is not None)
        except TimeoutError as error:
            raise RequestProblem(503, "timeout", f"A model gives {error}.", retry_after=5) from error
        answer = answers([""], outputs, engine)[0]
        found.append(_fields(model, answer) | _maps(engine, outputs, answer) | {"picture": picture})
    return {"image": {"format": kind, "width": decoded.width, "height": decoded.height}, "answers": found}


def _box(content: bytes, segmenter: LungSegmenter, decoders: Decoders, max_pixels: int, deadline: float) -> Box | None:
    """Return the box around the lungs of the image file `content`, None where they are not found."""
    way: Way = ((lung_boxes.SIDE, lung_boxes.SIDE), "stretch")
    whole = decoders.decode(content, [way], (), max_pixels, deadline).pixels[0]
    return segmenter.boxes(whole[np.newaxis])[0]


def _maps(engine: Engine, outputs: Outputs, answer: ImageAnswer) -> dict[str, Any]:
    """Return the heat map, or with findings the heat maps by finding, the most probable finding first."""
    maps, known = None if outputs.maps is None or answer.refused else outputs.maps[0], engine.heat_maps
    if not isinstance(answer, FindingAnswer):
        return {"map": None if maps is None or known is None else _map(maps, known)}
    if maps is None or outputs.mapped is None or known is None:
        return {"maps": None}
    names = list(answer.findings)
    return {"maps": {names[number]: _map(one, known) for number, one in zip(outputs.mapped[0], maps, strict=True)}}


def _map(raw: np.ndarray, known: HeatMaps) -> dict[str, Any]:
    """Return a raw map (height, width) as the interface gives it: the picture on the model's scale, and its facts."""
    return {
        "image": heat_map(known.on_scale(raw), fails=known.badge == "fails"),
        "words": known.words(raw),
        "method": known.method,
        "unit": known.unit,
        "peak": float(raw.max()),
        "highest": known.highest,
        "faint": known.is_faint(raw),
        "badge": known.badge,
        "sentence": known.sentence,
    }


def _fields(model: Served, answer: ImageAnswer) -> dict[str, Any]:
    fields = answer.to_json()
    del fields["path"], fields["unreadable"]
    return {"model": model.key, "fingerprint": model.fingerprint, "words": answer.words, **fields}


class Gate:
    """Runs at most ``settings.threads`` tasks at the same time; ``settings.waiting`` more may wait."""

    def __init__(self, settings: Settings) -> None:
        self._places = threading.BoundedSemaphore(settings.threads + settings.waiting)
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="answer")
        self._timeout = settings.timeout

    def run(self, work: Callable[[float], T]) -> T:
        """Call `work` with its deadline, a time of `time.monotonic`, and return its result.

        Fetching and decoding end at the deadline. A model that still computes then keeps its slot until it ends,
        although the request has been answered, so that the limit on concurrency holds.

        Raises:
            RequestProblem: too many tasks wait, or the time is over (503).
        """
        if not self._places.acquire(blocking=False):
            raise RequestProblem(503, "busy", "Too many images are being answered. Try again.", retry_after=1)
        try:
            future: Future[T] = self._pool.submit(work, time.monotonic() + self._timeout)
        except RuntimeError as error:
            self._places.release()
            raise RequestProblem(503, "busy", "The server stops.", retry_after=5) from error
        future.add_done_callback(lambda _: self._places.release())
        try:
            return future.result(self._timeout)
        except (FutureTimeoutError, CancelledError) as error:
            if future.done() and not future.cancelled():
                return future.result()
            future.cancel()
            message = f"No answer within {self._timeout:g} seconds. Try again."
            raise RequestProblem(503, "timeout", message, retry_after=5) from error

    def close(self, *, wait: bool = True) -> None:
        """Accept no more work; by default, wait for the running tasks."""
        self._pool.shutdown(wait=wait, cancel_futures=True)
