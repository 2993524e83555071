"""A line of JSON a request. No image, no name of a file, no address of a client or of a link is in it."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

log = logging.getLogger("chestxray.serve")


class JsonLines(logging.Formatter):
    """A record as one JSON object: ``time`` (UTC), ``level``, ``message`` and what ``extra={"fields": ...}`` adds.

    Of an exception, its type and where it was raised are kept, and not its message, which may quote
    what a client sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
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
    """Log this package and waitress as lines of JSON, by default on standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("chestxray.serve", logging.INFO), ("waitress", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
