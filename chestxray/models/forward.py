"""Runs a model forward: rows of decoded pixels become batches in their order, and batches become outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from chestxray.models import interrupts, startup

#: Images computed at once where nobody chose.
BATCH = 32
#: From so many images on, constants in the place of variables pay for the seconds that making them takes.
MANY = 4096
#: Most parameters that become constants: a graph may have no more than 2 GB, and is copied while it is made.
LARGEST = 2**28


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """float32 (rows, classes) from integer labels (rows,)."""
    return np.eye(classes, dtype=np.float32)[labels]


def batches(pixels: np.ndarray, rows: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Batches of float32 images (batch, height, width, 1) of `rows` in their order; the last may be smaller.

    `pixels` uint8 (n, height, width), usually a memory map.
    """

    @tf.autograph.experimental.do_not_convert
    def load(places: tf.Tensor) -> tf.Tensor:
        images = tf.numpy_function(lambda chosen: pixels[chosen][..., np.newaxis], [places], tf.uint8)
        images.set_shape((None, *pixels.shape[1:], 1))
        return tf.cast(images, tf.float32)

    places = tf.data.Dataset.from_tensor_slices(rows.astype(np.int64)).batch(batch_size)
    return places.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def labelled(pixels: np.ndarray, rows: np.ndarray, labels: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """`batches` with `labels` float32 (len(rows), classes) beside the images."""
    targets = tf.data.Dataset.from_tensor_slices(labels).batch(batch_size)
    return tf.data.Dataset.zip((batches(pixels, rows, batch_size), targets))


class Forward:
    """A model as one TensorFlow function for inference, traced once for batches of any size.

    ``images`` is about how many images it will be given. For many, and where XLA (``jit``) is off, the weights become
    constants, so that TensorFlow folds batch normalisation into the convolutions before it: that makes MobileNetV2 1.3
    times as fast on a CPU, takes seconds, and changes outputs by float32's rounding. The weights of ``model`` must not
    change between the first call and the last.
    """

    def __init__(self, model: keras.Model, images: int = 0, *, jit: bool = False) -> None:
        self.model = model
        self.jit = jit
        self.frozen = images >= MANY and not jit and model.count_params() <= LARGEST

    def __call__(self, images: tf.Tensor) -> tuple[np.ndarray, ...]:
        """An array for each output of float32 `images` (batch, height, width, channels)."""
        return tuple(np.asarray(part) for part in self._run(tf.convert_to_tensor(images)))

    @cached_property
    def _run(self) -> Callable[[tf.Tensor], list[tf.Tensor]]:
        signature = [tf.TensorSpec(self.model.inputs[0].shape, tf.float32)]
        given = self.model.input  # a tensor, or a list of one
        function = tf.function(
            lambda images: tf.nest.flatten(self.model(tf.nest.pack_sequence_as(given, [images]), training=False)),
            input_signature=signature,
            autograph=False,
            jit_compile=self.jit,
        )
        # Constants would be put on the first GPU, wherever the variables are.
        with tf.device(self.model.variables[0].value.device if self.model.variables else None):
            return freeze(function) if self.frozen else function


def freeze(function: Any) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """Return `function`, a `tf.function` with an input signature, with the values of its variables as constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    with startup.quiet():
        return convert_variables_to_constants_v2(function.get_concrete_function())


def outputs(
    model: Forward, pixels: np.ndarray, places: np.ndarray, batch_size: int = BATCH, block: int = 4096
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the outputs of `model` for the rows `places` of `pixels`, `block` rows at a time, an array for each
    output.

    Features of a whole data set need not fit into memory at once, so they are given in parts.
    """
    for start in range(0, len(places), block):
        parts = []
        with interrupts.deferred() as check:
            for images in batches(pixels, places[start : start + block], batch_size):
                check()
                parts.append(model(images))
        yield tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def images_per_second(
    model: Forward, pixels: np.ndarray, places: np.ndarray, batch_size: int = BATCH, seconds: float = 0.25
) -> float | None:
    """Images a second that `model`, which has been called before, computes; None without `places`.

    Measured on as many of the rows as take about `seconds`.
    """
    taken, spent, number = 0, 0.0, batch_size
    while spent < seconds and len(places):
        chosen = np.resize(places, number)
        start = time.perf_counter()
        for images in batches(pixels, chosen, batch_size):
            model(images)
        taken, spent = number, time.perf_counter() - start
        number *= 2
    return round(taken / spent, 2) if spent else None
