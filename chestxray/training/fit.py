"""Strategy, compile, fit, and what is kept so that a killed run goes on from its last epoch."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from chestxray.data.index import Index
from chestxray.errors import DataError, InputError, TrainingError, first_line
from chestxray.models import interrupts, xla_compilation
from chestxray.models.assembly import Built, Phase, freeze
from chestxray.recipe import Recipe
from chestxray.storage import cache as caches
from chestxray.storage import result_files
from chestxray.storage.files import explained, replacing
from chestxray.training import cached_features, input_pipeline, objective

log = logging.getLogger(__name__)

HISTORY = "history.csv"
STATE = "state"
_FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class Rows:
    """Rows of the decoded array that belong to a split: ``places`` int64 (rows,) and ``labels``
    float32 (rows, classes).
    """

    places: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, index: Index, split: str) -> Rows:
        """The rows of `index` in `split`; rows of the index and of the array correspond."""
        places = np.flatnonzero((index.rows["split"] == split).to_numpy())
        codes = pd.Categorical(index.rows["label"].iloc[places], categories=list(index.classes)).codes
        return cls(places, input_pipeline.one_hot(codes.astype(np.int64), len(index.classes)))


def phases(recipe: Recipe, pretrained: bool) -> list[tuple[Phase, int]]:
    """(phase, epochs) in order: from scratch everything at once, else the head and then more."""
    if not pretrained:
        return [("full", recipe.epochs)]
    plan: list[tuple[Phase, int]] = [("head", recipe.head_epochs), ("finetune", recipe.epochs)]
    return [(phase, epochs) for phase, epochs in plan if epochs]


def train(
    built: Built,
    pixels: np.ndarray,
    index: Index,
    recipe: Recipe,
    folder: Path,
    strategy: tf.distribute.Strategy,
    cache: Path | None = None,
) -> pd.DataFrame:
    """Train `built` in place and return the history, a row an epoch.

    What frozen layers give is kept in the folder `cache` (default: `chestxray.storage.cache.root`).

    The model ends with the weights of its best validation loss in the last phase. ``folder/state``
    holds what `train` needs to go on after an interruption and is removed by `finish`.

    Raises:
        InputError: fewer images a batch than devices.
        TrainingError: loss or weights are no longer finite.
    """
    training, validation = Rows.of(index, "train"), Rows.of(index, "validation")
    if min(recipe.batch_size, len(training.places)) < strategy.num_replicas_in_sync:
        raise InputError(
            f"batch_size must be at least the number of devices ({strategy.num_replicas_in_sync}). "
            f"Received: {min(recipe.batch_size, len(training.places))} images a batch."
        )
    for number, (phase, epochs) in enumerate(phases(recipe, recipe.weights != "none")):
        state = folder / STATE / f"{number}-{phase}"
        plateau = objective.Plateau(rate_of(recipe, phase)) if recipe.schedule == "plateau" else None
        record = Record(folder / HISTORY, phase, state, recipe.patience, plateau)
        with strategy.scope():
            freeze(built, phase)
        if not record.finished(epochs):
            _fit(built, pixels, training, validation, recipe, record, epochs, strategy, cache or caches.root())
        with strategy.scope():
            _read(record.best, _changing(built.model))
    return _table(folder / HISTORY)


def rate_of(recipe: Recipe, phase: Phase) -> float:
    """The peak learning rate of `phase`."""
    return recipe.finetune_learning_rate if phase == "finetune" else recipe.learning_rate


def finish(folder: Path) -> None:
    """Remove what was only needed to go on with the training."""
    shutil.rmtree(folder / STATE, ignore_errors=True)


def _fit(
    built: Built,
    pixels: np.ndarray,
    training: Rows,
    validation: Rows,
    recipe: Recipe,
    record: Record,
    epochs: int,
    strategy: tf.distribute.Strategy,
    cache: Path,
) -> None:
    batch = min(recipe.batch_size, len(training.places))
    steps = input_pipeline.steps_per_epoch(len(training.places), batch)
    with strategy.scope():
        kept = cached_features.keep(built.model, pixels, training.places, validation.places, recipe, epochs, cache)
        trained = kept.tail if kept else built.model
        xla = xla_compilation.choose(trained, record.phase, batch, steps * epochs, cache, wanted=recipe.jit_compile)
        optimizer = objective.optimizer(recipe, rate_of(recipe, record.phase), steps * epochs)
        _compile(built.model, optimizer, recipe, xla)
        if kept:
            # The whole model holds the optimiser as well, so that a state is the same either way.
            _compile(trained, built.model.optimizer, recipe, xla)
        first = record.restore(built.model)
    log.info(
        "Training (%s): %d images, %d epochs of %d steps (%s, %s)%s.",
        record.phase, len(training.places), epochs, steps, type(optimizer).__name__, type(built.model.loss).__name__,
        f", going on after epoch {first}" if first else "",
    )  # fmt: skip
    batches = kept.training if kept else partial(input_pipeline.training, pixels)
    labelled = kept.labelled if kept else partial(input_pipeline.labelled, pixels)
    with interrupts.deferred() as check:
        between = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: check(), on_test_batch_begin=lambda batch, logs: check()
        )
        trained.fit(
            batches(training.places, training.labels, recipe, first_epoch=first),
            validation_data=labelled(validation.places, validation.labels, batch),
            initial_epoch=first,
            epochs=epochs,
            steps_per_epoch=steps,
            class_weight=class_weights(training.labels) if recipe.class_weights else None,
            callbacks=[record, between],
            shuffle=False,  # the pipeline shuffles
            verbose=_verbosity(),
        )


def _compile(model: keras.Model, optimizer: keras.optimizers.Optimizer, recipe: Recipe, xla: bool) -> None:
    model.compile(optimizer=optimizer, loss=objective.loss(recipe), metrics=["accuracy"], jit_compile=xla)


def class_weights(labels: np.ndarray) -> dict[int, float]:
    """Class -> weight, inversely as its frequency, with mean 1 over the rows.

    `labels`: float32 (rows, classes), one-hot.
    """
    counts = labels.sum(axis=0)
    return {i: float(len(labels) / (len(counts) * count)) for i, count in enumerate(counts)}


def _verbosity() -> int:
    if not log.isEnabledFor(logging.INFO):
        return 0
    return 1 if sys.stdout.isatty() else 2


class Record(keras.callbacks.Callback):
    """Keeps an epoch's figures, the best weights, and all that going on needs, epoch by epoch.

    Keras has a callback for each of these; but its BackupAndRestore writes weights and epoch
    number one after the other, its EarlyStopping and ReduceLROnPlateau forget their patience and its
    ModelCheckpoint the best value when a run is resumed. Here the history file is the one memory, and
    a state's file name is its epoch, so that what is on disk is always consistent.
    """

    def __init__(
        self, history: Path, phase: Phase, state: Path, patience: int, plateau: objective.Plateau | None = None
    ) -> None:
        super().__init__()
        self.history = history
        self.phase = phase
        self.state = state
        self.patience = patience
        self.plateau = plateau
        self.best = state / "best.npz"
        #: The model that is saved, of which the one that is trained may be a part.
        self.whole: keras.Model | None = None

    def rows(self) -> pd.DataFrame:
        """The rows of this phase in the history file."""
        if not self.history.is_file():
            return pd.DataFrame(columns=["phase", "epoch", "val_loss"])
        table = _table(self.history)
        return table[table["phase"] == self.phase].reset_index(drop=True)

    def finished(self, epochs: int) -> bool:
        """Whether this phase has nothing more to do."""
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
        before = self.rows()["val_loss"]
        with explained(self.state):
            self.state.mkdir(parents=True, exist_ok=True)
            if before.empty or logs["val_loss"] < before.min():
                _write(self.best, _changing(whole))
            _write(self.state / f"epoch-{epoch + 1:04d}.npz", _changing(whole) + whole.optimizer.variables)
        self._append(epoch, logs)
        for old in self._states()[:-1]:
            old.unlink()
        if self._out_of_patience():
            log.info("Stopping early: validation loss has not improved for %d epochs.", self.patience)
            self.model.stop_training = True

    def _append(self, epoch: int, logs: dict[str, Any]) -> None:
        row = {"phase": self.phase, "epoch": epoch, **{name: float(logs[name]) for name in _FIGURES}}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = round(time.perf_counter() - self._started, 3)
        table = _table(self.history) if self.history.is_file() else pd.DataFrame()
        with replacing(self.history) as temporary:
            pd.concat([table, pd.DataFrame([row])], ignore_index=True).to_csv(temporary, index=False)

    def _keep(self, epochs: int) -> None:
        """Forget rows of this phase from epoch number `epochs` on: their state was not saved."""
        if self.history.is_file():
            table = _table(self.history)
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
        losses_so_far = self.rows()["val_loss"]
        return bool(
            self.patience and len(losses_so_far) and len(losses_so_far) - 1 - losses_so_far.argmin() >= self.patience
        )

    def _check_finite(self, epoch: int, logs: dict[str, Any]) -> None:
        where = f"in epoch {epoch + 1} of phase {self.phase}"
        for name in ("loss", "val_loss"):
            if not np.isfinite(logs[name]):
                raise TrainingError(f"The {name} is no longer finite {where}. A lower learning rate may help.")
        # A finite loss proves nothing: it is printed before the update that spoils the weights.
        for variable in self.model.variables:
            if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                raise TrainingError(
                    f"The weights of {variable.path} are no longer finite {where}. A lower learning rate may help."
                )


def _table(history: Path) -> pd.DataFrame:
    return result_files.history(history)


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
