"""What holds on several devices: equal shares of a training batch, no empty share of a validation batch, sums over all
devices, and forward passes that every device takes its share of.

TensorFlow gives a device a share of each batch. A device whose share is empty fails, or turns batch normalisation to
NaN, and shares of different sizes weigh their images differently: batches are cut so that neither occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import keras

from chestxray.errors import InputError


def equal_batch(batch_size: int, rows: int, devices: int) -> int:
    """Return the images of a training step: at most `batch_size` and `rows`, and as many on each of the `devices`.

    Raises:
        InputError: fewer images than devices.
    """
    batch = min(batch_size, rows)
    if batch < devices:
        raise InputError(
            f"batch_size must be at least the number of devices ({devices}). Received: {batch} images a batch."
        )
    return batch - batch % devices


def even_parts(rows: int, batch_size: int, devices: int) -> list[slice]:
    """Return slices of `rows` images in their order, of about `batch_size` images each, that `devices` can share.

    TensorFlow gives each device an equal number of a slice's images, rounded up, as long as there are any; Keras takes
    the mean of the shares of the first slice, which must be equal. So all slices but the last are multiples of
    `devices`, and the last one leaves no device without an image.

    Raises:
        InputError: there are too few rows for that.
    """
    ends = [size for size in range(rows % devices, rows - devices + 1, devices) if size and _all_share(size, devices)]
    if rows % devices and not ends:
        raise InputError(
            f"{rows} images of validation cannot be shared by {devices} devices. Allowed: a multiple of {devices}, "
            f"at least {devices * devices + 1} images, or fewer devices (--devices)."
        )
    last = min(ends, key=lambda size: abs(size - batch_size)) if rows % devices else 0
    groups = (rows - last) // devices  # of one image a device
    number = -(-groups * devices // batch_size)
    limits = [groups * i // number * devices for i in range(number + 1)]
    parts = [slice(start, stop) for start, stop in pairwise(limits)]
    return [*parts, slice(rows - last, rows)] if last else parts


def _all_share(size: int, devices: int) -> bool:
    """Whether `devices` that each take an equal number of `size` images, rounded up, all get some."""
    return (devices - 1) * -(-size // devices) < size


@contextmanager
def synchronised(model: keras.Model, wanted: bool) -> Iterator[None]:
    """Within the block, where `wanted`, batch normalisation that trains takes mean and variance of the images of all
    devices. What is saved of `model` afterwards knows nothing of it.
    """
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.synchronized for layer in layers]
    try:
        for layer in layers:
            layer.synchronized = wanted or layer.synchronized
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.synchronized = value


def total(tensor: Any) -> Any:
    """Return the sum of `tensor` over the devices of a step; `tensor` itself on one device."""
    context = _replica_context()
    if context is None:
        return tensor
    import tensorflow as tf

    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensor)


def number() -> int:
    """Return the number of devices that share the step in which this is called."""
    context = _replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def _replica_context() -> Any:
    """TensorFlow's context of one of several devices; None elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return None  # JAX sees the whole batch
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def strategy_of(model: keras.Model) -> Any:
    """Return the strategy over several devices that `model` was made under; None where there is none."""
    for variable in model.variables:
        strategy = getattr(variable._value, "distribute_strategy", None)
        return strategy if strategy is not None and strategy.num_replicas_in_sync > 1 else None
    return None


def shared(compute: Callable[[Any], Any], signature: Any, strategy: Any) -> Callable[[Any], Any]:
    """Return `compute`, a function of images (batch, ...) that gives a list or dictionary of tensors (batch, ...), as
    one whose work the devices of `strategy` share.

    `signature`: a `tf.TensorSpec` of the images, of which a batch may have any number.
    """
    import tensorflow as tf

    devices = strategy.num_replicas_in_sync

    def part(images: tf.Tensor) -> Any:
        share = tf.shape(images)[0] // devices
        start = tf.distribute.get_replica_context().replica_id_in_sync_group * share
        with tf.device("CPU:0"):  # where the images are: only its share goes to a device
            own = images[start : start + share]
        return compute(own)

    @tf.function(input_signature=[signature], autograph=False)
    def run(images: tf.Tensor) -> Any:
        count = tf.shape(images)[0]
        # The last image again, so that all shares have the same size.
        padded = tf.concat([images, tf.repeat(images[-1:], -count % devices, axis=0)], axis=0)

        def whole(output: Any) -> tf.Tensor:
            return tf.concat(strategy.experimental_local_results(output), axis=0)[:count]

        return tf.nest.map_structure(whole, strategy.run(part, args=(padded,)))

    return run
