"""Batch normalisation in one operation while a network trains.

Keras 3 computes batch normalisation on TensorFlow from its parts: mean, variance, then subtraction,
multiplication and addition, each a pass over the activations, with as many passes for the gradient. TensorFlow's
fused operation does the same in one, forward and backward. It replaces Keras's in the layers of one model while
that model trains; the layers themselves, and so whatever is saved, stay `keras.layers.BatchNormalization`.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from chestxray.models import backend

if not backend.on_jax():
    import tensorflow as tf

#: cuDNN takes no smaller epsilon.
SMALLEST_EPSILON = 1.001e-5


@contextmanager
def fused(model: keras.Model) -> Iterator[None]:
    """Within the block the layers of `model` that are exactly `keras.layers.BatchNormalization`, over the last of
    four axes, normalise in one operation where they train. Outputs, gradients and moving averages are the same up to
    rounding. A function that was traced in the block keeps the fused operation. Under JAX, whose compiler fuses them
    itself, nothing is replaced.
    """
    layers = [] if backend.on_jax() else [layer for layer in model._flatten_layers() if _replaceable(layer)]
    try:
        for layer in layers:
            # On the one layer, and past Keras's own __setattr__, which tracks what it is given.
            object.__setattr__(layer, "call", types.MethodType(_call, layer))
        yield
    finally:
        for layer in layers:
            vars(layer).pop("call", None)


def _replaceable(layer: keras.Layer) -> bool:
    """Whether the fused operation computes what `layer` does."""
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.axis in (-1, 3)
        and not layer.synchronized
        # Older versions of Keras know no renormalisation.
        and not getattr(layer, "renorm", False)
        and layer.epsilon >= SMALLEST_EPSILON
        and layer.variable_dtype == "float32"
    )


def _call(
    layer: keras.layers.BatchNormalization, inputs: Any, training: bool | None = None, mask: Any = None
) -> tf.Tensor:
    """`BatchNormalization.call`, in one operation where `layer` trains on a 4-dimensional tensor without a mask."""
    kinds = (tf.float32, tf.float16, tf.bfloat16)
    if not training or not layer.trainable or mask is not None or inputs.dtype not in kinds or inputs.shape.rank != 4:
        return keras.layers.BatchNormalization.call(layer, inputs, training=training, mask=mask)
    channels = inputs.shape[-1]
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones([channels]),
        offset=tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros([channels]),
        mean=tf.constant([], tf.float32),
        variance=tf.constant([], tf.float32),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The operation gives the unbiased variance (Bessel's correction); Keras averages the biased one.
    count = inputs.shape[:-1].num_elements()
    if count is None:
        count = tf.cast(tf.size(inputs) // channels, tf.float32)
    share = 1.0 - layer.momentum
    layer.moving_mean.assign(layer.moving_mean * layer.momentum + mean * share)
    layer.moving_variance.assign(layer.moving_variance * layer.momentum + variance * (share * (count - 1) / count))
    return outputs
