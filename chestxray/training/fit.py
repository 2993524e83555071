"""Training: phases, compilation and `Model.fit`, with a checkpoint after every epoch."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd

from chestxray.data.index import Index
from chestxray.errors import InputError
from chestxray.models import backend, forward, hosts, interrupts, replicas, xla_compilation
from chestxray.models.assembly import Built, Phase, freeze
from chestxray.recipe import Recipe
from chestxray.storage import cache as caches
from chestxray.storage import result_files
from chestxray.training import (
    cached_features,
    checkpoint,
    finding_losses,
    fused_batch_norm,
    fused_optimizers,
    input_pipeline,
    linear_probe,
    objective,
    sampling,
)
from chestxray.training.auroc_metric import MeanAuroc
from chestxray.training.checkpoint import HISTORY, STATE, Record
from chestxray.training.epoch_log import EpochLog

if TYPE_CHECKING:
    import tensorflow as tf

    from chestxray.models.jax_devices import Replicas

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """Rows of the decoded array that belong to a split: ``places`` int64 (rows,) and ``labels``
    float32 (rows, classes): one-hot, or of findings from 0 to 1 and NaN where one is not known.
    """

    places: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, index: Index, split: str) -> Rows:
        """The rows of `index` in `split`; rows of the index and of the array correspond. Rows of which no finding is
        known teach nothing and are left out.
        """
        places = np.flatnonzero((index.rows["split"] == split).to_numpy())
        if index.task == "findings":
            targets = index.targets[places]
            known = np.isfinite(targets).any(axis=1)
            return cls(places[known], targets[known])
        codes = pd.Categorical(index.rows["label"].iloc[places], categories=list(index.classes)).codes
        return cls(places, forward.one_hot(codes.astype(np.int64), len(index.classes)))


def phases(recipe: Recipe, pretrained: bool) -> list[tuple[Phase, int]]:
    """(phase, epochs) in order: from scratch everything at once, else the head and then more. A probe has no epochs;
    what follows it has, where the recipe says from which layer on.
    """
    if not pretrained:
        return [("full", recipe.epochs)]
    if recipe.probe:
        after: list[tuple[Phase, int]] = [("finetune", recipe.epochs)]
        return [("probe", 0), *(after if recipe.epochs_follow_probe else [])]
    plan: list[tuple[Phase, int]] = [("head", recipe.head_epochs), ("finetune", recipe.epochs)]
    return [(phase, epochs) for phase, epochs in plan if epochs]


def train(
    built: Built,
    pixels: np.ndarray,
    index: Index,
    recipe: Recipe,
    folder: Path,
    strategy: tf.distribute.Strategy | Replicas,
    cache: Path | None = None,
    after_epoch: Callable[[], None] | None = None,
) -> pd.DataFrame:
    """Train `built` in place and return the history, a row an epoch.

    What frozen layers give is kept in the folder `cache` (default: `chestxray.storage.cache.root`). `after_epoch` is
    called when an epoch is in the history.

    The model ends with the weights of its best epoch by ``recipe.monitor`` in the last phase. ``folder/state``
    holds what `train` needs to go on after an interruption and is removed by `checkpoint.finish`.

    Raises:
        InputError: fewer images a batch than devices; a monitor that validation does not allow.
        TrainingError: loss or weights are no longer finite.
    """
    training, validation = Rows.of(index, "train"), Rows.of(index, "validation")
    devices = strategy.num_replicas_in_sync
    recipe = recipe.replace(batch_size=replicas.equal_batch(recipe.batch_size, len(training.places), devices))
    if devices > 1:
        log.info("%s", _shares(built, recipe, devices))
    if recipe.monitor == "auroc" and not _rankable(validation.labels):
        raise InputError(
            f"monitor auroc needs validation images with and without at least one of {', '.join(index.classes)}, and "
            "none of these has both. Allowed: loss."
        )
    for number, (phase, epochs) in enumerate(phases(recipe, recipe.weights != "none")):
        state = folder / STATE / f"{number}-{phase}"
        plateau = objective.Plateau(rate_of(recipe, phase)) if recipe.schedule == "plateau" else None
        record = Record(folder / HISTORY, phase, state, recipe.patience, plateau, recipe.monitor)
        with strategy.scope():
            freeze(built, phase)
        aim = Aim.of(index, training.labels, recipe)
        if phase == "probe":
            if not record.best.is_file():
                with strategy.scope():
                    table = linear_probe.fit(built, pixels, training, validation, recipe, aim, cache or caches.root())
                record.write(table, built.model)
                if after_epoch:
                    after_epoch()
        elif not record.finished(epochs):
            _fit(
                built, pixels, training, validation, recipe, aim, record, epochs, strategy, cache or caches.root(),
                after_epoch,
            )  # fmt: skip
        with strategy.scope():
            checkpoint.restore_weights(record.best, built.model)
    return result_files.history(folder / HISTORY)


@dataclass(frozen=True)
class Aim:
    """What is minimised and what is shown of it, made anew for each model since metrics hold a state, and the
    weights of classes.
    """

    loss: Callable[[], keras.losses.Loss]
    metrics: Callable[[], list[Any]]
    class_weight: dict[int, float] | None

    @classmethod
    def of(cls, index: Index, labels: np.ndarray, recipe: Recipe) -> Aim:
        """That of the task of `index`; `labels`, float32 (rows, classes), are those of the training rows."""

        def ranks() -> list[Any]:
            return [MeanAuroc(len(index.classes))] if recipe.monitor == "auroc" else []

        if index.task == "findings":
            known = finding_losses.KnownAccuracy
            return cls(lambda: finding_losses.of(recipe, labels), lambda: [known(), *ranks()], None)
        weights = class_weights(labels, sampling.factors(labels, recipe)) if recipe.class_weights else None
        return cls(lambda: objective.loss(recipe), lambda: ["accuracy", *ranks()], weights)


def _rankable(labels: np.ndarray) -> bool:
    """Whether of one of the columns of `labels`, as in `Rows`, both kinds are known."""
    known = np.isfinite(labels)
    present = known & (np.nan_to_num(labels) >= 0.5)
    return bool((present.any(axis=0) & (known & ~present).any(axis=0)).any())


def rate_of(recipe: Recipe, phase: Phase) -> float:
    """The peak learning rate of `phase`, scaled to the batch size where the recipe asks for it: linearly for SGD (Goyal
    et al. 2017), by the square root for Adam (Malladi et al. 2022).
    """
    rate = recipe.finetune_learning_rate if phase == "finetune" else recipe.learning_rate
    if recipe.learning_rate_batch is None:
        return rate
    ratio = recipe.batch_size / recipe.learning_rate_batch
    return rate * (ratio if recipe.optimizer == "sgd" else math.sqrt(ratio))


def _shares(built: Built, recipe: Recipe, devices: int) -> str:
    """What each device has of a step, in a sentence or two."""
    share = recipe.batch_size // devices
    said = f"Each of {devices} devices trains on {share} of a batch of {recipe.batch_size} images."
    if not any(isinstance(layer, keras.layers.BatchNormalization) for layer in built.model.layers):
        return said
    if recipe.sync_batch_norm or backend.on_jax():
        return f"{said} Batch normalisation is over all {recipe.batch_size}."
    return f"{said} Batch normalisation is over each device's own {share} (--sync-batch-norm: over all)."


def _fit(
    built: Built,
    pixels: np.ndarray,
    training: Rows,
    validation: Rows,
    recipe: Recipe,
    aim: Aim,
    record: Record,
    epochs: int,
    strategy: tf.distribute.Strategy | Replicas,
    cache: Path,
    after_epoch: Callable[[], None] | None,
) -> None:
    assert record.phase != "probe", "it has no epochs"
    batch, devices = recipe.batch_size, strategy.num_replicas_in_sync
    steps = input_pipeline.steps_per_epoch(len(training.places), batch)
    with strategy.scope():
        kept = cached_features.keep(built.model, pixels, training.places, validation.places, recipe, epochs, cache)
        trained = kept.tail if kept else built.model
        xla = xla_compilation.choose(trained, record.phase, batch, steps * epochs, cache, wanted=recipe.jit_compile)
        optimizer = objective.optimizer(recipe, rate_of(recipe, record.phase), steps * epochs)
        _compile(built.model, optimizer, aim, xla)
        if kept:
            # The whole model holds the optimiser as well, so that a state is the same either way.
            _compile(trained, built.model.optimizer, aim, xla)
        first = record.restore(built.model)
    log.info(
        "Training (%s): %d images, %d epochs of %d steps (%s, %s)%s.",
        record.phase, len(training.places), epochs, steps, type(optimizer).__name__, type(built.model.loss).__name__,
        f", going on after epoch {first}" if first else "",
    )  # fmt: skip
    epoch_log = EpochLog(steps=steps, validation_steps=-(-len(validation.places) // batch), batch=batch, epochs=epochs)
    told = [keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: after_epoch())] if after_epoch else []
    batches = kept.training if kept else partial(input_pipeline.training, pixels)
    labelled = kept.labelled if kept else partial(forward.labelled, pixels)
    with (
        interrupts.deferred() as check,
        replicas.synchronised(trained, recipe.sync_batch_norm and devices > 1 and not backend.on_jax()),
        fused_batch_norm.fused(trained),
        fused_optimizers.fused(trained.optimizer),
    ):
        between = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: check(), on_test_batch_begin=lambda batch, logs: check()
        )
        record.examples = lambda epoch, of_training: (
            inputs
            for inputs, _ in (
                itertools.islice(batches(training.places, training.labels, recipe, first_epoch=epoch), steps)
                if of_training
                else labelled(validation.places, validation.labels, batch)
            )
        )
        fed = batches(training.places, training.labels, recipe, first_epoch=first)
        given: dict[str, Any] = {"x": fed, "callbacks": [record, between, epoch_log, *told]}
        if backend.on_jax():
            given = _given_jax(given, labelled, validation, batch, aim, record)
        else:
            given["validation_data"] = labelled(validation.places, validation.labels, batch, devices)
            given["class_weight"] = aim.class_weight
        trained.fit(
            **given,
            initial_epoch=first,
            epochs=epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the pipeline shuffles
            verbose=0,
        )


def _given_jax(
    given: dict[str, Any], labelled: Any, validation: Rows, batch: int, aim: Aim, record: Record
) -> dict[str, Any]:
    """Return what `Model.fit` takes in the place of `given` where Keras computes with JAX."""
    from chestxray.training import jax_fit, jax_pipeline

    validated = jax_fit.Validation(
        lambda places, labels: labelled(places, labels, batch),
        validation.places, validation.labels, batch, aim.loss(), aim.metrics(),
    )  # fmt: skip
    fed = jax_pipeline.weighed(given["x"], aim.class_weight)
    if hosts.count() > 1:
        record.examples = None  # no host has a whole batch
    # The record keeps what validation has found.
    return given | {"x": fed, "callbacks": [validated, *given["callbacks"]]}


def _compile(model: keras.Model, optimizer: keras.optimizers.Optimizer, aim: Aim, xla: bool) -> None:
    model.compile(optimizer=optimizer, loss=aim.loss(), metrics=aim.metrics(), jit_compile=xla)


def class_weights(labels: np.ndarray, factors: np.ndarray | None = None) -> dict[int, float]:
    """Class -> weight, inversely as its frequency in what is drawn, with mean 1 over the rows.

    `labels`: float32 (rows, classes), one-hot. `factors`: a row is drawn in proportion to its own, see `sampling`.
    """
    counts = labels.sum(axis=0) if factors is None else factors @ labels
    return {i: float(counts.sum() / (len(counts) * count)) for i, count in enumerate(counts)}


def class_shift(recipe: Recipe, labels: np.ndarray) -> np.ndarray | None:
    """Return how much more each class counts in training than in the data, float (classes,), up to a factor, by weights
    and by sampling; None where neither changes it. `labels`: float32 (rows, classes), one-hot.
    """
    if recipe.class_weights:
        # Whatever the sampling, the weights make all classes of what is drawn count alike.
        return np.array(list(class_weights(labels).values()))
    factors = sampling.factors(labels, recipe)
    return None if factors is None else factors @ labels / labels.sum(axis=0)
