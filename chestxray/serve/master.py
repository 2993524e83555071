"""Serves models by several worker processes: starts, watches and ends them, and loads new models without a gap."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from prometheus_client import multiprocess

from chestxray import errors
from chestxray.errors import ChestXrayError
from chestxray.serve.json_logs import log
from chestxray.serve.settings import Settings
from chestxray.serve.workers import Job, Worker

if TYPE_CHECKING:
    from chestxray.serve.loading import Served

#: Seconds without a sign of life after which a worker is killed and replaced.
SILENT = 60
#: Most connections that the operating system accepts before a worker takes them.
BACKLOG = 1024


def serve(
    load: Callable[[], Sequence[Served]],
    settings: Settings,
    listener: socket.socket,
    workers: int,
    folder: Path,
    announce: Callable[[], None],
) -> None:
    """Serve what `load` returns by `workers` processes on `listener`, until Ctrl-C or SIGTERM; SIGHUP loads anew.

    `load` is called in each process. `announce` is called when all of them serve; before that, connections are
    refused. `folder` is a `shared_folder`.

    Raises:
        ChestXrayError: the models cannot be loaded at the start. A later failure is logged, and the former
            models go on answering.
        SystemExit: a request was not answered when the server stopped (1).
    """
    app = _Application(Job(load, settings, folder, secrets.token_bytes(32)), workers)
    master = Master(app, listener, announce)
    try:
        master.run()
    except SystemExit:
        if master.failure is not None:
            raise master.failure from None
        if master.unfinished:
            raise SystemExit(1) from None


class _JsonLogger(Logger):
    """gunicorn's log, as lines of JSON among those of the server."""

    def setup(self, cfg: Any) -> None:
        """Use the handlers of the server's log."""
        self.cfg = cfg
        self.error_log.handlers = log.handlers
        # Until the workers serve: what is wrong at the start is told in one line, by `serve`.
        self.error_log.setLevel(logging.CRITICAL)


class _Application(BaseApplication):
    """gunicorn's settings. Nothing is read from its files, command line or environment."""

    def __init__(self, job: Job, workers: int) -> None:
        self.job = job
        self.workers = workers
        #: The fingerprints that a worker must find; None: whatever there is. A worker is forked with them.
        self.expected: dict[str, str] | None = None
        super().__init__()

    def load_config(self) -> None:
        chosen = {
            "workers": self.workers,
            "worker_class": Worker,
            "worker_tmp_dir": str(self.job.folder),
            "timeout": SILENT,
            # Of the last worker; then it is killed.
            "graceful_timeout": round(self.job.settings.last) + 1,
            "logger_class": _JsonLogger,
            "control_socket_disable": True,
            "child_exit": Master.ended,
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)


class Master(Arbiter):
    """gunicorn's master, which replaces all workers by new ones once these have loaded the models.

    A generation of workers serves when all of it is ready and has loaded the same. Workers of the former one then
    answer what has arrived, and end.
    """

    SIGNALS: ClassVar = [signal.SIGHUP, signal.SIGQUIT, signal.SIGINT, signal.SIGTERM]

    def __init__(self, app: _Application, listener: socket.socket, announce: Callable[[], None]) -> None:
        super().__init__(app)
        # It does not listen yet.
        self.LISTENERS = [listener]
        self.count = app.workers
        #: The age of the first worker of the next generation; None: there is none.
        self.next: int | None = 1
        self.announced = False
        self.stopping = False
        self.unfinished = False
        self.failure: ChestXrayError | None = None
        self._announce = announce

    def signal(self, sig: int, frame: FrameType | None) -> None:
        """Extend gunicorn's method: a second signal to stop ends all processes at once."""
        if sig in (signal.SIGINT, signal.SIGTERM):
            if self.stopping:
                self.kill_workers(signal.SIGKILL)
                os._exit(128 + sig)
            self.stopping = True
        super().signal(sig, frame)

    def handle_int(self) -> None:
        """Ctrl-C: stop as by SIGTERM."""
        self.handle_term()

    def stop(self, graceful: bool = True) -> None:
        """Extend gunicorn's method by noting it."""
        self.stopping = True
        super().stop(graceful)

    def reload(self) -> None:
        """Start a new generation of workers; the present one serves on."""
        if self.next is not None:
            self._discard()
        log.info("reload", extra={"fields": {"workers": self.count}})
        self.next, self.app.expected = self.worker_age + 1, None
        # Those of an earlier reload that still answer go first.
        self.num_workers = min(len(self.WORKERS), self.count) + self.count

    def manage_workers(self) -> None:
        """Extend gunicorn's method: let a generation serve that is ready."""
        self._advance()
        super().manage_workers()

    def _advance(self) -> None:
        told = {worker: worker.slate.read().get("models") for worker in self._of(self.next or 0)}
        ready = [worker for worker, models in told.items() if models]
        if self.next is None:
            # A successor of a worker that ended; it has loaded what the others serve.
            self._release(ready)
        elif len(ready) == len(told) >= self.count:
            models = told[ready[0]]
            if any(told[worker] != models for worker in ready):
                self._give_up({"error": "A model changed while it was loaded.", "kind": "DataError"})
                return
            self.next, self.app.expected, self.num_workers = None, models, self.count
            self._release(ready)
            if not self.announced:
                self.announced = True
                self.log.error_log.setLevel(logging.WARNING)
                # The first clients wait here for the milliseconds in which the workers notice.
                self.LISTENERS[0].listen(BACKLOG)
                self._announce()
            log.info("serving", extra={"fields": {"workers": len(ready), "models": models}})

    def _of(self, age: int) -> list[Worker]:
        return [worker for worker in self.WORKERS.values() if worker.age >= age]

    @staticmethod
    def _release(workers: Sequence[Worker]) -> None:
        for worker in workers:
            if not worker.slate.go:
                worker.slate.release()

    @staticmethod
    def ended(master: Master, worker: Worker) -> None:
        """Note the end of `worker`; called by gunicorn when it has waited for it."""
        told = worker.slate.read()
        worker.slate.close()
        multiprocess.mark_process_dead(worker.pid)
        if told.get("stopped"):
            return
        if master.stopping:
            master.unfinished = True
        elif master.next is not None and worker.age >= master.next:
            master._give_up({"error": "A process ended while it loaded the models."} | told)
        elif "error" in told:
            log.error("a worker cannot start", extra={"fields": {"reason": told["error"]}})

    def _give_up(self, told: dict[str, str]) -> None:
        """End the next generation; at the start, the server too."""
        self._discard()
        if not self.announced:
            kind = getattr(errors, told.get("kind", ""), ChestXrayError)
            self.failure = kind(told["error"])
            # What is wrong is told by `serve`.
            raise HaltServer(None, 0)
        log.error("reload failed: the former models go on answering", extra={"fields": {"reason": told["error"]}})

    def _discard(self) -> None:
        """Kill the workers of the next generation, none of which has served."""
        for worker in self._of(self.next or 0):
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            del self.WORKERS[worker.pid]
            worker.tmp.close()
            worker.slate.close()
            multiprocess.mark_process_dead(worker.pid)
        self.next, self.num_workers = None, self.count
        self.app.expected = self._serving()

    def _serving(self) -> dict[str, str] | None:
        """Return the fingerprints of what is being served."""
        return next((models for worker in self._of(0) if (models := worker.slate.read().get("models"))), None)
