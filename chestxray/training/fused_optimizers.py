"""The optimisers of Keras with one TensorFlow operation for each variable's update.

Keras 3 writes an update as a dozen operations for every variable and evaluates the learning-rate schedule anew for
each of them: for InceptionV3 under AdamW that is more than half of the graph of a training step. TensorFlow has each
update as one operation. States, their order and their names are Keras's, so that checkpoints do not differ.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class _Fused:
    """Replaces the update of one variable; whatever the fused operation does not take is left to Keras."""

    _shared: dict[str, tuple[tf.Tensor, ...]]

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: `update_step` decays a variable right before it updates it."""

    def _distributed_tf_update_step(self, distribution: Any, grads_and_vars: Any, learning_rate: Any) -> None:
        # What all variables share in this step, by device. Past Keras's own __setattr__, which tracks what it is given.
        object.__setattr__(self, "_shared", {})
        super()._distributed_tf_update_step(distribution, grads_and_vars, learning_rate)  # type: ignore[misc]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update `variable` by its `gradient`; both are those of one device."""
        device = variable.device
        if device not in self._shared:
            self._shared[device] = self._values(tf.cast(learning_rate, tf.float32))
        rate, *values = self._shared[device]
        decay = self.weight_decay is not None and self._use_weight_decay(variable)  # type: ignore[attr-defined]
        if decay:
            variable.assign_sub(variable * tf.cast(rate * self.weight_decay, variable.dtype))  # type: ignore[attr-defined]
        if isinstance(gradient, tf.IndexedSlices) or variable.dtype != tf.float32:
            super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]
            return
        self._update(variable, tf.cast(gradient, tf.float32), rate, *values)

    def _values(self, rate: tf.Tensor) -> tuple[tf.Tensor, ...]:
        raise NotImplementedError

    def _update(self, variable: Any, gradient: tf.Tensor, rate: tf.Tensor, *values: tf.Tensor) -> None:
        raise NotImplementedError


class _FusedAdam(_Fused):
    def _values(self, rate: tf.Tensor) -> tuple[tf.Tensor, ...]:
        step = tf.cast(self.iterations + 1, tf.float32)  # type: ignore[attr-defined]
        return rate, tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)  # type: ignore[attr-defined]

    def _update(self, variable: Any, gradient: tf.Tensor, rate: tf.Tensor, *powers: tf.Tensor) -> None:
        place = self._get_variable_index(variable)  # type: ignore[attr-defined]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,  # type: ignore[attr-defined]
            v=self._velocities[place].value.handle,  # type: ignore[attr-defined]
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=rate,
            beta1=self.beta_1,  # type: ignore[attr-defined]
            beta2=self.beta_2,  # type: ignore[attr-defined]
            epsilon=self.epsilon,  # type: ignore[attr-defined]
            grad=gradient,
        )


class Adam(_FusedAdam, keras.optimizers.Adam):
    """`keras.optimizers.Adam`, fused."""


class AdamW(_FusedAdam, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, fused."""


class SGD(_Fused, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with momentum, fused."""

    def _values(self, rate: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (rate,)

    def _update(self, variable: Any, gradient: tf.Tensor, rate: tf.Tensor, *values: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )
