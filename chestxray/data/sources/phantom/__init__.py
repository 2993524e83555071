"""The source ``phantom``: chest phantoms drawn by a program, with findings at known locations."""

from chestxray.data.sources.phantom.source import plugin

__all__ = ["plugin"]
