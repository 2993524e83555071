"""Shows what is being done where nobody has set up logging: in a notebook and at Python's prompt.

All progress is logged by the logger ``chestxray`` and goes to standard error; results go to standard output. A
script that uses the package as a library sees nothing unless it sets up logging itself, and the root logger is never
touched.
"""

from __future__ import annotations

import logging
import sys


class _Stderr(logging.StreamHandler):
    """Writes to whatever ``sys.stderr`` is when a line is written: a notebook gives each cell its own."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(message)s"))

    @property
    def stream(self) -> object:
        """The stream of this moment."""
        return sys.stderr


def show_if_interactive() -> None:
    """Let the logger ``chestxray`` write to standard error, from the level INFO on, in an interactive session whose
    user has given this logger neither a handler nor a level.
    """
    logger = logging.getLogger("chestxray")
    if not interactive() or logger.handlers or logger.level != logging.NOTSET:
        return
    logger.addHandler(_Stderr())
    logger.setLevel(logging.INFO)
    # A handler of the root logger would repeat the warnings.
    logger.propagate = False


def interactive() -> bool:
    """Whether somebody types: in IPython, which every notebook is, or at Python's own prompt."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and getattr(ipython, "get_ipython", lambda: None)() is not None:
        return True
    return hasattr(sys, "ps1")


def duration(seconds: float) -> str:
    """`seconds` as somebody says them.

    >>> duration(7.2), duration(100), duration(4000)
    ('7 s', '1 min 40 s', '1 h 7 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    if minutes < 10 and rest:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
