"""Writes answers as lines of CSV or JSON, to a stream or to a file that a later call can continue.

In CSV, text that a spreadsheet would take for a formula (it begins with ``= + - @``, a tab or a line break,
with or without apostrophes before it) gets an apostrophe in front; removing the first apostrophe restores it.
A lone ``-``, an empty set of classes, is not a formula.
"""

from __future__ import annotations

import csv
import io
import json
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from chestxray.errors import DataError, OutputError
from chestxray.evaluation.decision.finding_rule import Rule
from chestxray.inference.answer import columns
from chestxray.inference.image_answer import ImageAnswer
from chestxray.storage import locks
from chestxray.storage.files import ABSENT, check_writable, explained, refusal, write_bytes

Format = Literal["csv", "json", "jsonl"]
#: Paths are bytes: those that are not UTF-8 are written unchanged.
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_GUARDED = re.compile(r"'+[=+\-@\t\r\n]")
#: File name of the overlay of an image; with findings those by finding; None where there is none.
Overlays = str | Mapping[str, str] | None


class Lines:
    """Formats answers by `rule`: ``opening``, a line an answer, ``closing``, all bytes.

    Every line has ``run``, the fingerprint of the run and its options. With `heatmaps` a line names the image's
    overlay, or, in a table separated by ``|``, its overlays.
    """

    def __init__(self, kind: Format, rule: Rule, run: str, *, heatmaps: bool = False) -> None:
        self.kind, self.run = kind, run
        self._classes, self._heatmaps = rule.classes, heatmaps
        self.columns = (*columns(rule), *(("heatmap",) if heatmaps else ()), "run")
        self._first = True

    @property
    def opening(self) -> bytes:
        """The heading of a table, the bracket of a JSON list."""
        if self.kind == "csv":
            return csv_line(self.columns)
        return b"[\n" if self.kind == "json" else b""

    @property
    def closing(self) -> bytes:
        """The end of a JSON list."""
        return b"\n]\n" if self.kind == "json" else b""

    def of(self, answers: Sequence[ImageAnswer], heatmaps: Sequence[Overlays]) -> bytes:
        """Return the lines of `answers`; `heatmaps` are the names of their overlays."""
        return b"".join(self._line(answer, name) for answer, name in zip(answers, heatmaps, strict=True))

    def _line(self, answer: ImageAnswer, heatmap: Overlays) -> bytes:
        if self.kind == "csv":
            names = heatmap or "" if heatmap is None or isinstance(heatmap, str) else "|".join(heatmap.values())
            given = answer.row(self._classes) | {"heatmap": names, "run": self.run}
            return csv_line([given[name] for name in self.columns])
        content: dict[str, Any] = answer.to_json()
        content |= ({"heatmap": heatmap} if self._heatmaps else {}) | {"run": self.run}
        line = json.dumps(content, allow_nan=False).encode("ascii")
        if self.kind == "jsonl":
            return line + b"\n"
        first, self._first = self._first, False
        return line if first else b",\n" + line


