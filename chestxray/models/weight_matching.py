"""Which array of a file belongs to which variable of a model, and whether all of them do."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chestxray.errors import WeightsError
from chestxray.models.weight_files import StoredArray, StoredLayer

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)


def matched(
    layers: list[keras.Layer], backbone: Collection[str], stored: list[StoredLayer], path: Path
) -> list[tuple[Any, np.ndarray]]:
    """Each variable to set, with its value.

    All of the backbone's variables are among them; the head's are where the file has the whole head
    and it fits; those of the layers before the backbone are not.

    Args:
        layers: those of the model, in order.
        backbone: names of the ones that must be filled.
        stored: the layers in the file.
        path: the file, for messages.

    Raises:
        WeightsError: a layer of the backbone is missing or does not fit, the file holds more
            convolutions than the model, or values that are not finite.
    """
    inside = [layer for layer in layers if layer.name in backbone]
    last = max((place for place, layer in enumerate(layers) if layer.name in backbone), default=-1)
    head = layers[last + 1 :]
    before = {layer.name for layer in layers[: last + 1]} - set(backbone)
    pairs = _paired(inside, head, [layer for layer in stored if layer.name not in before])
    for layer in inside:
        _require_fit(layer, pairs.get(layer.name), path)
    _refuse_leftovers(stored, {id(layer) for layer in pairs.values()}, path)
    return _values([*inside, *_fitting_head(head, pairs, path)], pairs, path)


def _paired(inside: list[keras.Layer], head: list[keras.Layer], stored: list[StoredLayer]) -> dict[str, StoredLayer]:
    """The stored layer that belongs to each layer, by the layer's name.

    Names decide only where the file knows every one of the backbone: Keras numbers the layers that
    nobody named, and goes on counting from one model to the next.
    """
    by_name = {layer.name: layer for layer in stored if layer.name}
    wanted = {layer.name for layer in inside}
    if wanted <= set(by_name) or any(layer.kind is None for layer in stored):
        return {layer.name: by_name[layer.name] for layer in [*inside, *head] if layer.name in by_name}
    queues: dict[str | None, list[StoredLayer]] = {}
    for layer in stored:
        queues.setdefault(layer.kind, []).append(layer)
    pairs = {}
    for layer in [*inside, *head]:
        queue = queues.get(snake_case(type(layer).__name__)) or queues.get("")
        if queue:
            pairs[layer.name] = queue.pop(0)
    return pairs


def snake_case(name: str) -> str:
    """The class name as Keras writes it into a file: ``DepthwiseConv2D`` is ``depthwise_conv2d``."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _arrays(layer: keras.Layer, stored: StoredLayer | None) -> list[tuple[Any, StoredArray | None]]:
    """Each variable of `layer` with the array that the file has for it."""
    found: dict[int, StoredArray] = {}
    for key, array in stored.arrays.items() if stored else ():
        variable = _variable(layer, key)
        if variable is not None:
            found[id(variable)] = array
    return [(variable, found.get(id(variable))) for variable in layer.weights]


def _variable(layer: keras.Layer, key: str) -> Any | None:
    """The variable of `layer` that a file calls `key`: ``0``, ``query_dense/vars/0`` or ``kernel``."""
    if key.isdigit():
        return dict(enumerate(layer.weights)).get(int(key))
    *parents, place = key.split("/")
    if parents[-1:] != ["vars"] or not place.isdigit():
        paths = {variable.path.removeprefix(f"{layer.name}/"): variable for variable in layer.weights}
        return paths.get(key)
    owner: Any = layer
    for name in parents[:-1]:
        attributes = getattr(owner, "__dict__", {})
        owner = attributes.get(name, attributes.get(f"_{name}"))
    return dict(enumerate(getattr(owner, "weights", []))).get(int(place))


def _misfit(layer: keras.Layer, stored: StoredLayer | None) -> str:
    """Why `stored` is not `layer`, or an empty string."""
    for variable, array in _arrays(layer, stored):
        if array is None or array.shape != tuple(variable.shape):
            received = f"shape {array.shape}" if array else "nothing" if stored else "no such layer"
            expected = f"{variable.name} of shape {tuple(variable.shape)}"
            return f"layer {layer.name} expects {expected}. Received: {received}."
    return ""


def _require_fit(layer: keras.Layer, stored: StoredLayer | None, path: Path) -> None:
    misfit = _misfit(layer, stored)
    if misfit:
        raise WeightsError(f"The weights in {path} do not fit this architecture: {misfit}")


def _refuse_leftovers(stored: list[StoredLayer], used: set[int], path: Path) -> None:
    """Refuse a file that holds convolutions which the model lacks.

    A file of a deeper network can fit layer by layer. What may be left over is a head: vectors and
    matrices, no filter that sees neighbours.
    """
    for layer in stored:
        sees_neighbours = any(len(array.shape) > 3 and np.prod(array.shape[:-2]) > 1 for array in layer.arrays.values())
        if id(layer) not in used and sees_neighbours:
            shape = next(iter(layer.arrays.values())).shape
            raise WeightsError(
                f"The weights in {path} do not fit this architecture: the model has no place for "
                f"layer {layer.name or layer.kind} of the file. Received: shape {shape}."
            )


def _fitting_head(head: list[keras.Layer], pairs: dict[str, StoredLayer], path: Path) -> list[keras.Layer]:
    """The head's layers if the file has all of them and they fit, otherwise none of them."""
    if not any(layer.name in pairs for layer in head):
        return []
    for layer in head:
        misfit = _misfit(layer, pairs.get(layer.name))
        if misfit:
            logger.warning("Only the backbone is loaded from %s; the head starts anew: %s", path, misfit)
            return []
    return head


def _values(layers: list[keras.Layer], pairs: dict[str, StoredLayer], path: Path) -> list[tuple[Any, np.ndarray]]:
    values = []
    for layer in layers:
        for variable, array in _arrays(layer, pairs[layer.name]):
            assert array is not None  # _misfit saw to it
            value = array.read()
            if not np.all(np.isfinite(value.astype("float32"))):
                raise WeightsError(f"The weights in {path} are not finite: layer {layer.name}, {variable.name}.")
            values.append((variable, value))
    return values
