"""Trackers: a run's parameters, curves, figures, card and model are sent to TensorBoard, MLflow or Weights & Biases.

Each is a small class of this form, fed by `tracking.Tracking` from the run's folder; none is a callback of Keras, so
that all log the same. What is sent is chosen in `content`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

#: Parameters of a run as every tracker takes them.
Parameter = str | int | float | bool


class Tracker(Protocol):
    """One run of a tracker. Any exception means that it has failed, and nothing more is sent to it."""

    def begin(self, name: str, parameters: Mapping[str, Parameter], place: Path, earlier: str) -> str:
        """Start the run `name`, or go on with that of the id `earlier` if it is not ``""``, and return its id.

        `place` is a folder of the run's own for files of the tracker.
        """

    def epoch(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures of an epoch; `step` counts the epochs of all phases from 1."""

    def finish(self, step: int, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Log the final figures at the last `step`, and keep `files` as artefacts where the tracker can."""

    def close(self, *, finished: bool) -> None:
        """End the run; it may be gone on with later if it is not `finished`."""
