"""One weakness of a run, in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caution:
    """``weight`` is ``serious`` where the results may be wrong, ``note`` where they are only weak."""

    weight: str
    title: str
    text: str
