"""Checkpoints of a training: its history, its best weights, and the state that an interrupted run goes on from."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from chestxray.errors import DataError, TrainingError, first_line
from chestxray.models import non_finite
from chestxray.models.assembly import Phase
from chestxray.storage import result_files
from chestxray.storage.files import explained, replacing
from chestxray.training.objective import Plateau

log = logging.getLogger(__name__)

HISTORY = "history.csv"
STATE = "state"
_FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy", "auroc", "val_auroc")
#: What the best epoch goes by -> its column, the sign with which more is better, and its name.
_MONITORS = {"loss": ("val_loss", -1, "loss"), "auroc": ("val_auroc", 1, "mean AUROC")}


class Record(keras.callbacks.Callback):
    """Keeps an epoch's figures, the best weights, and all that going on needs, epoch by epoch.

    Keras has a callback for each of these; but its BackupAndRestore writes weights and epoch
    number one after the other, its EarlyStopping and ReduceLROnPlateau forget their patience and its
    ModelCheckpoint the best value when a run is resumed. Here the history file is the one memory, and
    a state's file name is its epoch, so that what is on disk is always consistent.
    """

    def __init__(
        self,
        history: Path,
        phase: Phase,
        state: Path,
        patience: int,
        plateau: Plateau | None = None,
        monitor: str = "loss",
    ) -> None:
        super().__init__()
        self.history = history
        self.phase = phase
        self.state = state
        self.patience = patience
        self.plateau = plateau
        self.column, self.sign, self.measure = _MONITORS[monitor]
        self.best = state / "best.npz"
        #: The model that is saved, of which the one that is trained may be a part.
        self.whole: keras.Model | None = None
        #: Gives the inputs of an epoch's batches, of training or else of validation, to find out what went wrong.
        self.examples: Callable[[int, bool], Iterable[Any]] | None = None

    def rows(self) -> pd.DataFrame:
        """The rows of this phase in the history file."""
        if not self.history.is_file():
            return pd.DataFrame(columns=["phase", "epoch", "val_loss", "val_auroc"])
        table = result_files.history(self.history)
        return table[table["phase"] == self.phase].reset_index(drop=True)

    def finished(self, epochs: int) -> bool:
        """Return whether this phase is trained to its end."""
        return len(self._states()) > 0 and (self._last_epoch() >= epochs or self._out_of_patience())

    def restore(self, model: keras.Model) -> int:
        """Load the last state into the whole `model` and return the number of epochs done; 0 where
        there is none.
        """
        self.whole = model
        # Its state is saved in the order of the whole model's variables, whichever part is trained.
        model.optimizer.build(model.trainable_variables)
        if not self._states():
            self._keep(0)
            return 0
        done = self._last_epoch()
        _read(self._states()[-1], _changing(model) + model.optimizer.variables)
        self._keep(done)
        return done

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.perf_counter()
        # Dropout's random states are not saved with the weights. Set by epoch, they make a resumed
        # epoch equal to the one that was interrupted.
        for variable in self.model.non_trainable_variables:
            if variable.path.endswith("seed_generator_state"):
                state = keras.ops.convert_to_numpy(variable)
                variable.assign([state[0], (epoch * 2**20) % 2**32])
        if self.plateau is not None:
            self.model.optimizer.learning_rate = self.plateau.after(self.rows()["val_loss"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        self._check_finite(epoch, logs)
        whole = self.whole or self.model
        before = self._goodness()
        with explained(self.state):
            self.state.mkdir(parents=True, exist_ok=True)
            if before.empty or self.sign * logs[self.column] > before.max():
                _write(self.best, _changing(whole))
            _write(self.state / f"epoch-{epoch + 1:04d}.npz", _changing(whole) + whole.optimizer.variables)
        self._append(epoch, logs)
        for old in self._states()[:-1]:
            old.unlink()
        if self._out_of_patience():
            log.info("Stopping early: validation %s has not improved for %d epochs.", self.measure, self.patience)
            self.model.stop_training = True

    def write(self, rows: pd.DataFrame, model: keras.Model) -> None:
        """Write a phase that was not trained by epochs: its `rows` of the history, and the weights of `model`, whose
        file is the last to be written and so says that the phase is whole.
        """
        self._keep(0)
        table = result_files.history(self.history) if self.history.is_file() else pd.DataFrame()
        rows = rows.assign(phase=self.phase, epoch=range(len(rows)))
        with explained(self.state):
            with replacing(self.history) as temporary:
                pd.concat([table, rows], ignore_index=True).to_csv(temporary, index=False)
            self.state.mkdir(parents=True, exist_ok=True)
            _write(self.best, _changing(model))

    def _append(self, epoch: int, logs: dict[str, Any]) -> None:
        row = {"phase": self.phase, "epoch": epoch, **{name: float(logs[name]) for name in _FIGURES if name in logs}}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = round(time.perf_counter() - self._started, 3)
        table = result_files.history(self.history) if self.history.is_file() else pd.DataFrame()
        with replacing(self.history) as temporary:
            pd.concat([table, pd.DataFrame([row])], ignore_index=True).to_csv(temporary, index=False)

    def _keep(self, epochs: int) -> None:
        """Forget rows of this phase from epoch number `epochs` on: their state was not saved."""
        if self.history.is_file():
            table = result_files.history(self.history)
            kept = table[(table["phase"] != self.phase) | (table["epoch"] < epochs)]
            with replacing(self.history) as temporary:
                kept.to_csv(temporary, index=False)

    def _states(self) -> list[Path]:
        """The states whose epoch is in the history too. One that was interrupted between the two is
        trained again from the state before it, which is removed last.
        """
        epochs = len(self.rows())
        return [path for path in sorted(self.state.glob("epoch-*.npz")) if int(path.stem[len("epoch-") :]) <= epochs]

    def _last_epoch(self) -> int:
        return int(self._states()[-1].stem[len("epoch-") :])

    def _out_of_patience(self) -> bool:
        so_far = self._goodness()
        return bool(self.patience and len(so_far) and len(so_far) - 1 - so_far.argmax() >= self.patience)

    def _goodness(self) -> pd.Series:
        """What the best epoch goes by, of the epochs of this phase: more is better."""
        return self.sign * self.rows()[self.column].astype(float)

    def _check_finite(self, epoch: int, logs: dict[str, Any]) -> None:
        where = f"in epoch {epoch + 1} of phase {self.phase}"
        spoilt = [name for name in ("loss", "val_loss") if not np.isfinite(logs[name])]
        # A finite loss proves nothing: it is printed before the update that spoils the weights.
        weights = non_finite.first_weights(self.model)
        if not spoilt and not weights:
            return
        log.info("Looking for the first layer that is not finite ...")
        # Weights that are not finite spoil every batch, so that the first one of validation will do.
        said = self._first(epoch, training="loss" in spoilt and not weights) or weights
        what = f"The {spoilt[0]} is" if spoilt else "Weights are"
        raise TrainingError(
            f"{what} no longer finite {where}; the first layer of the graph that is not: "
            f"{said or 'none at the end of the epoch'}. A lower learning rate may help."
        )

    def _first(self, epoch: int, *, training: bool) -> str:
        """The first layer that is not finite for a batch of the epoch, or of validation; ``""`` for none."""
        if self.examples is None:
            return ""
        return non_finite.first_of(self.model, self.examples(epoch, training), training=training)


def finish(folder: Path) -> None:
    """Remove what was only needed to go on with the training."""
    shutil.rmtree(folder / STATE, ignore_errors=True)


def restore_weights(path: Path, model: keras.Model) -> None:
    """Load the best weights that a `Record` kept at `path` into `model`, whose trained layers are the same.

    Raises:
        DataError: the file is damaged.
    """
    _read(path, _changing(model))


def _changing(model: keras.Model) -> list[keras.Variable]:
    """The variables that training changes: those of frozen layers need not be written every epoch."""
    return [variable for layer in model.layers if layer.trainable for variable in layer.variables]


def _write(path: Path, variables: list[keras.Variable]) -> None:
    # By number: the names of layers count up from model to model within a process.
    with replacing(path) as temporary:
        np.savez(temporary, *map(keras.ops.convert_to_numpy, variables))


def _read(path: Path, variables: list[keras.Variable]) -> None:
    try:
        with np.load(path, allow_pickle=False) as file:
            for number, variable in enumerate(variables):
                variable.assign(file[f"arr_{number}"])
    except Exception as error:  # damaged archives raise what zlib, zipfile and NumPy's parser have
        raise DataError(f"{path} is damaged: {first_line(error)}. Train anew with --overwrite.") from error
