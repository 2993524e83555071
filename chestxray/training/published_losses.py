"""Losses of plugins, as Keras's."""

from __future__ import annotations

from typing import Any

import keras

from chestxray import registry
from chestxray.errors import InputError
from chestxray.plugin import LossPlugin
from chestxray.recipe import LOSSES, Recipe


def loaded(name: str) -> LossPlugin:
    """Return the plugin of that name. Raises as `registry.find` and `registry.load_entry`."""
    plugin: LossPlugin = registry.load_entry(registry.LOSSES, registry.find(registry.LOSSES, name, LOSSES))
    return plugin


class PublishedLoss(keras.losses.Loss):
    """The loss of a plugin of one class an image, of labels and probabilities (batch, classes)."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(name="published")
        plugin = loaded(recipe.loss)
        if plugin.task != "classes":
            raise InputError(f"The loss {recipe.loss} is for {plugin.task}. Allowed: one for classes.")
        self.compute = plugin.compute
        self.smoothing = recipe.label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return one number a row."""
        return self.compute(y_true * (1 - self.smoothing) + self.smoothing / y_pred.shape[-1], y_pred)
