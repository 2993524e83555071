"""The decoding process: receives untrusted image files, returns pixel arrays.

Its memory and the seconds of a job are limited and it cannot write files; if it crashes, the server goes on. It
imports the code that reads images, and neither Flask nor the models. `decoding` starts it, sends jobs and ends it.
Messages are JSON, prefixed by their length, and plain bytes: no format that could make the server execute what a
compromised decoder sends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import struct
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from chestxray.data.images import reading
from chestxray.data.images.pixels import TooManyPixels, UnreadableImage
from chestxray.serve.data_uris import picture

LENGTH = struct.Struct("<I")
#: Outcomes of a job: pixels, or the reason why there are none; ``defect`` is an error of this program.
FINE, TOO_MANY, UNREADABLE, DEFECT = "fine", "too_many_pixels", "unreadable", "defect"


def main(memory: int) -> None:
    """Process jobs from standard input until it ends. `memory`: most bytes in addition to those at the start."""
    if importlib.util.find_spec("pydicom"):
        # Imported before the limits apply, and before a job waits for it.
        from pydicom import dcmread  # noqa: F401
        from pydicom.pixels import pixel_array  # noqa: F401
    jobs = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    # What a library prints must not be read as a result.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    limit(memory)
    write(results, json.dumps({"ready": True}).encode())
    while (header := read(jobs)) is not None:
        job = json.loads(header)
        content = exactly(jobs, job["bytes"])
        with at_most(job["seconds"]):
            header_, parts = _done(content, job)
        del content
        write(results, json.dumps(header_).encode())
        for part in parts:
            write(results, part, framed=False)


def limit(memory: int) -> None:
    """Limit this process to `memory` bytes more than it has, and forbid it to write files. Windows and macOS have
    no such limits; there only the deadline applies.
    """
    try:
        import resource
    except ImportError:
        return
    # Linux limits address space, not resident memory: hence the addition of what the process has already.
    with contextlib.suppress(OSError):
        has = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + memory, has + memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read(source: IO[bytes], most: int = 1 << 20) -> bytes | None:
    """Return a message framed by `write`; None at the end. Raises `EOFError` for an incomplete or too long one."""
    start = source.read(1)
    if not start:
        return None
    (length,) = LENGTH.unpack(start + exactly(source, LENGTH.size - 1))
    if length > most:
        raise EOFError
    return exactly(source, length)


def exactly(source: IO[bytes], length: int) -> bytes:
    """Return exactly `length` bytes. Raises `EOFError` if there are fewer."""
    made = bytearray(length)
    view, at = memoryview(made), 0
    while at < length:
        found = source.readinto(view[at:])  # type: ignore[attr-defined]
        if not found:
            raise EOFError
        at += found
    view.release()
    return bytes(made)


def write(target: IO[bytes], content: bytes, *, framed: bool = True) -> None:
    """Write `content`, by default prefixed by its length."""
    if framed:
        target.write(LENGTH.pack(len(content)))
    view = memoryview(content)
    while view:
        view = view[target.write(view) :]


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End this process after `seconds`, also if the server that started it is gone."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _done(content: bytes, job: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    try:
        return _decoded(content, job)
    except TooManyPixels as error:
        return {"kind": TOO_MANY, "reason": str(error)}, []
    except UnreadableImage as error:
        return {"kind": UNREADABLE, "reason": str(error)}, []
    except MemoryError:
        return {"kind": UNREADABLE, "reason": "it needs more memory than is allowed"}, []
    except Exception as error:
        # Type and places of the error, not its message, which may quote the file.
        places = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        return {"kind": DEFECT, "reason": type(error).__name__, "raised": places[-20:]}, []


def _decoded(content: bytes, job: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Return the pixels for each ``[height, width, fit]`` in ``ways``, and a data URI for each in ``pictures``, all of
    the part ``box`` of the image, or of all of it.
    """
    parts, first = [], None
    box = None if job["box"] is None else tuple(job["box"])
    for height, width, fit in job["ways"]:
        image = reading.decode(content, size=(height, width), fit=fit, max_pixels=job["max_pixels"], box=box)
        first = first or image
        parts.append(image.pixels.tobytes())
    drawn: list[bytes] = []
    if job["pictures"]:
        whole = reading.decode(content, max_pixels=job["max_pixels"], box=box)
        first = first or whole
        drawn = [picture(whole.pixels, (height, width), fit).encode("ascii") for height, width, fit in job["pictures"]]
    assert first is not None
    results = {"kind": FINE, "width": first.width, "height": first.height, "pictures": [len(uri) for uri in drawn]}
    return results, [*parts, *drawn]
