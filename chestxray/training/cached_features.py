"""Trains on what the frozen part of a network makes of the images, which is computed only once.

Where nothing is augmented this gives the weights that the plain way gives. Where images are
augmented, K views of each are kept (``cached_views``) and epoch e trains on view e mod K: that is
less variety than a new view in every epoch, so that it must be asked for.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from chestxray.models import backend, forward, hosts
from chestxray.recipe import Recipe
from chestxray.training import graph_split, input_pipeline, sampling
from chestxray.training.feature_cache import Arrays, Store, View

if not backend.on_jax():
    import tensorflow as tf

log = logging.getLogger(__name__)

#: Activations of up to this many bytes are trained on from memory, more from the disk.
IN_MEMORY = 3 * 2**29


@dataclass(frozen=True)
class Activations:
    """``tail``: the trained part of the model, made of its layers; what it takes as inputs: ``plain``
    of the images as they are, ``views`` to train on in turn, arrays (rows, ...) whose rows are those
    of the decoded array.
    """

    tail: keras.Model
    plain: Arrays
    views: tuple[Arrays, ...]

    def training(
        self, rows: np.ndarray, labels: np.ndarray, recipe: Recipe, *, first_epoch: int = 0
    ) -> tf.data.Dataset:
        """As `input_pipeline.training`: the same rows in the same order, as inputs of the tail."""
        batch = min(recipe.batch_size, len(rows))
        views = [_at_hand(view, rows, len(self.views)) for view in self.views]
        if backend.on_jax():
            from chestxray.training import jax_pipeline

            return jax_pipeline.kept(views, self._kinds, rows, labels, recipe, first_epoch=first_epoch)
        kinds = [tf.as_dtype(array.dtype) for array in self.plain]
        factors = sampling.factors(labels, recipe)

        @tf.autograph.experimental.do_not_convert
        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            chosen = tf.numpy_function(
                lambda e: input_pipeline.order(recipe.seed, e, len(rows), batch, factors), [epoch], tf.int64
            )
            steps = input_pipeline.steps_per_epoch(len(rows), batch)
            chosen.set_shape((steps, batch))
            return tf.data.Dataset.from_tensor_slices((tf.repeat(epoch, steps), chosen))

        def gather(epoch: np.int64, some: np.ndarray) -> list[np.ndarray]:
            arrays, places = views[int(epoch) % len(views)]
            return [*(array[places[some]] for array in arrays), labels[some]]

        @tf.autograph.experimental.do_not_convert
        def load(epoch: tf.Tensor, some: tf.Tensor) -> tuple:
            *parts, targets = tf.numpy_function(gather, [epoch, some], [*kinds, tf.float32])
            targets.set_shape((batch, labels.shape[1]))
            return self._inputs(parts, batch), targets

        epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
        return epochs.flat_map(order).map(load, num_parallel_calls=tf.data.AUTOTUNE).prefetch(4)

    def labelled(self, rows: np.ndarray, labels: np.ndarray, batch_size: int, devices: int = 1) -> tf.data.Dataset:
        """As `forward.labelled`: batches of `rows` in their order with their `labels`."""
        arrays, places = _at_hand(self.plain, rows, 1)
        if backend.on_jax():
            from chestxray.training import jax_pipeline

            return jax_pipeline.labelled(arrays, self._kinds, places, labels, batch_size)
        kinds = [tf.as_dtype(array.dtype) for array in arrays]

        @tf.autograph.experimental.do_not_convert
        def load(some: tf.Tensor, targets: tf.Tensor) -> tuple:
            parts = tf.numpy_function(lambda chosen: [array[chosen] for array in arrays], [some], kinds)
            return self._inputs(parts, None), targets

        chosen = [forward.in_batches(values, batch_size, devices) for values in (places, labels)]
        dataset = tf.data.Dataset.zip(tuple(chosen))
        return dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(4)

    @property
    def _kinds(self) -> list[str]:
        return [tensor.dtype for tensor in self.tail.inputs]

    def _inputs(self, parts: Sequence[tf.Tensor], batch: int | None) -> tf.Tensor | tuple[tf.Tensor, ...]:
        given = []
        for part, tensor in zip(parts, self.tail.inputs, strict=True):
            part.set_shape((batch, *tensor.shape[1:]))
            given.append(tf.cast(part, tensor.dtype))
        return given[0] if len(given) == 1 else tuple(given)


def keep(
    model: keras.Model,
    pixels: np.ndarray,
    training: np.ndarray,
    validation: np.ndarray,
    recipe: Recipe,
    epochs: int,
    cache: Path,
) -> Activations | None:
    """The activations at the cut of `model` as it is frozen now: of the rows `training` of `pixels`
    in the views that so many `epochs` need, and of the rows `validation` as they are.

    None where nothing is frozen, or where the recipe or the disk rules it out, which the log says.

    Raises:
        OutputError: the cache cannot be written.
    """
    if recipe.cached_views == 0 or not any(layer.weights and not layer.trainable for layer in model.layers):
        return None
    kept = _ruled_out(recipe) or _keep(model, pixels, training, validation, recipe, epochs, cache)
    if isinstance(kept, str):
        log.info("Frozen layers run in every epoch: %s.", kept)
        return None
    return kept


def _ruled_out(recipe: Recipe) -> str:
    if hosts.count() > 1:
        return "each host has its own share of every batch, and none has all that they would give"
    if recipe.mix != "none":
        return f"{recipe.mix} mixes the pixels of images in pairs, anew in every epoch"
    if recipe.augment != "none" and recipe.cached_views is None:
        return f"augmentation ({recipe.augment}) changes them anew; --cached-views K trains on K views of each image"
    return ""


def _keep(
    model: keras.Model,
    pixels: np.ndarray,
    training: np.ndarray,
    validation: np.ndarray,
    recipe: Recipe,
    epochs: int,
    cache: Path,
) -> Activations | str:
    """The activations, or why there are none."""
    parts = graph_split.divide(model)
    if parts is None:
        return "something random or trained stands before them"
    trained = [[id(variable) for variable in one.trainable_variables] for one in (parts.tail, model)]
    if backend.on_jax() and trained[0] != trained[1]:
        # JAX passes an optimiser's state by its order alone.
        return "what is trained has another order in the part after them than in the whole network"
    store = Store(parts.front, pixels, recipe.cache_precision, cache)
    plain = View()
    views = [plain]
    if recipe.augment != "none":
        views = [View(recipe.augment, number) for number in range(min(recipe.cached_views or 1, epochs))]
    if reason := too_large(store, {plain, *views}, recipe.cache_gigabytes, cache):
        return reason
    images = len(views) * len(training) + len(validation)
    try:
        seen = [store.filled(view, training) for view in views]
        kept = Activations(parts.tail, store.filled(plain, validation), tuple(seen))
    except OverflowError:
        return "float16 cannot hold what they give; --cache-precision float32 can"
    log.info(
        "Frozen layers ran once an image%s: %d of %d computed in %.1f s, %.1f kB each.",
        "" if recipe.augment == "none" else f" in each of {len(views)} views",
        store.computed, images, store.seconds, store.row_bytes / 1e3,
    )  # fmt: skip
    return kept


def too_large(store: Store, views: set[View], gigabytes: float, cache: Path) -> str:
    """Why the cache cannot hold those `views` of all images; ``""`` if it can."""
    size = len(store.pixels) * store.row_bytes * len(views) / 1e9
    if size > gigabytes:
        return f"what they give would take {size:.1f} GB of the cache, more than --cache-gigabytes {gigabytes:g}"
    missing = sum(map(store.missing, views)) / 1e9
    free = shutil.disk_usage(cache).free / 1e9
    if missing > free:
        return f"what they give would take {missing:.1f} GB of the cache, whose disk has {free:.1f} GB left"
    return ""


def _at_hand(arrays: Arrays, rows: np.ndarray, views: int) -> tuple[Arrays, np.ndarray]:
    """Arrays and the places of `rows` in them: in memory where all `views` fit, else as they are."""
    size = views * len(rows) * sum(array.itemsize * math.prod(array.shape[1:]) for array in arrays)
    if size > IN_MEMORY:
        return arrays, rows
    return tuple(array[rows] for array in arrays), np.arange(len(rows))
