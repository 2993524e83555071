"""Several processes behind one address: gunicorn's master, with workers that run `connections.Server`.

gunicorn starts, watches, replaces and ends the processes. Its own workers are not used: none of them limits how slowly
a request arrives, or connections and bytes of a client (see `connections`). A worker here is the server of one
process, on the listener that all share, so that whatever holds of that server holds of each worker.

A worker loads the models itself, as neither TensorFlow nor ONNX Runtime promises to work in a fork, and serves when
the master says so: at the start and after a reload all at once. It tells the master in shared memory what it loaded.
This rests on gunicorn's classes, hence the bound of its version.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gunicorn.workers.base import Worker as GunicornWorker

from chestxray.errors import ChestXrayError, DataError, missing_package
from chestxray.serve.app import create_app
from chestxray.serve.connections import Server
from chestxray.serve.decoding import Decoders
from chestxray.serve.json_logs import log
from chestxray.serve.rate_limit import SharedLimit
from chestxray.serve.settings import Settings

if TYPE_CHECKING:
    from chestxray.serve.loading import Served

#: Status of a worker that could not load the models.
NOT_LOADED = 10
#: Seconds that a worker waits before it ends for that reason: its successor would fail as well.
PAUSE = 1.0
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Job:
    """What every worker does: serve what ``load`` returns. ``folder`` and ``key`` are those of the shared limit."""

    load: Callable[[], Sequence[Served]]
    settings: Settings
    folder: Path
    key: bytes


class Slate:
    """Memory that a worker shares with the master: what the worker tells, and whether it may serve."""

    _SIZE = 1 << 16

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._SIZE)

    def write(self, **told: Any) -> None:
        """Tell the master `told`, in place of what was told before."""
        content = json.dumps(told).encode()
        self._memory[:4] = _LENGTH.pack(0)
        self._memory[8 : 8 + len(content)] = content
        self._memory[:4] = _LENGTH.pack(len(content))

    def read(self) -> dict[str, Any]:
        """Return what was told last; nothing if nothing was, or if it is being written at this moment."""
        (length,) = _LENGTH.unpack(self._memory[:4])
        try:
            told: dict[str, Any] = json.loads(self._memory[8 : 8 + length] or b"{}")
        except ValueError:
            return {}
        return told

    @property
    def go(self) -> bool:
        """Whether the worker may serve."""
        return self._memory[4] == 1

    def release(self) -> None:
        """Let the worker serve."""
        self._memory[4] = 1

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()


class Worker(GunicornWorker):
    """A process that loads the models, waits for the master, and serves until it is told to stop."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.alive: bool = True
        # Before the fork, so that both processes have it.
        self.slate = Slate()
        self.server: Server | None = None

    def init_signals(self) -> None:
        """Extend gunicorn's method: Ctrl-C, which goes to every process of a terminal, is the master's to handle."""
        super().init_signals()
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End after the running requests, or after ``settings.last`` seconds in any case."""
        if self.alive:
            self.alive = False
            last = threading.Timer(self.app.job.settings.last, os._exit, (1,))
            last.daemon = True
            last.start()
            if self.server is not None:
                self.server.stop()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """End at once."""
        os._exit(1)

    def load_wsgi(self) -> None:
        """Load the models and make the application, in place of gunicorn's loading of a module."""
        job: Job = self.app.job
        self.decoders = Decoders(job.settings)
        self.decoders.start()
        try:
            models = self._loaded(job)
        except Exception as error:
            self.slate.write(error=_said(error)[:4000], kind=type(error).__name__)
            self.decoders.close()
            until = time.monotonic() + PAUSE
            while self.alive and self.app.expected is not None and time.monotonic() < until:
                self._rest(0.1)
            os._exit(NOT_LOADED)
        limit = SharedLimit(job.settings.per_minute, job.folder / "limit.sqlite", job.key)
        self.wsgi = create_app(models, job.settings, decoders=self.decoders, limit=limit)
        self.slate.write(models={model.key: model.fingerprint for model in models})
        # Wakes the master, which handles it as the end of some process.
        os.kill(self.ppid, signal.SIGCHLD)
        while not self.slate.go:
            self._rest(0.02)

    def _loaded(self, job: Job) -> Sequence[Served]:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(job.load)
            while not future.done():
                wait([future], 0.2)
                self._rest(0)
            models = future.result()
            # Otherwise the first images would wait for the processes that decode them.
            ready = pool.submit(self.decoders.wait)
            while not ready.done():
                wait([ready], 0.2)
                self._rest(0)
        loaded = {model.key: model.fingerprint for model in models}
        if self.app.expected not in (None, loaded):
            raise DataError("A model's file is another than the one being served. SIGHUP loads it in all processes.")
        return models

    def _rest(self, seconds: float) -> None:
        """Wait `seconds`; end here if the master says so or is gone: nothing is being served yet."""
        time.sleep(seconds)
        self.notify()
        if not self.alive or os.getppid() != self.ppid:
            self.decoders.close()
            self.slate.write(stopped=True)
            os._exit(0)

    def run(self) -> None:
        """Serve until `handle_exit`, then end the process."""
        job: Job = self.app.job
        work = self.wsgi.extensions["chestxray"]
        self.server = Server(self.wsgi, job.settings, self.sockets[0])
        if not self.alive:
            self.server.stop()
        self.server.run(self._beat)
        # Decoding processes are ended. A model that still computes is waited for until the timer ends the process.
        work.close()
        self.slate.write(stopped=True)
        os._exit(0)

    def _beat(self) -> None:
        self.notify()
        self.wsgi.extensions["chestxray"].measures.memory()
        if self.alive and os.getppid() != self.ppid:
            log.error("the master has ended")
            self.handle_exit(signal.SIGTERM, None)


def _said(error: Exception) -> str:
    """Return the line for `error` of loading; a defect is logged too."""
    if isinstance(error, ChestXrayError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (missing := missing_package(error, "serve")):
        return str(missing)
    log.error("defect", exc_info=error)
    return f"The models cannot be loaded: {type(error).__name__}. The log says where."
