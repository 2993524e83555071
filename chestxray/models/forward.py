"""Runs a model forward: rows of decoded pixels become batches in their order, and batches become outputs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from chestxray.models import interrupts

#: Images computed at once where nobody chose.
BATCH = 32


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


def outputs(
    model: keras.Model, pixels: np.ndarray, places: np.ndarray, batch_size: int = BATCH, block: int = 4096
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the outputs of `model` for the rows `places` of `pixels`, `block` rows at a time, an array for each
    output.

    Features of a whole data set need not fit into memory at once, so they are given in parts.
    """
    for start in range(0, len(places), block):
        with interrupts.deferred() as check:
            between = keras.callbacks.LambdaCallback(on_predict_batch_begin=lambda batch, logs: check())
            some = batches(pixels, places[start : start + block], batch_size)
            given = model.predict(some, callbacks=[between], verbose=0)
        yield tuple(given) if isinstance(given, list) else (given,)


def images_per_second(
    model: keras.Model, pixels: np.ndarray, places: np.ndarray, batch_size: int = BATCH, seconds: float = 0.25
) -> float | None:
    """Images a second that `model`, which has predicted before, predicts; None without `places`.

    Measured on as many of the rows as take about `seconds`.
    """
    taken, spent, number = 0, 0.0, batch_size
    while spent < seconds and len(places):
        chosen = np.resize(places, number)
        start = time.perf_counter()
        model.predict(batches(pixels, chosen, batch_size), verbose=0)
        taken, spent = number, time.perf_counter() - start
        number *= 2
    return round(taken / spent, 2) if spent else None
