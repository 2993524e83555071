"""What `fit` does otherwise where Keras computes with JAX: validation by all hosts, exact for batches of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from chestxray.models import hosts, jax_devices
from chestxray.models.jax_forward import Compiled


class Validation(keras.callbacks.Callback):
    """Adds the figures of validation to those of an epoch, as `Model.fit` does with ``validation_data``.

    Keras divides every batch by the devices, which the last, smaller one does not allow. Here each host predicts a
    part of the images, and the loss and metrics are taken of all of them together, in batches of the same ``batch``
    as in training, since some losses are those of a whole batch. All hosts get host 0's figures, to the last bit.

    ``feed(places, labels)`` yields (inputs, labels) of the validation rows `places`; ``loss`` and ``metrics`` are those
    that the model is compiled with.
    """

    def __init__(
        self,
        feed: Callable[[np.ndarray, np.ndarray], Iterable[tuple[Any, Any]]],
        places: np.ndarray,
        labels: np.ndarray,
        batch: int,
        loss: keras.losses.Loss,
        metrics: list[Any],
    ) -> None:
        super().__init__()
        self.feed, self.places, self.labels, self.batch = feed, places, labels, batch
        self.loss = loss
        with jax_devices.alone():
            self.metrics = [
                keras.metrics.CategoricalAccuracy(name="accuracy") if metric == "accuracy" else metric
                for metric in metrics
            ]
        self._compiled: Compiled | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Predict, and add ``val_loss`` and the metrics to `logs`."""
        assert logs is not None
        if self._compiled is None:
            self._compiled = Compiled(self.model)
        else:
            self._compiled.refresh()
        own = np.array_split(np.arange(len(self.places)), hosts.count())[hosts.index()]
        parts = [self._compiled(inputs)[0] for inputs, _ in self.feed(self.places[own], self.labels[own])]
        width = self.labels.shape[1]
        probabilities = hosts.gathered(np.concatenate([np.empty((0, width), np.float32), *parts]))
        figures = hosts.of_first(np.array(self._figures(probabilities), np.float32))
        names = ("val_loss", *(f"val_{metric.name}" for metric in self.metrics))
        logs.update(zip(names, map(float, figures), strict=True))

    def _figures(self, probabilities: np.ndarray) -> list[float]:
        total = 0.0
        with jax_devices.alone():
            for metric in self.metrics:
                metric.reset_state()
            for start in range(0, len(probabilities), self.batch):
                given = probabilities[start : start + self.batch]
                wanted = self.labels[start : start + self.batch]
                total += float(self.loss(wanted, given)) * len(given)
                for metric in self.metrics:
                    metric.update_state(wanted, given)
            return [total / len(probabilities), *(float(metric.result()) for metric in self.metrics)]
