"""Parts done by processes of this machine, several at a time, each with devices of its own.

Every part has a fresh process, as TensorFlow allows one strategy a process and gives no memory back. A standard pool
would not do: it fails as a whole when one of its processes is killed, cannot give each its own GPUs, and leaves its
processes behind when the driver is killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from chestxray.errors import WorkerError
from chestxray.execution import machine, worker
from chestxray.execution.parts import RETRIES, Answer, Outcome, Part

log = logging.getLogger(__name__)

#: Seconds that workers have to end by themselves: after Ctrl-C, and after their answer.
GRACE = 15.0


@dataclass(eq=False)
class _Worker:
    """A process that does a part on the GPUs of these names; ``silent`` once it was told to end."""

    part: Part
    gpus: list[str]
    process: subprocess.Popen[bytes]
    begun: int
    answer: Answer | None = None
    silent: bool = False
    threads: list[threading.Thread] = field(default_factory=list)


def run(parts: Sequence[Part], workers: int | None) -> Generator[Outcome]:
    """Do `parts`, at most `workers` at a time, and yield each when it has ended. A worker that died is begun again.

    Whatever ends the iteration, an error or Ctrl-C too, ends all workers with it.
    """
    present = machine.gpus()
    most = workers or machine.workers(parts, present)
    log.debug("%d parts, %d at a time, on GPUs %s", len(parts), most, present)
    waiting = deque((part, 1) for part in parts)
    free, ended = list(present), queue.Queue[_Worker]()
    running: set[_Worker] = set()
    try:
        while waiting or running:
            while waiting and len(running) < most and min(waiting[0][0].gpus, len(present)) <= len(free):
                part, begun = waiting.popleft()
                given = [free.pop(0) for _ in range(min(part.gpus, len(present)))]
                running.add(_start(part, given, begun, bool(present), ended))
            one = ended.get()
            running.remove(one)
            free.extend(one.gpus)
            if one.answer is None and one.begun <= RETRIES:
                log.warning("%s: its worker %s; it is begun again.", one.part.name, _fate(one))
                waiting.appendleft((one.part, one.begun + 1))
                continue
            yield Outcome(one.part, one.answer or Answer(error=_died(one)))
    finally:
        _stop(running)


def _start(part: Part, gpus: list[str], begun: int, has_gpus: bool, ended: queue.Queue[_Worker]) -> _Worker:
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus) or "-1"} if has_gpus else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "chestxray.execution.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # The package must be found before the worker has been told where to look.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | visible,
        # Ctrl-C reaches the driver alone, and what the worker has started can be ended with it.
        start_new_session=True,
    )
    assert process.stdin is not None
    one = _Worker(part, gpus, process, begun)
    # A worker that dies at once has a closed pipe; its end is then seen below.
    with contextlib.suppress(BrokenPipeError):
        worker.send(process.stdin, sys.path)
        worker.send(process.stdin, (part.function, dict(part.arguments), log.getEffectiveLevel()))
    one.threads = [
        threading.Thread(target=_printed, args=(one,), name="printed", daemon=True),
        threading.Thread(target=_answered, args=(one, ended), name="answered", daemon=True),
    ]
    for thread in one.threads:
        thread.start()
    return one


def _answered(one: _Worker, ended: queue.Queue[_Worker]) -> None:
    """Pass on the lines that a worker logs, keep its answer, and tell when its process has ended."""
    assert one.process.stdin is not None and one.process.stdout is not None and one.process.stderr is not None
    with contextlib.suppress(EOFError):
        while True:
            message = worker.receive(one.process.stdout)
            if isinstance(message, Answer):
                one.answer = message
                break
            if not one.silent:
                level, text = message
                for line in text.splitlines():
                    log.log(level, "%s | %s", one.part.name, line)
    with contextlib.suppress(subprocess.TimeoutExpired):
        one.process.wait(GRACE)
    _kill(one)
    # What the worker printed last, such as why it ended, comes before its end is told.
    one.threads[0].join(GRACE)
    for pipe in (one.process.stdin, one.process.stdout, one.process.stderr):
        # The input of a worker that died before it read its task still holds it.
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    ended.put(one)


def _printed(one: _Worker) -> None:
    """Pass on what a worker prints, for example its libraries."""
    assert one.process.stderr is not None
    for line in one.process.stderr:
        text = line.decode(errors="replace").rstrip().rpartition("\r")[2]
        if text and not one.silent:
            log.warning("%s | %s", one.part.name, text)


def _kill(one: _Worker) -> None:
    """Kill the process and whatever it has started, as far as they still run."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(one.process.pid, signal.SIGKILL)
    one.process.kill()
    one.process.wait()


def _stop(running: set[_Worker]) -> None:
    """End all workers: as by Ctrl-C, and after some seconds, or a second Ctrl-C, by force."""
    for one in running:
        one.silent = True
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGINT)
    until = time.monotonic() + GRACE
    try:
        for one in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.0, until - time.monotonic()))
    finally:
        for one in running:
            _kill(one)
            one.threads[1].join(GRACE)


def _fate(one: _Worker) -> str:
    code = one.process.returncode
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"


def _died(one: _Worker) -> WorkerError:
    why = " The usual reason is too little memory: allow fewer --workers." if "SIGKILL" in _fate(one) else ""
    return WorkerError(f"its worker {_fate(one)}, {one.begun} times.{why}")
