"""Logs a line of JSON a request, without images, file names, addresses of clients or links."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from chestxray.progress.json_lines import JsonLines

log = logging.getLogger("chestxray.serve")


def speak(stream: TextIO | None = None) -> None:
    """Log `chestxray.serve` and waitress as lines of JSON to `stream`, by default standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("chestxray.serve", logging.INFO), ("waitress", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
