"""Images decoded in processes of their own, which are held to limits, and ended when time is up.

A file of a few kilobytes can keep a decoder busy for minutes, or make it ask for gigabytes, and what a
thread has begun cannot be stopped. A process can: it is killed at the deadline, and the next job gets
another one. What the models compute stays in the server: their input has one size, whatever was sent, so
that the bytes of a stranger change neither how long they compute nor how much memory they take.
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

from chestxray.data.images.pixels import Fit
from chestxray.serve import decoder
from chestxray.serve.errors import RequestProblem
from chestxray.serve.json_logs import log
from chestxray.serve.settings import Settings

#: (height, width) of the pixels, and how the image is brought there.
Way = tuple[tuple[int, int], Fit]
#: Bytes of a picture, a data address of at most 768 x 768 pixels.
_PICTURE = 2_000_000
_BUSY = 5


@dataclass(frozen=True)
class Decoded:
    """``pixels``: uint8 (height, width) of each way that was asked for, ``pictures`` data addresses;
    ``width`` and ``height`` are those of the file.
    """

    pixels: tuple[np.ndarray, ...]
    pictures: tuple[str, ...]
    width: int
    height: int


class Decoders:
    """As many decoding processes as images may be computed at once, started when they are first needed."""

    def __init__(self, settings: Settings) -> None:
        self._memory = settings.decoder_memory
        self._idle: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        self._running: set[_Process] = set()
        self._lock = threading.Lock()
        self._closed = False
        for _ in range(settings.threads):
            self._idle.put(None)

    def start(self) -> None:
        """Start all processes, and do not wait for them."""
        found = [self._idle.get() for _ in range(self._idle.qsize())]
        for process in found:
            self._idle.put(process or self._started())

    def decode(
        self, content: bytes, ways: Sequence[Way], pictures: Sequence[Way], max_pixels: int, deadline: float
    ) -> Decoded:
        """The image file `content` in each of `ways`, and as `pictures` to look at, until `deadline`, of
        `time.monotonic`.

        Raises:
            RequestProblem: more than `max_pixels` (413), or the image cannot be read, or not with the
                memory that is allowed (422); the time is up, or the server stops (503).
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
            header, parts = process.ask(content, ways, pictures, max_pixels, deadline)
        except EOFError:
            # It is gone, by a limit, or by what a decoder did.
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
                # The next one starts while nobody waits for it.
                with contextlib.suppress(RequestProblem):
                    process = self._started()
            self._idle.put(process)
        return _understood(header, parts, ways)

    def close(self) -> None:
        """End all processes, also those that decode."""
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
        # The search path of this process and no other: nothing from the folder that the server was started in.
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
            # Ctrl-C is for the server, which then ends it.
            start_new_session=True,
        )
        # However long a busy machine takes to start it, a deadline does not end that.
        self._ready = threading.Event()
        threading.Thread(target=self._await, name="decoder starts", daemon=True).start()

    def _await(self) -> None:
        with contextlib.suppress(EOFError, OSError, ValueError):
            decoder.read(self._process.stdout)  # type: ignore[arg-type]
        self._ready.set()

    def ask(
        self, content: bytes, ways: Sequence[Way], pictures: Sequence[Way], max_pixels: int, deadline: float
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Raises `EOFError` where the process ended before it answered, `RequestProblem` (503) where it has
        not started in time: then it goes on doing so.
        """
        jobs, results = self._process.stdin, self._process.stdout
        assert jobs is not None and results is not None
        if not self._ready.wait(max(0.0, deadline - time.monotonic())):
            raise _late()
        left = deadline - time.monotonic()
        # Reading ends when the process does, so that nothing else needs a timeout.
        watch = threading.Timer(max(0.0, left), self._process.kill)
        watch.daemon = True
        watch.start()
        try:
            job = {
                "bytes": len(content),
                "max_pixels": max_pixels,
                # A little later than here, where it is told apart.
                "seconds": max(0.1, left + 1),
                "ways": [[*size, fit] for size, fit in ways],
                "pictures": [[*size, fit] for size, fit in pictures],
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
            # Of a process that was broken, whatever it says is no answer.
            self.end()
            raise EOFError from error
        except EOFError:
            self.end()
            raise
        finally:
            watch.cancel()

    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def code(self) -> str:
        """By which signal or status it ended."""
        return str(self._process.returncode)

    def kill(self) -> None:
        """End it, whatever it does. Whoever reads its answer closes the pipes."""
        self._process.kill()

    def end(self) -> None:
        """Kill it, and close its pipes, which nobody else may read."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _checked(header: Any) -> dict[str, Any]:
    """What a process said, each part of the kind that it must be. Raises what Python raises where it is not."""
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
    """A defect of ours in the decoding process: the exception's type, and where it was raised."""

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
