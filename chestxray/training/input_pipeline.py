"""Rows -> tf.data: shuffled, augmented batches for training."""

from __future__ import annotations

import numpy as np

from chestxray.models import backend
from chestxray.recipe import Recipe
from chestxray.training import sampling
from chestxray.training.augmentation import augment, draws_of, mix, policy_of

if not backend.on_jax():
    import tensorflow as tf


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Full batches in an epoch: what is left over waits for another epoch's order."""
    return max(1, rows // batch_size)


def order(seed: int, epoch: int, rows: int, batch: int, factors: np.ndarray | None = None) -> np.ndarray:
    """Places of an epoch's images among its `rows`, int64 (steps, batch): a function of seed and epoch, and of the
    `factors` of `sampling`.
    """
    steps = steps_per_epoch(rows, batch)
    generator = np.random.default_rng([seed, int(epoch)])
    if factors is None:
        chosen = generator.permutation(rows)[: steps * batch]
    else:
        chosen = sampling.drawn(factors, steps * batch, generator)
    return chosen.reshape(steps, batch)


def training(
    pixels: np.ndarray, rows: np.ndarray, labels: np.ndarray, recipe: Recipe, *, first_epoch: int = 0
) -> tf.data.Dataset:
    """Endless (images, labels) batches from `first_epoch` on, all of the same size.

    `pixels` uint8 (n, height, width), usually a memory map; `rows` its rows to train on; `labels`
    float32 (len(rows), classes). Order and augmentation of an epoch are functions of the seed and
    the epoch's number alone. The last, ragged batch of an epoch is dropped: under several replicas
    a batch smaller than their number turns batch normalisation to NaN.
    """
    if backend.on_jax():
        from chestxray.training import jax_pipeline

        return jax_pipeline.training(pixels, rows, labels, recipe, first_epoch=first_epoch)
    batch = min(recipe.batch_size, len(rows))
    steps = steps_per_epoch(len(rows), batch)
    shape, classes = pixels.shape[1:], labels.shape[1]
    factors = sampling.factors(labels, recipe)

    def gather(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return pixels[rows[places]][..., np.newaxis], labels[places]

    @tf.autograph.experimental.do_not_convert
    def epoch_of_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        places = tf.numpy_function(lambda e: order(recipe.seed, e, len(rows), batch, factors), [epoch], tf.int64)
        places.set_shape((steps, batch))
        numbers = epoch * steps + tf.range(steps, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((numbers, places))

    @tf.autograph.experimental.do_not_convert
    def load(number: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, targets = tf.numpy_function(gather, [places], (tf.uint8, tf.float32))
        images.set_shape((batch, *shape, 1))
        targets.set_shape((batch, classes))
        return changed(tf.cast(images, tf.float32), targets, number, recipe)

    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
    return epochs.flat_map(epoch_of_batches).map(load, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def changed(images: tf.Tensor, labels: tf.Tensor, number: tf.Tensor, recipe: Recipe) -> tuple[tf.Tensor, tf.Tensor]:
    """Augment and mix the batch of that `number` as the recipe says: a function of seed and number."""
    policy = policy_of(recipe.augment)
    seed = tf.stack([tf.cast(recipe.seed, tf.int64), number])
    draws = tf.random.stateless_uniform((images.shape[0], draws_of(policy)), seed)
    noise = tf.random.stateless_normal(tf.shape(images), seed) if policy.noise else None
    images = augment(images, draws, policy, noise)
    # A stream of its own: the sign bit keeps it apart from the one above.
    return mix(images, labels, tf.random.stateless_uniform((4,), -seed - 1), recipe.mix)
