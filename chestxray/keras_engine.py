"""A run's folder, or an ensemble's, as an engine computed by Keras on TensorFlow."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from chestxray import backend, run_folder
from chestxray.calibration import Calibration
from chestxray.decision import FILE as DECISION
from chestxray.decision import Decision
from chestxray.engine import Engine, Ensemble, Outputs, check_maps
from chestxray.errors import DataError, InputError
from chestxray.images import Fit
from chestxray.refusal import FILE as REFUSAL
from chestxray.refusal import Familiar
from chestxray.run_folder import MODEL, RECIPE, Run

if TYPE_CHECKING:
    import keras

ENSEMBLE = "ensemble.json"


def folders(folder: Path) -> tuple[Path, ...]:
    """The folders of the runs that answer for `folder`: itself, or the members of an ensemble.

    Raises:
        InputError: no such folder, one without weights, a run that was not finished or that lacks
            what it decided by.
        DataError: an ensemble's list of members is damaged.
    """
    if (folder / ENSEMBLE).is_file():
        return tuple(path for member in _members(folder) for path in folders(member))
    if (folder / RECIPE).is_file() and not (folder / MODEL).is_file() and (folder / "predictions.csv").is_file():
        raise InputError(
            f"{folder} holds predictions and no weights ({MODEL}). Predict with the run that made them, or with an "
            "ensemble of runs (`chestxray ensemble`)."
        )
    run_folder.load(folder)
    if not (folder / DECISION).is_file():
        raise InputError(f"{folder} has no {DECISION}: run it again with this version of chestxray.")
    return (folder,)


def load(folder: Path) -> Engine:
    """The engine of a finished run's folder, or of an ensemble's.

    The weights, and TensorFlow, are loaded when it is first run.

    Raises:
        InputError, DataError: as `folders`, and files that are damaged.
    """
    runs = folders(folder)
    if not (folder / ENSEMBLE).is_file():
        return KerasEngine(runs[0])
    members = [load(member) for member in _members(folder)]
    path = folder / DECISION
    # Members without validation images in common left no thresholds: the most probable class, then.
    plain = Decision(members[0].classes, None, Calibration(), {}, "")
    return Ensemble(folder.resolve().name, members, Decision.read(path) if path.is_file() else plain)


def max_pixels(folder: Path) -> int:
    """Most pixels an image may have: the least that any of the runs of `folder` allowed."""
    return min(run_folder.load(path).recipe.max_pixels for path in folders(folder))


def fingerprint(folder: Path, options: str = "") -> str:
    """16 digits that tell whatever answers depend on from that of another run: weights, decisions and
    `options`.

    Raises:
        InputError, DataError: as `folders`.
    """
    digest = xxhash.xxh3_64(options.encode())
    ensemble = [folder / DECISION] if (folder / ENSEMBLE).is_file() else []
    files = [run / name for run in folders(folder) for name in (MODEL, DECISION, REFUSAL, RECIPE)]
    for path in [*ensemble, *files]:
        digest.update(f"{path.name}:".encode())
        if path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class KerasEngine:
    """The model of the run in ``folder``, computed as one graph for any number of images.

    Raises:
        InputError, DataError: the folder's files are damaged; of the weights this is found by `run`.
    """

    folder: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        # What is damaged is told here, and threads that read these later change nothing.
        _ = self.decision, self.image_size, self.fit, self.has_maps, self.refusal_threshold

    @cached_property
    def _run(self) -> Run:
        return run_folder.load(self.folder)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the model's outputs."""
        return self.decision.classes

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the model's input."""
        size = self._run.recipe.image_size
        if size is None:
            raise DataError(f"{self.folder / RECIPE} is damaged: image_size is missing.")
        return size

    @cached_property
    def fit(self) -> Fit:
        """How images were fitted to the size in training."""
        return self._run.recipe.fit

    @cached_property
    def decision(self) -> Decision:
        """What validation chose."""
        return Decision.read(self.folder / DECISION)

    @cached_property
    def _familiar(self) -> Familiar | None:
        return Familiar.read(self.folder / REFUSAL) if self.decision.features else None

    @property
    def refusal_threshold(self) -> float | None:
        """A distance; None where the run refuses nothing."""
        return None if self._familiar is None else self._familiar.threshold

    @property
    def _layer(self) -> str | None:
        return self._run.cam_layer[0]

    @property
    def has_maps(self) -> bool:
        """Whether the architecture has a layer to explain by."""
        return self._layer is not None

    @cached_property
    def _model(self) -> keras.Model:
        backend.start()
        try:
            return self._run.model
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise DataError(f"{self.folder / MODEL} cannot be loaded: {reason}") from error

    @cached_property
    def _plain(self) -> Any:
        return self._compiled(None)

    @cached_property
    def _explaining(self) -> Any:
        return self._compiled(self._layer)

    def _compiled(self, layer: str | None) -> Any:
        """uint8 (n, height, width) -> what `cam.Graph` gives of them, traced once for any n."""
        model = self._model
        import tensorflow as tf

        from chestxray.cam import Graph

        graph = Graph(model, layer, decision=self.decision, features=self.decision.features)
        signature = [tf.TensorSpec((None, *self.image_size), tf.uint8)]

        @tf.function(input_signature=signature, autograph=False)
        def compute(pixels: tf.Tensor) -> Any:
            return graph.compute(tf.cast(pixels, tf.float32)[..., tf.newaxis])

        return compute

    def run(self, pixels: np.ndarray, *, maps: bool = False) -> Outputs:
        """As `Engine.run`."""
        if maps:
            check_maps(self)
        with self._lock:
            # Only the first call loads and traces; running is left to TensorFlow's own locks.
            graph = self._explaining if maps else self._plain
        given = {name: value.numpy() for name, value in graph(pixels).items()}
        far = None if self._familiar is None else self._familiar.distances(given["features"], pixels)
        return Outputs(given["probabilities"], far, given.get("map"))


def _members(folder: Path) -> list[Path]:
    path = folder / ENSEMBLE
    try:
        return [Path(member["folder"]) for member in json.loads(path.read_text(encoding="utf-8"))["members"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}.") from error
