"""One image -> the answers of all models, a few at a time, and no longer than the operator allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from chestxray.answers import answers
from chestxray.serve import uploads
from chestxray.serve.models import Served
from chestxray.serve.pictures import heat_map, picture
from chestxray.serve.problems import RequestProblem
from chestxray.serve.settings import Settings

if TYPE_CHECKING:
    from chestxray.answers import Answer
    from chestxray.images import Radiograph

T = TypeVar("T")


def answer_image(
    content: bytes, kind: str, models: Sequence[Served], max_pixels: int, *, maps: bool, pictures: bool
) -> dict[str, Any]:
    """What all `models` say of the image file `content`, as ``/api/predict`` gives it.

    An image is decoded once for each size and fit that models ask for, exactly as `chestxray predict`
    decodes it, so that both answer alike.

    Raises:
        RequestProblem: the image cannot be read.
    """
    read: dict[Any, Radiograph] = {}
    for model in models:
        way = (model.engine.image_size, model.engine.fit)
        if way not in read:
            read[way] = uploads.decode(content, *way, max_pixels)
    whole = uploads.decode(content, None, "stretch", max_pixels).pixels if pictures else None
    found = []
    for model in models:
        engine = model.engine
        pixels = read[engine.image_size, engine.fit].pixels[np.newaxis]
        outputs = engine.run(pixels, maps=maps and engine.has_maps)
        answer = answers([""], outputs, engine, engine.decision.limit)[0]
        heat = None if outputs.maps is None or answer.refused else heat_map(outputs.maps[0])
        shown = None if whole is None else picture(whole, engine.image_size, engine.fit)
        found.append(_told(model, answer) | {"map": heat, "picture": shown})
    first = next(iter(read.values()))
    return {"image": {"format": kind, "width": first.width, "height": first.height}, "answers": found}


def _told(model: Served, answer: Answer) -> dict[str, Any]:
    told = answer.to_json()
    del told["path"], told["unreadable"]
    return {"model": model.key, "words": answer.words, **told}


class Gate:
    """Lets ``settings.threads`` pieces of work be done at once and ``settings.waiting`` more wait."""

    def __init__(self, settings: Settings) -> None:
        self._places = threading.BoundedSemaphore(settings.threads + settings.waiting)
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="answer")
        self._timeout = settings.timeout

    def run(self, work: Callable[[], T]) -> T:
        """Do `work` and return what it returns.

        Work that has begun cannot be stopped: it keeps its place until it ends, though nobody waits
        for it any more, so that there is never more of it than was allowed.

        Raises:
            RequestProblem: too many wait, or it takes too long (503).
        """
        if not self._places.acquire(blocking=False):
            raise RequestProblem(503, "busy", "Too many images are being answered. Try again.", retry_after=1)
        future: Future[T] = self._pool.submit(work)
        future.add_done_callback(lambda _: self._places.release())
        try:
            return future.result(self._timeout)
        except (FutureTimeoutError, CancelledError) as error:
            if future.done() and not future.cancelled():
                return future.result()
            future.cancel()
            message = f"No answer within {self._timeout:g} seconds. Try again."
            raise RequestProblem(503, "timeout", message, retry_after=5) from error

    def close(self) -> None:
        """Let what has begun come to its end, and nothing else."""
        self._pool.shutdown(wait=True, cancel_futures=True)
