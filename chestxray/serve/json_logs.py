"""Logs a line of JSON a request, without images, file names, addresses of clients or links.

python-json-logger is not used: its formatter writes messages and texts of exceptions, which may quote what a client
sent, so that its ``format`` would have to be overridden as a whole.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

log = logging.getLogger("chestxray.serve")


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: ``time`` (UTC), ``level``, ``message`` and the items of
    ``extra={"fields": ...}``.

    Of an exception, the type and the places where it was raised are written, not the message, which may quote what a
    client sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without line break."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            kind, _, trace = record.exc_info
            entry["exception"] = kind.__name__ if kind else ""
            entry["raised"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]
        return json.dumps(entry, ensure_ascii=False)


def speak(stream: TextIO | None = None) -> None:
    """Log `chestxray.serve` and waitress as lines of JSON to `stream`, by default standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("chestxray.serve", logging.INFO), ("waitress", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
