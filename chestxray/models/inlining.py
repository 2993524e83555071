"""A whole Keras model as layers of the graph that a plugin's `build` makes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from chestxray.errors import PluginError
from chestxray.models.weight_matching import snake_case

if TYPE_CHECKING:
    import keras  # imported where it is used: the module of a plugin imports this one, and must be light

Tensor = Any
Operation = Any  # a layer, or a call of keras.ops


def inline(model: keras.Model, tensor: Tensor, *, prefix: str = "") -> Tensor:
    """Apply copies of the model's layers to `tensor`, and return the model's output of it.

    The result is one flat graph: functional and Sequential models inside the model are opened up, each
    layer is cloned from its configuration and has one node, and its weights and ``trainable`` are copied.
    The model itself is left as it is.

    Layers keep the names that their author gave them. A layer that Keras named is called
    ``inlined_<class>_<number>``, counted from 0 within this model, so that its name is the same in every
    build; a name that chestxray uses for its own layers gets ``inlined_`` before it.

    A layer without weights that is applied several times becomes several layers. One with weights is
    refused: copies would share their weights no longer, and be trained apart.

    >>> def build(scaled, weights):
    ...     backbone = keras.applications.ResNet50(include_top=False, weights=weights, input_shape=scaled.shape[1:])
    ...     return inline(backbone, scaled)

    Args:
        model: a functional or Sequential model (keras.applications, keras-hub, or of one's own).
        tensor: in place of the model's input: (batch, height, width, channels) for most; for a model of
            several inputs the same structure of tensors.
        prefix: put before the name of every layer, where two models are inlined in one build.

    Raises:
        PluginError: the model is neither functional nor Sequential, does not take `tensor`, shares a layer
            that has weights, or holds a Lambda or a subclassed model.
    """
    import keras

    graph = _graph(model)
    if graph is None:
        raise PluginError(
            "inline takes a functional keras.Model, or a Sequential one with an Input. "
            f"Received: {type(model).__name__}."
        )
    given = keras.tree.flatten(tensor)
    _require_input(graph, given)
    operations = list(_operations(graph))
    _require_clonable(operations)
    return _Inlining(_names(operations, prefix), _names_before(given)).run(graph, tensor)


class _Inlining:
    """Clones of operations, by the name that each is to have; ``taken`` are those that are in use."""

    def __init__(self, names: dict[int, str], taken: set[str]) -> None:
        self._names = names
        self._taken = taken

    def run(self, graph: Operation, tensors: Tensor) -> Tensor:
        """Apply clones of the operations of `graph` to `tensors`."""
        return graph._run_through_graph(tensors, operation_fn=self._applied)

    def _applied(self, operation: Operation) -> Callable[..., Any]:
        if (graph := _graph(operation)) is None:
            return partial(self._clone, operation)

        # With its own ``training`` the model was called in vain: Keras lets that of the outer model decide.
        def nested(tensors: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
            if mask is not None:
                raise PluginError(f"inline cannot open up the model {operation.name}: it is called with a mask.")
            return self.run(graph, tensors)

        return nested

    def _clone(self, operation: Operation, *arguments: Any, **options: Any) -> Any:
        config = operation.get_config()
        if "name" in config:
            config["name"] = self._free(self._names[id(operation)])
        clone = type(operation).from_config(config)
        output = clone(*arguments, **options)
        if getattr(operation, "weights", None):
            clone.set_weights(operation.get_weights())
            if hasattr(clone, "finalize_state"):  # as Normalization, which keeps constants of its variables
                clone.finalize_state()
        return output

    def _free(self, name: str) -> str:
        number, free = 0, name
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free


def _graph(model: Operation) -> Operation | None:
    """The functional model that `model` is, or a Sequential one holds; None: it is neither."""
    import keras

    if isinstance(model, keras.Sequential):
        model = model._functional  # None until the model knows the shape of its input
    # A class derived from it, as keras-hub's, may still compute something else.
    call = getattr(type(model), "call", None)
    return model if getattr(call, "__qualname__", "") == "Functional.call" else None


def _operations(graph: Operation) -> Iterator[Operation]:
    """The operations in `graph`, in the order of computing, once for each time that they are applied."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            inside = _graph(node.operation)
            yield from [node.operation] if inside is None else _operations(inside)


def _names_before(tensors: list[Tensor]) -> set[str]:
    """The names of the operations that the tensors come from."""
    found, left = {}, list(tensors)
    while left:
        operation, node, _ = left.pop()._keras_history
        if (id(operation), node) not in found:
            found[id(operation), node] = operation.name
            left += operation._inbound_nodes[node].input_tensors
    return set(found.values())


def _require_input(graph: Operation, given: list[Tensor]) -> None:
    wanted = [tuple(one.shape) for one in graph.inputs]
    received = [tuple(one.shape) for one in given]
    fits = len(wanted) == len(received) and all(
        len(one) == len(other) and all(a == b for a, b in zip(one, other, strict=True) if a is not None)
        for one, other in zip(wanted, received, strict=True)
    )
    if not fits:
        raise PluginError(
            f"inline: the model {graph.name} takes {_listed(wanted)}. Received: {_listed(received)}. "
            "Make it with input_shape=tensor.shape[1:], or set fixed_size=True and its image_size."
        )


def _listed(shapes: list[tuple[int | None, ...]]) -> str:
    return " and ".join(
        "("
        + ", ".join(("batch" if not place else "any") if n is None else str(n) for place, n in enumerate(shape))
        + ")"
        for shape in shapes
    )


def _require_clonable(operations: list[Operation]) -> None:
    import keras

    times = Counter(id(operation) for operation in operations)
    for operation in operations:
        if isinstance(operation, keras.Model):
            kind = type(operation).__name__
            raise PluginError(f"inline cannot open up the model {operation.name} ({kind}): it is not functional.")
        if isinstance(operation, keras.layers.Lambda):
            raise PluginError(f"inline cannot copy the layer {operation.name}: a Lambda is code. Use keras.ops.")
        if times[id(operation)] > 1 and getattr(operation, "weights", None):
            raise PluginError(
                f"inline cannot copy the layer {operation.name}: it is applied {times[id(operation)]} times with the "
                "same weights, and copies would be trained apart. Write the network in build itself."
            )


def _names(operations: list[Operation], prefix: str) -> dict[int, str]:
    """The name that each operation is to have, by its id."""
    from chestxray.models.assembly import RESERVED

    numbers: dict[str, set[int]] = {}
    automatic: dict[int, tuple[str, int]] = {}
    for operation in operations:
        kind = snake_case(type(operation).__name__)
        if found := re.fullmatch(rf"{re.escape(kind)}(?:_(\d+))?", operation.name):
            automatic[id(operation)] = kind, int(found[1] or 0)
            numbers.setdefault(kind, set()).add(int(found[1] or 0))
    ranks = {(kind, n): rank for kind, some in numbers.items() for rank, n in enumerate(sorted(some))}
    names = {}
    for operation in operations:
        if key := automatic.get(id(operation)):
            names[id(operation)] = f"{prefix}inlined_{key[0]}_{ranks[key]}"
        else:
            name = f"{prefix}{operation.name}"
            names[id(operation)] = f"inlined_{name}" if name in RESERVED else name
    return names