def done(path: Path, lines: Lines) -> set[str]:
    """Return the paths that the file `path`, written by an earlier call, has answers for.

    An incomplete last line is removed from the file.

    Raises:
        OutputError: the file has other content, or answers of another run or with other options.
    """
    if not path.exists() or not path.stat().st_size:
        return set()
    if lines.kind == "json":
        raise OutputError(
            f"The output {path} exists, and one JSON list cannot be gone on with. Allowed: another --output, or "
            "--jsonl or --csv, which can."
        )
    found: set[str] = set()
    whole = 0
    for row, end in _csv_rows(path, lines) if lines.kind == "csv" else _json_rows(path):
        if row.get("run") != lines.run:
            raise OutputError(
                f"The output {path} holds answers of another run, or by other options. Allowed: another --output, or "
                "the run and options that it was made with."
            )
        if ("heatmap" in row) != ("heatmap" in lines.columns):
            raise _foreign(path)
        found.add(str(row["path"]))
        whole = end
    with explained(path):
        if not whole:
            # Without a single whole line the file is written anew, with its heading.
            path.unlink()
        elif whole < path.stat().st_size:
            os.truncate(path, whole)
    return found


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock on `path`, so that no two calls write to it at the same time.

    The lock is a hidden file beside `path`, and is released when the process ends.

    Raises:
        OutputError: another call writes to `path`, or it cannot be written.
    """
    check_writable(path)
    if path.is_dir():
        raise OutputError(f"The output {path} is a folder; it must be a file.")
    if (reason := refusal(path)) and reason not in ABSENT:
        raise OutputError(f"Cannot write {path}: {reason}.")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The real name: a link and its target are one file.
        real = path.resolve()
    busy = f"Another chestxray predict writes to {path}. Allowed: to wait for its end, or another --output."
    with locks.exclusive(real.with_name(f".{real.name[-200:]}.lock"), path, busy):
        yield


@contextmanager
def appending(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that appends bytes to `path` and flushes them to the disk."""
    check_writable(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:

            def append(content: bytes) -> None:
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())

            yield append


@contextmanager
def whole(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that collects bytes; all are written to `path` at the end, whole or not at all."""
    parts: list[bytes] = []
    yield parts.append
    write_bytes(path, b"".join(parts))


@contextmanager
def behind(work: Callable[[Any], None], most: int = 4) -> Iterator[Callable[[Any], None]]:
    """Yield a function that passes items, in order, to `work` in a separate thread.

    It blocks while `most` items are waiting. An error of `work` is raised by the next call or at the end.
    """
    items: queue.Queue[Any] = queue.Queue(most)
    failures: list[BaseException] = []
    end = object()

    def loop() -> None:
        while (item := items.get()) is not end:
            if not failures:
                try:
                    work(item)
                except BaseException as error:
                    failures.append(error)

    def give(item: Any) -> None:
        if failures:
            raise failures[0]
        items.put(item)

    thread = threading.Thread(target=loop, name="write", daemon=True)
    thread.start()
    try:
        yield give
    finally:
        items.put(end)
        thread.join()
    if failures:
        raise failures[0]


def csv_line(values: Sequence[str]) -> bytes:
    """Return a line of a CSV file in which no spreadsheet takes a cell for a formula."""
    return (",".join(map(_cell, values)) + "\n").encode(**_ENCODING)


def _cell(text: str) -> str:
    if text != "-" and _FORMULA.match(text):
        text = f"'{text}"
    # Not by csv: before Python 3.13 it leaves a carriage return bare, at which its own reader stops.
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


def _read(cell: str) -> str:
    return cell[1:] if _GUARDED.match(cell) else cell


def _csv_rows(path: Path, lines: Lines) -> Iterator[tuple[dict[str, str], int]]:
    """Yield each whole row with the byte position of its end."""
    places = [0]

    def text(file: io.BufferedReader) -> Iterator[str]:
        for line in file:
            if not line.endswith(b"\n"):
                return
            places[0] += len(line)
            yield line.decode(**_ENCODING)

    with path.open("rb") as file:
        reader = csv.reader(text(file), strict=True)
        try:
            heading = next(reader, None)
            if heading is not None and tuple(heading) != lines.columns:
                raise _foreign(path)
            for row in reader:
                if len(row) != len(lines.columns):
                    raise _foreign(path)
                yield dict(zip(lines.columns, map(_read, row), strict=True)), places[0]
        except csv.Error as error:
            # A line break within quotes at the end of the file is an incomplete row.
            if "unexpected end of data" not in str(error):
                raise DataError(f"{path} is not a table of answers: {error}.") from error


def _json_rows(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    place = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            place += len(line)
            try:
                row = json.loads(line)
            except ValueError as error:
                raise _foreign(path) from error
            if not isinstance(row, dict) or "path" not in row:
                raise _foreign(path)
            yield row, place


def _foreign(path: Path) -> OutputError:
    return OutputError(
        f"The output {path} exists and holds other columns than these answers have. Allowed: another --output, or the "
        "run and options that it was made with."
    )
