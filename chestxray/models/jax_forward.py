"""Runs a model forward, and feeds batches, where Keras computes with JAX: without TensorFlow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import keras
import numpy as np

from chestxray.models import jax_devices

Item = TypeVar("Item")
Made = TypeVar("Made")
#: Batches that are made at once, and that wait for the device.
THREADS, AHEAD = 4, 6


def ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """Yield ``make(item)`` of each of `items` in their order, made in threads while earlier ones are used."""
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="chestxray-batches")
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def batches(pixels: np.ndarray, rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """As `chestxray.models.forward.batches`."""

    def load(start: int) -> np.ndarray:
        return pixels[rows[start : start + batch_size]][..., np.newaxis].astype(np.float32)

    return ahead(load, range(0, len(rows), batch_size))


class Compiled:
    """``Compiled(model)(images)`` gives the outputs of `model` for inference, compiled once: the images of smaller
    batches than the largest so far are padded, and shared by the devices of this host.

    It computes with the weights that `model` had when it was made, or at the last call of `refresh`.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        mesh = jax.sharding.Mesh(np.array(jax_devices.local()), ("batch",))
        self.shared = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
        self.whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self.rows = 0
        self._run = jax.jit(self._outputs)
        self.refresh()

    def refresh(self) -> None:
        """Take the weights that the model has now."""
        self.weights = [
            [jax.device_put(jax_devices.value(variable), self.whole) for variable in variables]
            for variables in (self.model.trainable_variables, self.model.non_trainable_variables)
        ]

    def _outputs(self, trainable: list[Any], fixed: list[Any], inputs: Any) -> list[Any]:
        outputs, _ = self.model.stateless_call(trainable, fixed, inputs, training=False)
        return jax.tree.leaves(outputs)

    def __call__(self, inputs: Any) -> list[np.ndarray]:
        """Return an array (batch, ...) for each output, from an array of images or a tuple of the model's inputs."""
        parts = inputs if isinstance(inputs, tuple) else (inputs,)
        rows, devices = len(parts[0]), len(jax_devices.local())
        self.rows = max(self.rows, -(-rows // devices) * devices)
        padded = [
            np.concatenate([part, np.zeros((self.rows - rows, *part.shape[1:]), part.dtype)])
            if rows < self.rows
            else part
            for part in map(np.asarray, parts)
        ]
        given = [jax.device_put(part, self.shared) for part in padded]
        made = self._run(*self.weights, given if isinstance(inputs, tuple) else given[0])
        return [np.asarray(part)[:rows] for part in made]
