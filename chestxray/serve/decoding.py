"""Decodes images in separate processes with limits on memory and time.

A file of a few kilobytes can keep a decoder busy for minutes or make it allocate gigabytes, and a thread
cannot be stopped. A process is killed at the deadline, and the next job gets a new one. The models run in the
server: their input has a fixed size, so that the uploaded file changes neither their time nor their memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.data.images.pixels import Box, Fit
from chestxray.serve import decoder
from chestxray.serve.errors import RequestProblem
from chestxray.serve.json_logs import log
from chestxray.serve.settings import Settings

#: (height, width) of the pixels, and how the image is fitted to it.
Way = tuple[tuple[int, int], Fit]
#: Most bytes of an image as data URI, of at most 768 x 768 pixels.
_PICTURE = 2_000_000
_BUSY = 5


@dataclass(frozen=True)
class Decoded:
    """A decoded image: ``pixels``, uint8 (height, width), for each of the ways, ``pictures`` as data URIs, and
    ``width`` and ``height`` of the file.
    """

    pixels: tuple[np.ndarray, ...]
    pictures: tuple[str, ...]
    width: int
    height: int


class Decoders:
    """A pool of decoding processes, one for each image that may be computed at the same time, started on demand."""

    def __init__(self, settings: Settings) -> None:
        self._memory = settings.decoder_memory
        self._idle: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        self._running: set[_Process] = set()
        self._lock = threading.Lock()
        self._closed = False
        for _ in range(settings.threads):
            self._idle.put(None)

    def start(self) -> None:
        """Start all processes without waiting for them."""
        found = [self._idle.get() for _ in range(self._idle.qsize())]
        for process in found:
            self._idle.put(process or self._started())

    def wait(self) -> None:
        """Wait until all processes that were started are ready for an image, or have ended."""
        for process in list(self._running):
            process.wait()

    def decode(
        self,
        content: bytes,
        ways: Sequence[Way],
        pictures: Sequence[Way],
        max_pixels: int,
        deadline: float,
        box: Box | None = None,
    ) -> Decoded:
        """Return the image file `content` in each of `ways`, and as `pictures` for display, of which `box` is kept.
        `deadline` is a time of `time.monotonic`.

        Raises:
            RequestProblem: more than `max_pixels` (413); the image cannot be read, or not within the memory
                limit (422); the time is over, or the server stops (503).
        """
        try:
            process = self._idle.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise _late() from None
        try:
            if process is not None and process.ended():
                self._forget(process)
                process = None
            process = process or self._started()
            header, parts = process.ask(content, ways, pictures, max_pixels, deadline, box)
        except EOFError:
            # The process has ended, by a limit or a crash.
            assert process is not None
            if self._closed:
                raise _busy() from None
            late = time.monotonic() >= deadline
            log.warning("decoder ended", extra={"fields": {"reason": "time" if late else process.code()}})
            if late:
                raise _late() from None
            reason = "The image cannot be read: decoding it needs more than is allowed, or breaks the decoder."
            raise RequestProblem(422, "unreadable", reason) from None
        finally:
            if process is not None and process.ended():
                self._forget(process)
                process = None
                # Its successor is started before the next job needs it.
                with contextlib.suppress(RequestProblem):
                    process = self._started()
            self._idle.put(process)
        return _understood(header, parts, ways)

    def close(self) -> None:
        """End all processes, also those that are decoding."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            process.kill()
        with contextlib.suppress(queue.Empty):
            while True:
                if (idle := self._idle.get_nowait()) is not None:
                    self._forget(idle)

    def _started(self) -> _Process:
        with self._lock:
            if self._closed:
                raise _busy()
            try:
                process = _Process(self._memory)
            except OSError as error:
                raise _busy() from error
            self._running.add(process)
        return process

    def _forget(self, process: _Process) -> None:
        process.end()
        with self._lock:
            self._running.discard(process)


