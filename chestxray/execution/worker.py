"""The process that does one part and ends: ``python -m chestxray.execution.worker``, started by `local`.

It reads its task from standard input, which stays open: when the driver is gone, however it ended, the input ends,
and so does the worker with all processes it has started. Messages to the driver go to standard output, all that is
printed goes to standard error.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import IO, Any

from chestxray.errors import ChestXrayError, missing_package
from chestxray.execution.parts import Answer

_LENGTH = struct.Struct("!Q")


def call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Answer:
    """Call `function` and return its value, or what it raised. Ctrl-C is passed on."""
    try:
        return Answer(function(**arguments))
    except ChestXrayError as error:
        return Answer(error=error)
    except ModuleNotFoundError as error:
        missing = missing_package(error, "This part")
        return Answer(error=missing, traceback="" if missing else traceback.format_exc())
    except Exception:
        return Answer(traceback=traceback.format_exc())


def speak(handler: logging.Handler, level: int) -> None:
    """Let the logger ``chestxray`` speak by `handler` alone, from `level` on."""
    logger = logging.getLogger("chestxray")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)


def send(file: IO[bytes], message: Any) -> None:
    """Write a message to a pipe."""
    content = pickle.dumps(message)
    file.write(_LENGTH.pack(len(content)) + content)
    file.flush()


def receive(file: IO[bytes]) -> Any:
    """Read a message from a pipe. Raises `EOFError` where it ends before the message does."""
    (length,) = _LENGTH.unpack(_exactly(file, _LENGTH.size))
    return pickle.loads(_exactly(file, length))  # noqa: S301 - between a driver and the process it has started


def _exactly(file: IO[bytes], length: int) -> bytes:
    content = b""
    while len(content) < length:
        if not (more := file.read(length - len(content))):
            raise EOFError
        content += more
    return content


class _ToDriver(logging.Handler):
    """Sends each line, with its level, to the driver."""

    def __init__(self, channel: IO[bytes]) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        # The handler's lock keeps lines of several threads apart.
        send(self._channel, (record.levelno, self.format(record)))


def _end_with_driver() -> None:
    """Wait for the end of standard input, then kill this process and those it has started."""
    # Not by sys.stdin: a thread that waits in its lock would break the end of the interpreter.
    while os.read(0, 1):
        pass
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main() -> None:
    """Do the part that standard input describes, and answer."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # A driver in a shell's background ignores Ctrl-C, and its children with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with os.fdopen(os.dup(0), "rb", buffering=0) as given:
        # Before the function is looked up, which may be where only the driver knows.
        sys.path[:] = receive(given)
        function, arguments, level = receive(given)
    threading.Thread(target=_end_with_driver, name="driver", daemon=True).start()
    handler = _ToDriver(channel)
    speak(handler, level)
    try:
        answer = call(function, arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    with handler.lock or threading.Lock():
        send(channel, answer)


if __name__ == "__main__":
    main()
