"""Logs as lines of JSON, for programs that collect logs: of every command with ``--log-json``, and of the server.

python-json-logger is not used: its formatter writes messages and texts of exceptions, which may quote what a client of
the server sent, so that its ``format`` would have to be overridden as a whole.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import traceback
from typing import Any, TextIO


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: ``time`` (UTC), ``level``, ``logger``, ``message`` and the items of
    ``extra={"fields": ...}``, numbers that are not finite as null.

    Of an exception, the type and the places where it was raised are written, and its message only where `quoting`: it
    may repeat what a client of a server sent.
    """

    def __init__(self, *, quoting: bool = False) -> None:
        super().__init__()
        self.quoting = quoting

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without line break."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: _finite(value) for name, value in getattr(record, "fields", {}).items()},
        }
        if record.exc_info and record.exc_info[1] is not None:
            kind, error, trace = record.exc_info
            entry["exception"] = kind.__name__ if kind else ""
            if self.quoting:
                entry["reason"] = str(error)
            entry["raised"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]
        return json.dumps(entry, ensure_ascii=False, allow_nan=False)


def speak(quiet: bool = False, stream: TextIO | None = None) -> None:
    """Log the logger ``chestxray`` and Python's warnings as lines of JSON to `stream`, by default standard error;
    with `quiet`, warnings and errors alone.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(quoting=True))
    logging.captureWarnings(True)
    for name, level in (("chestxray", logging.WARNING if quiet else logging.INFO), ("py.warnings", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)


def speaking() -> bool:
    """Whether the logger ``chestxray`` writes lines of JSON."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger("chestxray").handlers)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
