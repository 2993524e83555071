"""Feeds the chosen trackers from a run's folder, goes on with them in a resumed run, and outlives their failures."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from chestxray.errors import first_line, require
from chestxray.runs.run_folder import Run
from chestxray.runs.trackers import Tracker, content
from chestxray.storage import schema
from chestxray.storage.files import write_json
from chestxray.storage.schema import Count

log = logging.getLogger(__name__)

#: The folder of a run that trackers write to, and the file in it that says what they have.
FOLDER, STATE = "trackers", "state.json"
#: Name of a tracker -> its class, in a module of its own, and the package that it needs.
TRACKERS = {
    "tensorboard": ("chestxray.runs.trackers.tensorboard_events:TensorBoard", "tensorboard"),
    "mlflow": ("chestxray.runs.trackers.mlflow_client:MLflow", "mlflow"),
    "wandb": ("chestxray.runs.trackers.wandb_run:WeightsAndBiases", "wandb"),
}


class _Sent(TypedDict):
    """What a tracker has of a run: its ``id`` there, the number of ``epochs``, and whether it has the rest."""

    id: str
    epochs: Count
    finished: bool


def check(names: Sequence[str]) -> None:
    """Raise `MissingPackageError` unless the packages of the trackers `names` are installed; imports none of them."""
    for name in names:
        require(f"--{name}", TRACKERS[name][1])


class Tracking:
    """The trackers `names` of one run. A tracker that fails is left out from there on, with a warning."""

    def __init__(self, names: Sequence[str]) -> None:
        check(names)
        self.names = tuple(names)
        self.trackers: dict[str, Tracker] = {}
        self.failures: dict[str, str] = {}
        self.sent: dict[str, _Sent] = {}
        self.folder: Path | None = None
        self.finished = False

    def begin(self, folder: Path) -> None:
        """Start every tracker for the run in `folder`, which has its recipe and its index, or go on with it."""
        self.folder = folder
        run, state = Run(folder), folder / FOLDER / STATE
        self.sent = schema.read(state, dict[str, _Sent]) if state.is_file() else {}
        parameters = content.parameters(run)
        for name in self.names:
            earlier = self.sent.get(name, _Sent(id="", epochs=0, finished=False))
            if earlier["finished"]:
                continue

            def start(name: str = name, earlier: _Sent = earlier) -> None:
                module, _, kind = TRACKERS[name][0].partition(":")
                tracker: Tracker = getattr(importlib.import_module(module), kind)()
                place = folder / FOLDER / name
                place.mkdir(parents=True, exist_ok=True)
                # Kept before it begins: what has begun is closed, even if it failed in the middle.
                self.trackers[name] = tracker
                found = tracker.begin(folder.absolute().name, parameters, place, earlier["id"])
                self.sent[name] = _Sent(id=found, epochs=earlier["epochs"], finished=False)
                self._save()

            self._guarded(name, start)

    def epochs(self) -> None:
        """Send the epochs of the history that a tracker does not have."""
        assert self.folder is not None
        rows = content.curves(Run(self.folder)) if self.trackers else []
        for name, tracker in list(self.trackers.items()):

            def send(name: str = name, tracker: Tracker = tracker) -> None:
                # An epoch that was trained again after an interruption has the place of the one before it.
                for step in range(self.sent[name]["epochs"] + 1, len(rows) + 1):
                    tracker.epoch(step, rows[step - 1])
                    self.sent[name]["epochs"] = step
                    self._save()

            self._guarded(name, send)

    def finish(self) -> None:
        """Send what the finished run has: its figures, its card and its model."""
        assert self.folder is not None
        self.epochs()
        self.finished = True
        if not self.trackers:
            return
        run = Run(self.folder)
        figures, files, last = content.figures(run), content.files(run), len(run.history)
        for name, tracker in list(self.trackers.items()):

            def send(name: str = name, tracker: Tracker = tracker) -> None:
                tracker.finish(last, figures, files)
                tracker.close(finished=True)
                del self.trackers[name]
                self.sent[name]["finished"] = True
                self._save()

            self._guarded(name, send)

    def close(self) -> None:
        """End the trackers of a run that was not finished, and say again which have failed."""
        for name, tracker in list(self.trackers.items()):
            self._guarded(name, lambda tracker=tracker: tracker.close(finished=False))  # type: ignore[misc]
        self.trackers.clear()
        for name, why in self.failures.items():
            again = f" Send it again: chestxray run --resume {self.folder} --{name}" if self.finished else ""
            log.warning("The run was not wholly logged to %s: %s.%s", name, why, again)

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        """Do what may fail of another's package or server: whatever it raises ends the tracker, not the training."""
        try:
            work()
        except Exception as error:
            self.failures[name] = f"{type(error).__name__}: {first_line(error)}"
            log.warning("%s failed and gets nothing more of this run: %s.", name, self.failures[name])
            tracker = self.trackers.pop(name, None)
            if tracker is not None:
                self._abandon(name, tracker)

    def _abandon(self, name: str, tracker: Tracker) -> None:
        try:
            tracker.close(finished=False)
        except Exception as error:  # it has failed already, and that was said
            log.debug("%s could not be closed: %s.", name, first_line(error))

    def _save(self) -> None:
        assert self.folder is not None
        write_json(self.folder / FOLDER / STATE, self.sent)


@contextmanager
def tracked(names: Sequence[str]) -> Iterator[Tracking | None]:
    """Yield the trackers `names` of a run, None for none, and close them at the end of the block, however it ends.

    Raises:
        MissingPackageError: a tracker's package is not installed.
    """
    if not names:
        yield None
        return
    tracking = Tracking(names)
    try:
        yield tracking
    finally:
        tracking.close()
