"""A caution: one limitation of a run, in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caution:
    """``weight`` is ``serious`` if the results may be wrong, ``note`` if they are only weakened."""

    weight: str
    title: str
    text: str
