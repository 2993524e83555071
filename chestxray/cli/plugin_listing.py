"""Reads the metadata of the installed plugins in a separate process.

A plugin is third-party code: importing it may end the process, hang, or write to the output that
carries the results. A separate process imports the plugins in turn and reports each through a pipe of its
own. If it ends or stays silent, the current plugin is reported as broken, and a new process continues
with the plugins after it.
"""

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
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import IO, Any

from chestxray import registry
from chestxray.errors import PluginError

#: Timeout in seconds of the import of one plugin; TensorFlow takes a tenth of it on a cold disk.
SECONDS = 120.0
#: Fields of a model plugin that are listed besides its name.
_MODEL = (
    "image_size", "minimum_size", "fixed_size", "channels", "weights", "cam_layer", "reference", "licence",
    "weights_licence",
)  # fmt: skip
_FACTS = dict.fromkeys(registry.KIND, ("reference", "licence")) | {
    registry.MODELS: _MODEL,
    registry.SOURCES: ("address_help", "licence"),
}


@dataclass(frozen=True)
class Listed:
    """A plugin with its ``facts``, fields by name in JSON types; or None, and the ``reason`` why it is broken."""

    entry: registry.InstalledPlugin
    facts: dict[str, Any] | None
    reason: str


def survey(group: str, seconds: float = SECONDS) -> Iterator[Listed]:
    """Yield every plugin of `group`, in the order of `registry.entries`; an import may take at most `seconds`."""
    left = registry.entries(group)
    while left:
        answered = 0
        for report in _reports(group, left, seconds):
            yield Listed(left[answered], report.get("facts"), report["reason"])
            answered += 1
        left = left[answered:]


def _reports(group: str, entries: list[registry.InstalledPlugin], seconds: float) -> Iterator[dict[str, Any]]:
    """Yield one report per entry; if the process ends or hangs, the last report says so."""
    order = [[entry.name, entry.point.value, entry.distribution, entry.version] for entry in entries]
    task = json.dumps({"group": group, "path": sys.path, "entries": order}).encode()
    # A session of its own: Ctrl-C reaches only this process, and processes that a plugin started can be ended too.
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", _PROGRAM.format(root=str(Path(__file__).parents[2]))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_forward, args=(process.stdout, lines), name="plugins", daemon=True).start()
    try:
        assert process.stdin is not None
        # If the process has already ended, the loop below reports it.
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(task)
        for entry in entries:
            line = _line(lines, process, seconds)
            if not line.endswith(b"\n"):
                yield {"reason": _broken(group, entry, _ending(process, seconds))}
                return
            yield json.loads(line)
    finally:
        _end(process)


_PROGRAM = "import sys; sys.path.insert(0, {root!r}); from chestxray.cli import plugin_listing; plugin_listing.report()"


def report() -> None:
    """In the other process: import the plugins named on standard input; write a line of JSON for each to the pipe."""
    task = json.load(sys.stdin.buffer)
    sys.path[:] = task["path"]
    # Anything a plugin writes goes to standard error, and programs that it starts do not inherit the pipe.
    pipe = os.dup(1)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, value, distribution, version in task["entries"]:
        point = EntryPoint(name, value, task["group"])
        entry = registry.InstalledPlugin(name, distribution, version, point)
        try:
            plugin = registry.load_entry(task["group"], entry)
            facts = {field: getattr(plugin, field) for field in _FACTS[task["group"]]}
            reported = json.dumps({"facts": facts, "reason": ""})
        except PluginError as error:
            reported = json.dumps({"reason": str(error)})
        except BaseException as error:  # raised by its fields or their representation
            reported = json.dumps({"reason": _broken(task["group"], entry, f"{type(error).__name__}: {error}")})
        content = memoryview(reported.encode() + b"\n")
        while content:
            content = content[os.write(pipe, content) :]
    # Skips the usual exit handlers, in which plugins may have registered work.
    os._exit(0)


def _forward(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _line(lines: queue.Queue[bytes], process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Return the next report; empty if the process has ended or sent nothing for `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        # A process that a plugin started may keep the pipe open, so the end of the pipe alone is not waited for.
        ended = process.poll() is not None
        try:
            return lines.get(timeout=0.2)
        except queue.Empty:
            if ended:
                break
    return b""


def _ending(process: subprocess.Popen[bytes], seconds: float) -> str:
    try:
        status = process.wait(1)
    except subprocess.TimeoutExpired:
        return f"it was not done within {seconds:g} seconds"
    if status < 0:
        return f"it ended the process by {signal.Signals(-status).name}"
    return f"it ended the process with status {status}"


def _broken(group: str, entry: registry.InstalledPlugin, why: str) -> str:
    kind = registry.KIND[group]
    return (
        f"The {kind} plugin {entry.qualified} {entry.version} is broken: importing {entry.point.value} failed: {why}."
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
