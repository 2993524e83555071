"""How far a long step is: a bar on a terminal, a line of JSON now and then with ``--log-json``, else nothing."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from chestxray.progress import json_lines

log = logging.getLogger(__name__)

#: Seconds between two lines.
EVERY = 10.0


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], Any]]:
    """Show that `done` of `total` images are, by the name `what`; yield the function to call with each number finished
    since its last call.
    """
    if json_lines.speaking():
        lines = _Lines(what, total, done)
        yield lines.advance
        lines.close()
        return
    from tqdm import tqdm

    hidden = not sys.stderr.isatty() or not log.isEnabledFor(logging.INFO)
    with tqdm(total=total, initial=done, desc=what, unit=" images", disable=hidden) as bar:
        yield bar.update


class _Lines:
    def __init__(self, what: str, total: int, done: int) -> None:
        self.what, self.total, self.done, self.told = what, total, done, -1
        self.began = self.spoken = time.perf_counter()
        self.first = done

    def advance(self, number: int) -> None:
        self.done += number
        if time.perf_counter() - self.spoken >= EVERY:
            self._tell()

    def close(self) -> None:
        """A step that is done has a last line, however short it was."""
        if self.told != self.done:
            self._tell()

    def _tell(self) -> None:
        self.spoken, self.told = time.perf_counter(), self.done
        seconds = self.spoken - self.began
        fields = {
            "step": self.what.lower(),
            "done": self.done,
            "total": self.total,
            "seconds": round(seconds, 3),
            "images_per_second": round((self.done - self.first) / seconds, 2) if seconds else None,
        }
        log.info("%s: %d of %d.", self.what, self.done, self.total, extra={"fields": fields})
