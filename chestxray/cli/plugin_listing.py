"""What the installed plugins say of themselves, found out in another process.

A plugin is a stranger's code, and its import may end the process, wait for ever, or write where our
results stand. Another process imports one after the other and reports each through a pipe of its own;
where it ends or stays silent, the plugin that it was at is broken, and a new one takes those behind it.
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

#: Seconds that the import of one plugin may take; TensorFlow on a cold disk takes a tenth of them.
SECONDS = 120.0
#: What is told of a model besides its name.
_MODEL = (
    "image_size", "minimum_size", "fixed_size", "channels", "weights", "cam_layer", "reference", "licence",
    "weights_licence",
)  # fmt: skip
_FACTS = {registry.MODELS: _MODEL, registry.SOURCES: ("address_help", "licence")}


@dataclass(frozen=True)
class Listed:
    """A plugin with its ``facts``, fields by name as JSON has them; or none, and the ``reason`` it is broken."""

    entry: registry.InstalledPlugin
    facts: dict[str, Any] | None
    reason: str


def survey(group: str, seconds: float = SECONDS) -> Iterator[Listed]:
    """Try every plugin of `group`, each for at most so many seconds, in the order of `registry.entries`."""
    left = registry.entries(group)
    while left:
        answered = 0
        for report in _reports(group, left, seconds):
            yield Listed(left[answered], report.get("facts"), report["reason"])
            answered += 1
        left = left[answered:]


def _reports(group: str, entries: list[registry.InstalledPlugin], seconds: float) -> Iterator[dict[str, Any]]:
    """A report an entry, until all are there or the process has ended: then the last one says so."""
    order = [[entry.name, entry.point.value, entry.distribution, entry.version] for entry in entries]
    task = json.dumps({"group": group, "path": sys.path, "entries": order}).encode()
    # A session of its own: Ctrl-C is ours to answer, and what a plugin has started ends with it.
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
        # Where it has ended already, that is told below.
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
    """In the other process: import what standard input names, and write a line of JSON for each to standard output."""
    task = json.load(sys.stdin.buffer)
    sys.path[:] = task["path"]
    # What a plugin writes, by whatever way, is no result; and programs that it starts do not hold the pipe.
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
        except BaseException as error:  # of its fields, or of what they print themselves as
            reported = json.dumps({"reason": _broken(task["group"], entry, f"{type(error).__name__}: {error}")})
        content = memoryview(reported.encode() + b"\n")
        while content:
            content = content[os.write(pipe, content) :]
    # Not by the usual way out, on which plugins may have left something to be done.
    os._exit(0)


def _forward(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _line(lines: queue.Queue[bytes], process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The next report; empty where the process has ended, or says nothing for so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        # What a plugin has started may hold the pipe open: its end alone is not waited for.
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
