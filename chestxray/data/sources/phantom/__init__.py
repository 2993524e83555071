"""Radiographs that a program draws, with findings at known places: the source ``phantom``."""

from chestxray.data.sources.phantom.source import plugin

__all__ = ["plugin"]
