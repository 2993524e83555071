"""Losses of findings: a probability for each, over those that are known.

Targets are float32 (batch, findings) from 0 to 1, NaN where a finding is not known. What is not known has no part in
the loss or its gradient: a batch has the loss of its known targets, as if the others were not there.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from chestxray.models import replicas
from chestxray.recipe import LOSSES, Recipe
from chestxray.training import published_losses, sampling

#: Lin et al. 2017 for both kinds of targets; Ridnik et al. 2021: of absent findings alone, and the margin.
FOCAL, ASYMMETRIC, MARGIN = 2.0, 4.0, 0.05


def of(recipe: Recipe, targets: np.ndarray) -> FindingLoss:
    """Return the loss that `recipe` asks for; `targets`, float32 (rows, findings), are those of the training rows."""
    factors = sampling.factors(targets, recipe)
    weights = positive_weights(targets, factors) if recipe.weighs_findings else None
    return FindingLoss(recipe.loss, weights, recipe.label_smoothing)


def shift(recipe: Recipe, targets: np.ndarray) -> np.ndarray | None:
    """Return how much more absent and present count in training than in the data, (findings, 2), up to a factor, by
    weights and by sampling; None where neither changes it.
    """
    if recipe.weighs_findings:
        # Whatever the sampling, the weights make both kinds of what is drawn count alike.
        return positive_weights(targets)
    factors = sampling.factors(targets, recipe)
    if factors is None:
        return None
    present = np.nan_to_num(targets)
    kinds = np.stack([np.isfinite(targets) - present, present], axis=2)
    rows = kinds.sum(axis=0)
    return np.where(rows > 0, np.tensordot(factors, kinds, 1) / np.maximum(rows, 1e-9), 1.0)


def positive_weights(targets: np.ndarray, factors: np.ndarray | None = None) -> np.ndarray:
    """Return the weights of absent and of present, float32 (findings, 2), inversely as their frequencies in what is
    drawn: a row is drawn in proportion to its factor, see `sampling`.

    The mean over the known rows of a finding is 1. A finding of which all are alike has weights of 1.
    """
    known = np.isfinite(targets) * (1.0 if factors is None else factors[:, None])
    rows, present = known.sum(axis=0), (known * np.nan_to_num(targets)).sum(axis=0)
    counts = np.stack([rows - present, present], axis=1)
    weights = rows[:, None] / (2 * np.maximum(counts, 1e-9))
    return np.where(counts.min(axis=1, keepdims=True) > 0, weights, 1.0).astype(np.float32)


@keras.saving.register_keras_serializable("chestxray")
class FindingLoss(keras.losses.Loss):
    """The mean over the known targets of a batch of one of these losses of probabilities (batch, findings):

    ``crossentropy``; ``focal``, which gives less weight to what is easy; ``asymmetric`` (Ridnik et al. 2021), which
    does so for absent findings alone and ignores those below a probability of `MARGIN`; ``soft_f1``, one minus the mean
    F1 of the findings with probabilities in the place of decisions; or the name of a plugin's. `weights` (findings, 2)
    multiply absent and present; `smoothing` moves targets towards one half.
    """

    def __init__(
        self, kind: str, weights: np.ndarray | None = None, smoothing: float = 0.0, name: str = "findings"
    ) -> None:
        super().__init__(name=name)
        self.kind = kind
        self.weights = None if weights is None else np.asarray(weights, dtype=np.float32)
        self.smoothing = smoothing
        self.published = None if kind in LOSSES else published_losses.loaded(kind).compute

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return one number a row, whose mean over the batch is the loss."""
        unknown = ops.isnan(y_true)
        known = ops.cast(ops.logical_not(unknown), y_pred.dtype)
        present = ops.where(unknown, ops.zeros_like(y_pred), ops.cast(y_true, y_pred.dtype))
        if self.kind == "soft_f1":
            return ops.ones_like(y_pred[:, 0]) * _soft_f1(present, y_pred, known)
        losses = self._losses(present * (1 - self.smoothing) + self.smoothing / 2, y_pred) * known
        # Keras takes the mean over the rows of a device, and then over devices: this is the sum of the batch over its
        # number of known targets.
        rows = ops.cast(ops.shape(y_pred)[0] * replicas.number(), y_pred.dtype)
        return ops.sum(losses, axis=1) * rows / ops.maximum(replicas.total(ops.sum(known)), 1.0)

    def _losses(self, present: Any, probabilities: Any) -> Any:
        """Return the loss of each finding of each row, (batch, findings)."""
        if self.published is not None:
            return self.published(present, probabilities)
        small = keras.config.epsilon()
        p = ops.clip(probabilities, small, 1 - small)
        shifted = ops.clip(p - MARGIN, small, 1 - small) if self.kind == "asymmetric" else p
        of_present, of_absent = -ops.log(p), -ops.log(1 - shifted)
        if self.kind == "focal":
            of_present, of_absent = of_present * (1 - p) ** FOCAL, of_absent * p**FOCAL
        if self.kind == "asymmetric":
            of_absent = of_absent * shifted**ASYMMETRIC
        if self.weights is not None:
            of_absent, of_present = of_absent * self.weights[:, 0], of_present * self.weights[:, 1]
        return present * of_present + (1 - present) * of_absent

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of `__init__`."""
        weights = None if self.weights is None else self.weights.tolist()
        return {"kind": self.kind, "weights": weights, "smoothing": self.smoothing, "name": self.name}


def _soft_f1(present: Any, probabilities: Any, known: Any) -> Any:
    probabilities = probabilities * known
    true_positive = replicas.total(ops.sum(present * probabilities, axis=0))
    predicted, actual = replicas.total(ops.sum(probabilities, axis=0)), replicas.total(ops.sum(present, axis=0))
    f1 = 2 * true_positive / (predicted + actual + keras.config.epsilon())
    # Findings that the batch does not hold have no F1; they neither help nor harm.
    held = ops.cast(actual > 0, f1.dtype)
    return 1 - ops.sum(f1 * held) / ops.maximum(ops.sum(held), 1.0)


@keras.saving.register_keras_serializable("chestxray")
class KnownAccuracy(keras.metrics.Metric):
    """The proportion of known findings, of all rows, that are on the right side of a probability of one half."""

    def __init__(self, name: str = "accuracy") -> None:
        super().__init__(name=name)
        self.right = self.add_variable((), initializer="zeros", name="right")
        self.known = self.add_variable((), initializer="zeros", name="known")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch; targets are NaN where a finding is not known."""
        known = ops.logical_not(ops.isnan(y_true))
        right = ops.logical_and(known, ops.equal(ops.cast(y_true, y_pred.dtype) > 0.5, y_pred > 0.5))
        self.right.assign_add(ops.sum(ops.cast(right, self.right.dtype)))
        self.known.assign_add(ops.sum(ops.cast(known, self.known.dtype)))

    def result(self) -> Any:
        """Return the proportion so far."""
        return self.right / ops.maximum(self.known, 1.0)
