"""The gradient of a logit with respect to a feature map, written in forward operations.

Grad-CAM needs that gradient, and ONNX and LiteRT have no automatic differentiation. The layers from the
feature map to the logits are therefore traversed backwards here, each with its vector-Jacobian product.

Grad-CAM takes the mean of the gradient over positions. A pooling layer distributes the gradient of each output
over that output's window; the sum over all positions does not change. Where only pooling layers are left, only
these sums are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

Tensor = Any

_SAME = (layers.Identity, layers.Dropout, layers.SpatialDropout2D)
_POOLING = (layers.MaxPooling2D, layers.AveragePooling2D, layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)


class NoClosedForm(Exception):
    """A layer between the feature map and the logits has no closed-form gradient here; the message names it."""


@dataclass(frozen=True)
class _Step:
    """A layer with its symbolic input and output tensors."""

    layer: Any
    before: Tensor
    after: Tensor


@dataclass(frozen=True)
class HeadGradient:
    """The steps from the logits (batch, classes) back to a feature map (batch, height, width, channels)."""

    steps: tuple[_Step, ...]
    feature_map: Tensor

    @classmethod
    def between(cls, layer: Any, logits: Tensor) -> HeadGradient:
        """Return the steps from `logits` back to the output of `layer`.

        Raises:
            NoClosedForm: it leads through a branch or a layer that is not known here.
        """
        steps: list[_Step] = []
        tensor = logits
        while (operation := tensor._keras_history.operation) is not layer:
            inputs = operation._inbound_nodes[tensor._keras_history.node_index].input_tensors
            if len(inputs) != 1:
                raise NoClosedForm(f"layer {operation.name!r} does not have exactly one input")
            steps.append(_Step(operation, inputs[0], tensor))
            tensor = inputs[0]
        found = cls(tuple(steps), tensor)
        for number, step in enumerate(found.steps):
            # From `_sums_from` on sums are enough; before it every place has a gradient of its own.
            if number < found._sums_from and (reason := _unknown(step)) is not None:
                raise NoClosedForm(f"layer {step.layer.name!r} ({type(step.layer).__name__}{reason})")
        return found

    @property
    def needs(self) -> list[Tensor]:
        """The symbolic tensors whose values `weights` needs, in order."""
        return [tensor for step in self.steps[: self._sums_from] for tensor in (step.before, step.after)]

    def weights(self, values: Sequence[Tensor], chosen: Tensor) -> Tensor:
        """Return Grad-CAM's weights, float32 (batch, channels): the mean over positions of the gradient of the
        logit that `chosen` (batch, classes), one-hot, picks. `values` are those of `needs`.
        """
        gradient = ops.cast(chosen, "float32")
        floats = [ops.cast(value, "float32") for value in values]
        for number, step in enumerate(self.steps[: self._sums_from]):
            before, after = floats[2 * number : 2 * number + 2]
            gradient = _BACKWARD[type(step.layer)](step.layer, before, after, gradient)
        if len(gradient.shape) == 4:
            gradient = ops.sum(gradient, axis=(1, 2))
        height, width = self.feature_map.shape[1:3]
        return gradient / (height * width)

    @property
    def _sums_from(self) -> int:
        """Return the number of the first step, counted from the logits, after which only pooling layers are left."""
        number = len(self.steps)
        while number and _keeps_sums(self.steps[number - 1].layer):
            number -= 1
        return number


def _keeps_sums(layer: Any) -> bool:
    # The very class: what is derived from it may compute anything.
    return type(layer) in (*_SAME, *_POOLING) and getattr(layer, "data_format", "channels_last") == "channels_last"


def _dense(layer: Any, before: Tensor, after: Tensor, gradient: Tensor) -> Tensor:
    gradient = gradient * _slope(layer.activation, after)
    # Not `gradient @ kernel.T`: converters fold that into a second copy of the kernel in the file.
    return ops.transpose(ops.matmul(ops.convert_to_tensor(layer.kernel), ops.transpose(gradient)))


def _activation(layer: Any, before: Tensor, after: Tensor, gradient: Tensor) -> Tensor:
    return gradient * _slope(layer.activation, after)


def _relu(layer: Any, before: Tensor, after: Tensor, gradient: Tensor) -> Tensor:
    return gradient * _inside(after, layer.max_value)


def _batch_norm(layer: Any, before: Tensor, after: Tensor, gradient: Tensor) -> Tensor:
    factor = ops.rsqrt(ops.convert_to_tensor(layer.moving_variance) + layer.epsilon)
    return gradient * (factor * ops.convert_to_tensor(layer.gamma) if layer.scale else factor)


def _reshape(layer: Any, before: Tensor, after: Tensor, gradient: Tensor) -> Tensor:
    return ops.reshape(gradient, (-1, *before.shape[1:]))


def _same(layer: Any, before: Tensor, after: Tensor, gradient: Tensor) -> Tensor:
    return gradient


def _global_average(layer: Any, before: Tensor, after: Tensor, gradient: Tensor) -> Tensor:
    height, width = before.shape[1:3]
    return ops.reshape(gradient / (height * width), (-1, 1, 1, before.shape[3])) * ops.ones_like(before)


_BACKWARD: dict[type, Callable[[Any, Tensor, Tensor, Tensor], Tensor]] = {
    layers.Dense: _dense,
    layers.Activation: _activation,
    layers.ReLU: _relu,
    layers.BatchNormalization: _batch_norm,
    layers.Flatten: _reshape,
    layers.GlobalAveragePooling2D: _global_average,
} | dict.fromkeys(_SAME, _same)


#: Slopes of activations, from what the activation gave.
_SLOPES: dict[Any, Callable[[Tensor], Tensor]] = {
    keras.activations.linear: ops.ones_like,
    keras.activations.relu: lambda after: _inside(after, None),
    keras.activations.relu6: lambda after: _inside(after, 6.0),
    keras.activations.tanh: lambda after: 1 - after**2,
    keras.activations.sigmoid: lambda after: after * (1 - after),
}


def _slope(activation: Any, after: Tensor) -> Tensor:
    return _SLOPES[activation](after)


def _inside(after: Tensor, top: float | None) -> Tensor:
    """Return 1 where a ReLU is linear, above 0 and below its `top` if it has one; else 0."""
    inside = ops.cast(after > 0, "float32")
    return inside if top is None else inside * ops.cast(after < top, "float32")


def _unknown(step: _Step) -> str | None:
    """Return why the gradient of this step is not supported, as text after the layer's class; None where it is."""
    layer = step.layer
    if type(layer) not in _BACKWARD:
        return ""
    if isinstance(layer, layers.Dense | layers.Activation) and layer.activation not in _SLOPES:
        return f", activation {getattr(layer.activation, '__name__', layer.activation)}"
    if isinstance(layer, layers.Dense) and len(step.before.shape) != 2:
        return f", of rank {len(step.before.shape)}"
    if isinstance(layer, layers.ReLU) and (layer.negative_slope or layer.threshold):
        return ", leaky or with a threshold"
    if isinstance(layer, layers.BatchNormalization) and layer.axis not in (-1, len(step.before.shape) - 1):
        return f", axis {layer.axis}"
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return ", channels first"
    return None
