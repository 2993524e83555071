"""Runs a target's cases in processes of their own, ends those that hang, and tells the findings."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import IO, Any


@dataclass(frozen=True)
class Target:
    """``place`` is MODULE:FUNCTION, which prepares and returns the case; what one case may take: ``seconds`` of
    processor, ``bytes`` of memory beyond what the process has. ``share`` is of the whole time.
    """

    name: str
    place: str
    seconds: float = 10.0
    bytes: int = 300_000_000
    share: float = 1.0
    needs: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What a target's cases came to: how many and what they tried in all (a case of requests sends several), what they
    were refused with, and ``findings`` (seed, what).
    """

    cases: int = 0
    tried: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0
    next: int = 0


#: What follows a process's last report: it has closed its output, though the system may not have buried it yet.
ENDED: dict[str, Any] = {"ended": True}

#: Seconds in which a target must be prepared, and seconds of silence after which a case hangs.
PREPARING, SILENCE = 300.0, 120.0


def run(target: Target, first: int, seconds: float, cases: int = 10**9, silence: float = SILENCE) -> Outcome:
    """Run `target` from the seed `first` on, for so many seconds of its cases or so many cases."""
    outcome, until, end = Outcome(next=first), None, first + cases
    while outcome.next < end:
        process = _start(
            target, outcome.next, end - outcome.next, seconds if until is None else until - time.monotonic()
        )
        lines: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True).start()
        try:
            ready = _next(lines, PREPARING)
            if ready is None or "ready" not in ready:
                why = ready["failed"] if ready and "failed" in ready else _ending(process)
                outcome.findings.append((outcome.next, f"was not prepared: {why}"))
                return outcome
            until = until or time.monotonic() + seconds
            if _watch(target, outcome, process, lines, silence):
                return outcome
        finally:
            _kill(process)
        if time.monotonic() > until:
            break
    return outcome


def _watch(target: Target, outcome: Outcome, process: Any, lines: Any, silence: float) -> bool:
    """Take reports until all are there (True) or the process is lost within a case (False)."""
    while True:
        line = _next(lines, silence)
        if line is not None and "end" in line:
            return True
        if line is None or line == ENDED:
            why = f"hangs ({silence:g} s)" if line is None else f"ended the process: {_ending(process)}"
            outcome.findings.append((outcome.next, why))
            outcome.cases += 1
            outcome.next += 1
            return False
        if "begin" in line:
            outcome.next = line["begin"]
            continue
        _take(target, outcome, line)


def _take(target: Target, outcome: Outcome, line: dict[str, Any]) -> None:
    outcome.cases += 1
    outcome.tried += line["tried"]
    outcome.next = line["seed"] + 1
    outcome.refused[line["refused"] or "read"] += not line["trouble"]
    outcome.slowest = max(outcome.slowest, line["seconds"])
    outcome.largest = max(outcome.largest, line["bytes"])
    if line["trouble"]:
        outcome.findings.append((line["seed"], line["trouble"]))
    if line["seconds"] > target.seconds:
        outcome.findings.append((line["seed"], f"took {line['seconds']:.1f} s; {target.seconds:g} are allowed"))
    if line["bytes"] > target.bytes:
        outcome.findings.append((line["seed"], f"took {line['bytes']:,} bytes; {target.bytes:,} are allowed"))


def _start(target: Target, first: int, cases: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fuzz.worker", target.place, str(first), str(cases), f"{seconds:.3f}"]
    # The generator's hash seeds nothing, but sets of text have an order of their own in each process.
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(  # noqa: S603 - our own interpreter and code
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=environment,
    )


def _forward(stream: IO[str], lines: queue.Queue[dict[str, Any]]) -> None:
    with stream:
        for line in stream:
            lines.put(json.loads(line))
    lines.put(ENDED)


def _next(lines: queue.Queue[dict[str, Any]], seconds: float) -> dict[str, Any] | None:
    try:
        return lines.get(timeout=seconds)
    except queue.Empty:
        return None


def _ending(process: subprocess.Popen[str]) -> str:
    try:
        status = process.wait(5)
    except subprocess.TimeoutExpired:
        return "it does not answer"
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
