"""Runs a model forward: rows of decoded pixels become batches in their order, and batches become outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np

from chestxray.errors import NonFiniteError
from chestxray.models import backend, interrupts, non_finite, replicas, startup

if not backend.on_jax():
    import tensorflow as tf

#: Images computed at once where nobody chose.
BATCH = 32
#: From so many images on, constants in the place of variables pay for the seconds that making them takes.
MANY = 4096
#: Most parameters that become constants: a graph may have no more than 2 GB, and is copied while it is made.
LARGEST = 2**28


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """float32 (rows, classes) from integer labels (rows,)."""
    return np.eye(classes, dtype=np.float32)[labels]


def batches(pixels: np.ndarray, rows: np.ndarray, batch_size: int, devices: int = 1) -> tf.data.Dataset:
    """Batches of float32 images (batch, height, width, 1) of `rows` in their order; the last may be smaller.

    `pixels` uint8 (n, height, width), usually a memory map.
    """
    if backend.on_jax():
        from chestxray.models import jax_forward

        return jax_forward.batches(pixels, rows, batch_size)

    @tf.autograph.experimental.do_not_convert
    def load(places: tf.Tensor) -> tf.Tensor:
        images = tf.numpy_function(lambda chosen: pixels[chosen][..., np.newaxis], [places], tf.uint8)
        images.set_shape((None, *pixels.shape[1:], 1))
        return tf.cast(images, tf.float32)

    places = in_batches(rows.astype(np.int64), batch_size, devices)
    return places.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def labelled(
    pixels: np.ndarray, rows: np.ndarray, labels: np.ndarray, batch_size: int, devices: int = 1
) -> tf.data.Dataset:
    """`batches` with `labels` float32 (len(rows), classes) beside the images, for so many `devices`."""
    if backend.on_jax():
        parts = (slice(start, start + batch_size) for start in range(0, len(rows), batch_size))
        return zip(batches(pixels, rows, batch_size), (labels[part] for part in parts), strict=True)
    targets = in_batches(labels, batch_size, devices)
    return tf.data.Dataset.zip((batches(pixels, rows, batch_size, devices), targets))


def in_batches(values: np.ndarray, batch_size: int, devices: int = 1) -> tf.data.Dataset:
    """Batches of `values` in their order; for several devices those of `replicas.even_parts`."""
    if devices == 1:
        return tf.data.Dataset.from_tensor_slices(values).batch(batch_size)
    limits = [(part.start, part.stop) for part in replicas.even_parts(len(values), batch_size, devices)]
    return tf.data.Dataset.from_tensor_slices(limits).map(lambda limit: tf.constant(values)[limit[0] : limit[1]])


class Forward:
    """A model as one compiled function for inference, traced once for batches of any size.

    ``images`` is about how many images it will be given. For many, and where XLA (``jit``) is off, the weights become
    constants, so that TensorFlow folds batch normalisation into the convolutions before it: that makes MobileNetV2 1.3
    times as fast on a CPU, takes seconds, and changes outputs by float32's rounding. The weights of ``model`` must not
    change between the first call and the last. A model that was made under a strategy of several devices runs on all of
    them.
    """

    def __init__(self, model: keras.Model, images: int = 0, *, jit: bool = False) -> None:
        self.model = model
        self.strategy = replicas.strategy_of(model)
        self.jit = jit and self.strategy is None  # it fails under a strategy (keras issue 18627)
        self.frozen = images >= MANY and not self.jit and self.strategy is None and model.count_params() <= LARGEST

    def __call__(self, images: tf.Tensor) -> tuple[np.ndarray, ...]:
        """An array for each output of float32 `images` (batch, height, width, channels)."""
        given = images if backend.on_jax() else tf.convert_to_tensor(images)
        return tuple(np.asarray(part) for part in self._run(given))

    @cached_property
    def _run(self) -> Callable[[Any], list[Any]]:
        if backend.on_jax():
            from chestxray.models import jax_forward

            return jax_forward.Compiled(self.model)
        signature = [tf.TensorSpec(self.model.inputs[0].shape, tf.float32)]
        given = self.model.input  # a tensor, or a list of one

        def compute(images: tf.Tensor) -> list[tf.Tensor]:
            return tf.nest.flatten(self.model(tf.nest.pack_sequence_as(given, [images]), training=False))

        if self.strategy is not None:
            return replicas.shared(compute, signature[0], self.strategy)
        function = tf.function(compute, input_signature=signature, autograph=False, jit_compile=self.jit)
        # Constants would be put on the first GPU, wherever the variables are.
        with tf.device(self.model.variables[0].value.device if self.model.variables else None):
            return freeze(function) if self.frozen else function


def freeze(function: Any) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """Return `function`, a `tf.function` with an input signature, with the values of its variables as constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    with startup.quiet():
        return convert_variables_to_constants_v2(function.get_concrete_function())


def outputs(
    model: Forward,
    pixels: np.ndarray,
    places: np.ndarray,
    batch_size: int = BATCH,
    block: int = 4096,
    names: Sequence[str] | None = None,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the outputs of `model` for the rows `places` of `pixels`, `block` rows at a time, an array for each
    output. `names` are those of all images of `pixels`, for messages.

    Features of a whole data set need not fit into memory at once, so they are given in parts.

    Raises:
        NonFiniteError: an output holds NaN or infinity; the message names the first layer that does, and an image.
    """
    for start in range(0, len(places), block):
        parts = []
        with interrupts.deferred() as check:
            for images in batches(pixels, places[start : start + block], batch_size):
                check()
                parts.append(model(images))
                if not all(map(_finite, parts[-1])):
                    done = start + sum(len(part[0]) for part in parts[:-1])
                    raise _not_finite(model.model, images, parts[-1], places[done:], names)
        yield tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all())


def _not_finite(
    model: keras.Model,
    images: tf.Tensor,
    given: tuple[np.ndarray, ...],
    places: np.ndarray,
    names: Sequence[str] | None,
) -> NonFiniteError:
    """The error for a batch of which some of the outputs `given` are not finite; ``places[0]`` is its first image's."""
    bad = np.flatnonzero([not all(_finite(part[row]) for part in given) for row in range(len(images))])
    first = non_finite.first_layer(model, tf.gather(images, bad[:1]))
    row = places[bad[0]]
    return NonFiniteError(
        f"The network gives NaN or infinity for {len(bad)} of {len(images)} images of a batch, the first of them "
        f"{f'image {row}' if names is None else names[row]}; the first layer of its graph that is not finite: "
        f"{first or 'none, when it computes layer by layer'}."
    )


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