class _Process:
    """One process of `decoder.main`."""

    def __init__(self, memory: int) -> None:
        # The search path of this process, without the current folder.
        path = [*filter(None, sys.path), str(Path(__file__).parents[2])]
        code = f"import sys; sys.path[:] = {path!r}; from chestxray.serve.decoder import main; main({memory})"
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-I", "-B", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, **one, "PYTHONWARNINGS": "ignore"},
            # Ctrl-C goes to the server alone, which then ends the process.
            start_new_session=True,
        )
        # Starting it may take long on a busy machine, and is not subject to a deadline.
        self._ready = threading.Event()
        threading.Thread(target=self._await, name="decoder starts", daemon=True).start()

    def wait(self) -> None:
        """Wait until the process is ready, or has ended."""
        self._ready.wait()

    def _await(self) -> None:
        with contextlib.suppress(EOFError, OSError, ValueError):
            decoder.read(self._process.stdout)  # type: ignore[arg-type]
        self._ready.set()

    def ask(
        self,
        content: bytes,
        ways: Sequence[Way],
        pictures: Sequence[Way],
        max_pixels: int,
        deadline: float,
        box: Box | None,
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Send a job and return its result.

        Raises `EOFError` where the process ended before it answered, and `RequestProblem` (503) where it has not
        started in time; it then continues to start.
        """
        jobs, results = self._process.stdin, self._process.stdout
        assert jobs is not None and results is not None
        if not self._ready.wait(max(0.0, deadline - time.monotonic())):
            raise _late()
        left = deadline - time.monotonic()
        # Reading ends with the process, so that no other timeout is needed.
        watch = threading.Timer(max(0.0, left), self._process.kill)
        watch.daemon = True
        watch.start()
        try:
            job = {
                "bytes": len(content),
                "max_pixels": max_pixels,
                # Later than the timer here, so that a time-out is recognised here.
                "seconds": max(0.1, left + 1),
                "ways": [[*size, fit] for size, fit in ways],
                "pictures": [[*size, fit] for size, fit in pictures],
                "box": box,
            }
            decoder.write(jobs, json.dumps(job).encode())
            decoder.write(jobs, content, framed=False)
            answer = _checked(json.loads(decoder.read(results) or _nothing()))
            sizes = [height * width for (height, width), _ in ways] + answer["pictures"]
            if answer["kind"] != decoder.FINE:
                return answer, []
            if len(sizes) != len(ways) + len(pictures) or any(not 0 <= size <= _PICTURE for size in answer["pictures"]):
                raise EOFError
            return answer, [decoder.exactly(results, size) for size in sizes]
        except (BrokenPipeError, ValueError, TypeError, KeyError, AttributeError) as error:
            # The output of a corrupted process is not used.
            self.end()
            raise EOFError from error
        except EOFError:
            self.end()
            raise
        finally:
            watch.cancel()

    def ended(self) -> bool:
        """Return whether the process has ended."""
        return self._process.poll() is not None

    def code(self) -> str:
        """Return the signal or status with which it ended."""
        return str(self._process.returncode)

    def kill(self) -> None:
        """Kill the process. The thread that reads its answer closes the pipes."""
        self._process.kill()

    def end(self) -> None:
        """Kill the process and close its pipes, which no other thread may be reading."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _checked(header: Any) -> dict[str, Any]:
    """Return the header that a process sent with each field converted to its type; raises if one cannot be."""
    kinds = (decoder.FINE, decoder.TOO_MANY, decoder.UNREADABLE, decoder.DEFECT)
    return {
        "kind": kinds[kinds.index(header["kind"])],
        "reason": str(header.get("reason", ""))[:300],
        "raised": [str(place)[:300] for place in header.get("raised", ())],
        "width": int(header.get("width", 0)),
        "height": int(header.get("height", 0)),
        "pictures": [int(size) for size in header.get("pictures", ())],
    }


def _understood(header: dict[str, Any], parts: list[bytes], ways: Sequence[Way]) -> Decoded:
    if header["kind"] == decoder.TOO_MANY:
        raise RequestProblem(413, "too_many_pixels", f"The image cannot be read: {header['reason']}.")
    if header["kind"] == decoder.UNREADABLE:
        raise RequestProblem(422, "unreadable", f"The image cannot be read: {header['reason']}.")
    if header["kind"] != decoder.FINE:
        raise Undecoded(header["reason"], header["raised"])
    pixels = tuple(
        np.frombuffer(part, np.uint8).reshape(size) for part, (size, _) in zip(parts[: len(ways)], ways, strict=True)
    )
    drawn = tuple(part.decode("ascii") for part in parts[len(ways) :])
    return Decoded(pixels, drawn, header["width"], header["height"])


class Undecoded(Exception):
    """An error of this program in the decoding process: the exception's type, and where it was raised."""

    def __init__(self, kind: str, raised: list[str]) -> None:
        super().__init__(kind)
        self.kind = kind
        self.raised = raised


def _late() -> RequestProblem:
    return RequestProblem(503, "timeout", "No answer in the time that is allowed. Try again.", retry_after=_BUSY)


def _busy() -> RequestProblem:
    return RequestProblem(503, "busy", "The server stops, or has no room. Try again.", retry_after=_BUSY)


def _nothing() -> bytes:
    raise EOFError
