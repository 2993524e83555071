"""Says how a training goes, and how long it will take, as soon as that can be measured."""

from __future__ import annotations

import logging
import time
from typing import Any

import keras

from chestxray.progress import duration

log = logging.getLogger(__name__)

#: Seconds between two lines within an epoch, and seconds of steps that the first estimate is made from.
EVERY, MEASURED = 30.0, 3.0
#: A training step computes forward and, for two gradients, as much again twice.
FORWARD_SHARE = 1 / 3


class EpochLog(keras.callbacks.Callback):
    """Logs a line when the training step was compiled, with an estimate, a line an epoch, and in long epochs a line
    every `EVERY` seconds.

    ``steps`` and ``validation_steps`` are those of an epoch, ``batch`` the images of a step, ``epochs`` the last
    epoch's number.
    """

    def __init__(self, *, steps: int, validation_steps: int, batch: int, epochs: int) -> None:
        super().__init__()
        self.steps = steps
        self.validation_steps = validation_steps
        self.batch = batch
        self.epochs = epochs
        self.first = 0
        #: Seconds of compiling in this epoch, which the next ones are without.
        self.compiling = 0.0
        self.estimated = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the clock of the first step, which compiles."""
        log.info("Compiling the training step ...")
        self.began = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the epoch's clock."""
        self.epoch = epoch
        if not self.compiling:
            self.first = epoch
        self.started = self.spoken = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Estimate once some steps were measured, and say where a long epoch is."""
        now = time.perf_counter()
        if not self.compiling:
            self.compiling = now - self.began
            self.measuring, self.before = now, batch
            return
        if not self.estimated and (now - self.measuring >= MEASURED or batch + 1 == self.steps):
            self.estimated = True
            seconds = (now - self.measuring) / (batch - self.before)
            an_epoch = seconds * (self.steps + self.validation_steps * FORWARD_SHARE)
            left = (self.epochs - self.first) * an_epoch - (now - self.measuring)
            log.info(
                "Compiled in %s. At %.0f images/s the training will take about %s more.",
                duration(self.compiling), self.batch / seconds, duration(max(left, 0)),
            )  # fmt: skip
            self.spoken = now
        if now - self.spoken >= EVERY:
            self.spoken = now
            log.info(
                "Epoch %d of %d: step %d of %d.", self.epoch + 1, self.epochs, batch + 1, self.steps,
                extra={"fields": self._place() | {"done": batch + 1, "total": self.steps}},
            )  # fmt: skip

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Say how the epoch went and, from its duration, how long the others will take."""
        logs = logs or {}
        # From here on an epoch as a whole is the better measure, and the steps of two have a validation between them.
        self.estimated = True
        seconds = time.perf_counter() - self.started
        an_epoch = seconds - (self.compiling if epoch == self.first else 0)
        left = (self.epochs - epoch - 1) * max(an_epoch, 0)
        log.info(
            "Epoch %d of %d (%s): loss %.4f, accuracy %.3f; validation loss %.4f, accuracy %.3f%s%s.",
            epoch + 1, self.epochs, duration(seconds),
            *(logs.get(name, float("nan")) for name in ("loss", "accuracy", "val_loss", "val_accuracy")),
            f", mean AUROC {logs['val_auroc']:.3f}" if "val_auroc" in logs else "",
            f"; about {duration(left)} more" if left else "",
            extra={"fields": self._place() | {"epoch_seconds": round(seconds, 3), "seconds_left": round(left, 3)} | {
                name: float(value) for name, value in logs.items()
            }},
        )  # fmt: skip

    def _place(self) -> dict[str, Any]:
        """Where the training is, as fields of a line of JSON; epochs count from 1."""
        return {"step": "train", "epoch": self.epoch + 1, "epochs": self.epochs}
