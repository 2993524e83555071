"""What every answer says of an image, whatever it was asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: Prefix of the columns of probabilities in a table.
PREFIX = "probability_"
Outcome = Literal["decided", "abstained", "refused", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class ImageAnswer(ABC):
    """The answer for one image.

    Nothing is decided where the image is ``unreadable`` (the reason, else empty) or ``refused`` as out of
    distribution. ``refused`` and ``distance`` are None where the run refuses nothing.
    """

    path: str
    refused: bool | None = None
    distance: float | None = None
    refusal_threshold: float | None = None
    unreadable: str = ""

    @property
    def words(self) -> str:
        """The answer in words."""
        if self.unreadable:
            return f"This image cannot be read: {self.unreadable}."
        if self.refused:
            return (
                "This does not look like the chest radiographs that the model was trained on: its distance from "
                f"them is {self.distance:.2f}, allowed are up to {self.refusal_threshold:.2f}. Nothing is decided."
            )
        return self._words

    @property
    def outcome(self) -> Outcome:
        """What became of the image; ``abstained`` where the model decides nothing about it."""
        if self.unreadable:
            return "unreadable"
        return "refused" if self.refused else "abstained" if self._silent else "decided"

    @property
    @abstractmethod
    def _words(self) -> str:
        """The answer for an image that is neither unreadable nor refused."""

    @property
    @abstractmethod
    def _silent(self) -> bool:
        """Whether the model abstains from all that it could decide."""

    @property
    @abstractmethod
    def _content(self) -> dict[str, Any]:
        """What else `to_json` gives."""

    @abstractmethod
    def _columns(self, classes: Sequence[str]) -> dict[str, Any]:
        """What else `cells` gives."""

    def to_json(self) -> dict[str, Any]:
        """Return the answer for JSON; null for what the run does not compute and for empty values."""
        return {"path": self.path, **self._content, **self._end}

    def cells(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the answer as a row of a table with the columns of `columns`; None where JSON has null."""
        return {"path": self.path, **self._columns(classes), **self._end}

    def row(self, classes: Sequence[str]) -> dict[str, str]:
        """Return `cells` as text, empty for None. Names of a list are separated by ``|``; an empty list is ``-``."""
        return {name: _text(value) for name, value in self.cells(classes).items()}

    @property
    def _end(self) -> dict[str, Any]:
        return {"refused": self.refused, "distance": self.distance, "unreadable": self.unreadable or None}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "|".join(value) or "-"
    if value is None:
        return ""
    return value if isinstance(value, str) else repr(value)
