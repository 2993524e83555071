"""Losses, optimisers and learning-rate schedules of a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from chestxray.models import replicas
from chestxray.recipe import Recipe
from chestxray.training.published_losses import PublishedLoss


def loss(recipe: Recipe) -> keras.losses.Loss:
    """Return the loss of one class an image: cross-entropy, focal loss (Lin 2017, gamma 2), soft F1 or a
    plugin's of probabilities (batch, classes). That of findings is `finding_losses.FindingLoss`.
    """
    if recipe.loss == "focal":
        return keras.losses.CategoricalFocalCrossentropy(label_smoothing=recipe.label_smoothing)
    if recipe.loss == "soft_f1":
        return SoftF1()
    if recipe.loss != "crossentropy":
        return PublishedLoss(recipe)
    return keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)


class SoftF1(keras.losses.Loss):
    """One minus the macro F1 with probabilities in the place of decisions.

    The F1 is one of a whole batch, so that every row is given the batch's loss.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        true_positive = replicas.total(ops.sum(y_true * y_pred, axis=0))
        predicted, actual = replicas.total(ops.sum(y_pred, axis=0)), replicas.total(ops.sum(y_true, axis=0))
        f1 = 2 * true_positive / (predicted + actual + keras.config.epsilon())
        # Classes that the batch does not hold have no F1; they neither help nor harm.
        present = ops.cast(actual > 0, f1.dtype)
        macro = ops.sum(f1 * present) / ops.maximum(ops.sum(present), 1.0)
        return ops.ones_like(y_pred[:, 0]) * (1 - macro)


def optimizer(recipe: Recipe, rate: float, steps: int) -> keras.optimizers.Optimizer:
    """The recipe's optimiser with the peak learning `rate` over `steps` of a phase."""
    schedule = learning_rate(recipe, rate, steps)
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True)
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(schedule)
    chosen = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)
    # Decay pulls towards zero, which is no prior for offsets and scales (Loshchilov and Hutter 2019).
    chosen.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return chosen


def learning_rate(recipe: Recipe, rate: float, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """A constant (``constant``, ``plateau``), or linear warm-up from 0 and cosine decay to 1% of `rate`."""
    if recipe.schedule != "cosine":
        return rate
    warmup = min(round(recipe.warmup_share * steps), steps - 1)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else rate,
        decay_steps=steps - warmup,
        alpha=0.01,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )


@dataclass(frozen=True)
class Plateau:
    """The schedule ``plateau``: after two epochs in which the validation loss has not become less by
    1e-4, the learning rate is multiplied by 0.3, down to a thousandth of ``rate``.

    It is Keras's ReduceLROnPlateau as a function of the losses so far, so that a run that was
    interrupted goes on as one that was not.
    """

    rate: float

    def after(self, losses: Iterable[float]) -> float:
        """The learning rate of the epoch that follows those with these validation `losses`.

        >>> Plateau(1.0).after([0.5, 0.6, 0.6])
        0.3
        """
        rate, best, waited = self.rate, math.inf, 0
        for value in losses:
            if value < best - 1e-4:
                best, waited = value, 0
                continue
            waited += 1
            if waited == 2:
                rate, waited = max(rate * 0.3, self.rate * 1e-3), 0
        return rate
