"""Keras's optimisers with one TensorFlow operation for each variable's update, while a network trains.

Keras 3 writes an update as a dozen operations for every variable and evaluates the learning-rate schedule anew for
each of them: for InceptionV3 under AdamW that is more than half of the graph of a training step. TensorFlow has each
update as one operation. The optimisers stay Keras's own: their states do not differ, and whatever is saved knows
nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from chestxray.models import backend

if not backend.on_jax():
    import tensorflow as tf


@contextmanager
def fused(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Within the block `optimizer`, or the one within a `LossScaleOptimizer`, updates a variable by one operation
    where it is Adam, AdamW or SGD with momentum; others are left as they are. Results are the same up to rounding. A
    function that was traced in the block keeps the fused operations. Under JAX, whose compiler fuses them itself,
    nothing is replaced.
    """
    if backend.on_jax():
        yield
        return
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    update: _Update | None = None
    if type(inner) in (keras.optimizers.Adam, keras.optimizers.AdamW) and not inner.amsgrad:
        update = _AdamUpdate(inner)
    elif type(inner) is keras.optimizers.SGD and inner.momentum:
        update = _MomentumUpdate(inner)
    names = ("_apply_weight_decay", "_distributed_tf_update_step", "update_step") if update else ()
    try:
        for name in names:
            # On the one optimiser, and past Keras's own __setattr__, which tracks what it is given.
            object.__setattr__(inner, name, getattr(update, name))
        yield
    finally:
        for name in names:
            vars(inner).pop(name, None)


class _Update:
    """Takes the place of three methods of a Keras optimiser, under their names."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.kind = type(optimizer)
        #: What all variables of a step share, by device.
        self.shared: dict[str, tuple[tf.Tensor, ...]] = {}

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: `update_step` decays a variable right before it updates it."""

    def _distributed_tf_update_step(self, distribution: Any, grads_and_vars: Any, learning_rate: Any) -> None:
        self.shared = {}
        self.kind._distributed_tf_update_step(self.optimizer, distribution, grads_and_vars, learning_rate)
        self.shared = {}

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay and update `variable`, a `tf.Variable` of one device, by its `gradient`."""
        optimizer = self.optimizer
        if variable.device not in self.shared:
            self.shared[variable.device] = self.values(tf.cast(learning_rate, tf.float32))
        rate, *values = self.shared[variable.device]
        if optimizer.weight_decay is not None and optimizer._use_weight_decay(variable):
            variable.assign_sub(variable * tf.cast(rate * optimizer.weight_decay, variable.dtype))
        if isinstance(gradient, tf.IndexedSlices) or variable.dtype != tf.float32:
            self.kind.update_step(optimizer, gradient, variable, learning_rate)
        else:
            self.update(variable, tf.cast(gradient, tf.float32), rate, *values)

    def values(self, rate: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The learning rate, and what else is the same for all variables."""
        raise NotImplementedError

    def update(self, variable: Any, gradient: tf.Tensor, rate: tf.Tensor, *values: tf.Tensor) -> None:
        """Update `variable` and its state in one operation."""
        raise NotImplementedError


class _AdamUpdate(_Update):
    def values(self, rate: tf.Tensor) -> tuple[tf.Tensor, ...]:
        step = tf.cast(self.optimizer.iterations + 1, tf.float32)
        return rate, tf.pow(self.optimizer.beta_1, step), tf.pow(self.optimizer.beta_2, step)

    def update(self, variable: Any, gradient: tf.Tensor, rate: tf.Tensor, *values: tf.Tensor) -> None:
        place = self.optimizer._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self.optimizer._momentums[place].value.handle,
            v=self.optimizer._velocities[place].value.handle,
            beta1_power=values[0],
            beta2_power=values[1],
            lr=rate,
            beta1=self.optimizer.beta_1,
            beta2=self.optimizer.beta_2,
            epsilon=self.optimizer.epsilon,
            grad=gradient,
        )


class _MomentumUpdate(_Update):
    def values(self, rate: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (rate,)

    def update(self, variable: Any, gradient: tf.Tensor, rate: tf.Tensor, *values: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.optimizer.momentums[self.optimizer._get_variable_index(variable)].value.handle,
            lr=rate,
            grad=gradient,
            momentum=self.optimizer.momentum,
            use_nesterov=self.optimizer.nesterov,
        )
