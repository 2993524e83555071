"""Where a network can be cut: what is the same for an image in every epoch, and what is trained.

An operation is constant where nothing in it is trained or random and all that leads to it is
constant. The cut is made as late as possible. Operations without weights are run again in every
epoch where that makes what is kept smaller: the padded copy of a feature map, say, is not kept
beside the map.
"""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import xxhash

Tensor = Any
Node = Any  # a call of an operation in the graph


@dataclass(frozen=True)
class Parts:
    """``front``: pixels to what is kept of them; ``tail``: from there to the probabilities.

    Both are made of the layers of one model, so that training the tail trains that model.
    """

    front: keras.Model
    tail: keras.Model


def divide(model: keras.Model) -> Parts | None:
    """Divide a flat functional `model` before the first operation that is trained or random.

    None where no frozen layer stands before it, so that nothing would be gained.
    """
    tensors = cut(model)
    if not tensors:
        return None
    front = keras.Model(model.input, tensors[0] if len(tensors) == 1 else tensors)
    if not any(layer.weights and not layer.trainable for layer in front.layers):
        return None
    return Parts(front, keras.Model(front.output, model.output))


def cut(model: keras.Model) -> list[Tensor]:
    """The tensors that lead from the constant part of `model` to the rest; none where all is constant."""
    made: dict[int, Node] = {}
    crossing: dict[int, Tensor] = {}
    for node in _in_order(model):
        if node.is_input or (_constant(node.operation) and all(id(tensor) in made for tensor in node.input_tensors)):
            made.update((id(tensor), node) for tensor in node.output_tensors)
        else:
            crossing.update((id(tensor), tensor) for tensor in node.input_tensors if id(tensor) in made)
    return list(_cheapest(crossing, made).values())


def bytes_of(tensor: Tensor) -> int:
    """Bytes of one image's `tensor` (batch, ...)."""
    return math.prod(tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize


def fingerprint(front: keras.Model) -> str:
    """Names what `front` computes: its graph, whatever its layers are called, and all its weights."""
    names = {operation.name: f"operation {number}" for number, operation in enumerate(front.operations)}

    def unnamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: unnamed(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [unnamed(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    graph = {key: value for key, value in front.get_config().items() if key != "name"}
    digest = xxhash.xxh3_128(json.dumps(unnamed(graph), sort_keys=True, default=str).encode())
    for variable in front.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).data)
    return digest.hexdigest()


def _in_order(model: keras.Model) -> list[Node]:
    """The calls that make up `model`, inputs first. A layer may belong to other models as well."""
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def _constant(operation: Any) -> bool:
    """Whether the same input gives the same output in every step of a training."""
    if not isinstance(operation, keras.layers.Layer):
        return True
    if isinstance(operation, keras.Model):
        return all(_constant(layer) for layer in operation.layers)
    if operation.trainable_variables or getattr(operation, "activity_regularizer", None) is not None:
        return False
    if any(variable.path.endswith("seed_generator_state") for variable in operation.variables):
        return False
    if isinstance(operation, keras.layers.BatchNormalization):
        return not operation.trainable  # frozen, it runs in inference mode
    return "training" not in inspect.signature(operation.call).parameters


def _cheapest(crossing: dict[int, Tensor], made: dict[int, Node]) -> dict[int, Tensor]:
    """`crossing`, with tensors replaced by what they are made of where that is less and needs no weights."""
    for key in crossing:
        node = made[key]
        if node.is_input or getattr(node.operation, "weights", None):
            continue
        others = {k: tensor for k, tensor in crossing.items() if k != key}
        changed = others | {id(tensor): tensor for tensor in node.input_tensors}
        if sum(map(bytes_of, changed.values())) < sum(map(bytes_of, crossing.values())):
            return _cheapest(changed, made)
    return crossing
