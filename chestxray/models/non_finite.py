"""Finds where a network's numbers stop being finite, after it was seen that they have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import ops

Tensor = Any


class _Found(Exception):
    """Ends the pass at the first layer; the message names it."""


def first_layer(model: keras.Model, inputs: Any, *, training: bool = False) -> str:
    """Return what the first layer of `model`, in the order of its graph, is whose weights or whose output for the
    batch `inputs` hold NaN or infinity, in words; ``""`` where all are finite.

    This is one forward pass, layer by layer, as in training where `training` is True (batch normalisation then updates
    its averages).

    >>> pixels = keras.Input((2,))
    >>> model = keras.Model(pixels, keras.layers.Dense(1, name="only", kernel_initializer="ones")(pixels))
    >>> _ = model.get_layer("only").bias.assign([float("nan")])
    >>> first_layer(model, ops.ones((4, 2)))
    'the weights of layer only (bias)'
    """

    def checked(operation: Any) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if weights := _weights_of(operation):
                raise _Found(weights)
            if training and "training" in inspect.signature(operation.call).parameters:
                named["training"] = True
            results = operation(*given, **named)
            for result in keras.tree.flatten(results):
                if not finite(result):
                    kind = keras.backend.standardize_dtype(result.dtype)
                    raise _Found(f"the output of layer {operation.name} (in {kind})")
            return results

        return call

    flat = [ops.convert_to_tensor(part) for part in keras.tree.flatten(inputs)]
    if not all(map(finite, flat)):
        return "what it is given"
    try:
        model._run_through_graph(flat, operation_fn=checked)
    except _Found as found:
        return str(found)
    return ""


def first_weights(model: keras.Model) -> str:
    """Return the first layer of `model`, in the order of its graph, whose weights hold NaN or infinity, in words;
    ``""`` where all are finite.
    """
    return next(filter(None, map(_weights_of, model.layers)), "")


def first_of(model: keras.Model, batches: Iterable[Any], *, training: bool = False) -> str:
    """Return `first_layer` for the first of the `batches` for which something is not finite; ``""`` for none."""
    return next(filter(None, (first_layer(model, batch, training=training) for batch in batches)), "")


def finite(values: Tensor) -> bool:
    """Whether all numbers of a tensor, variable or array are; whole numbers always are."""
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(values.dtype)):
        return True
    return bool(ops.convert_to_numpy(ops.all(ops.isfinite(values))))


def _weights_of(operation: Any) -> str:
    for variable in getattr(operation, "variables", ()):
        if not finite(variable):
            return f"the weights of layer {operation.name} ({variable.name})"
    return ""
