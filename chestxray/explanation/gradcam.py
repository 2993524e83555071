"""Arithmetic of Grad-CAM maps (Selvaraju 2017): evidence from weighted features, and its enlargement."""

from __future__ import annotations

import logging
from typing import Any

import keras
import numpy as np
from keras import ops

from chestxray.errors import PluginError, nearest

Tensor = Any
log = logging.getLogger("chestxray")

#: Layers that move, drop or reorder cells, so that a cell does not lie where its share of the image lies: a map of one
#: would be displaced.
_DISPLACED = (
    keras.layers.ZeroPadding2D, keras.layers.Cropping2D, keras.layers.CenterCrop, keras.layers.RandomCrop,
    keras.layers.Reshape, keras.layers.Permute,
)  # fmt: skip
#: Most layers that a message names.
_NAMED = 4


def check_layer(model: keras.Model, layer: str) -> None:
    """Raise `PluginError` where `layer` is not a feature map of `model`."""
    maps = {item.name: item for item in model.layers if _is_map(item)}
    if layer not in maps:
        # The last ones are those that maps are made at; a layer of one cell has the same map everywhere.
        best = [name for name, item in maps.items() if _lies_evenly(item)] or list(maps)
        some = f", such as {', '.join(best[: -_NAMED - 1 : -1])}" if best else " (this network has none)"
        raise PluginError(
            f"layer (in a plugin: cam_layer) must name a layer with a rank-4 output{some}.{nearest(layer, maps)} "
            f"Received: {layer!r}."
        )


def with_places(model: keras.Model, layer: str) -> str:
    """Return `layer`, or the last layer before it whose maps have places, where its own are a single cell.

    A network that divides each side by 32 has one cell left of an image of 32 pixels: its map is the same everywhere.
    The layer returned instead has two rows and columns or more, which lie evenly over the image, and everything that
    reaches `layer` passes through it: a layer of one branch would tell where that branch looks. Where there is none,
    `layer` is returned.

    Raises:
        PluginError: `layer` is not a feature map of `model`.
    """
    check_layer(model, layer)
    if _has_places(wanted := model.get_layer(layer)):
        return layer
    places = {id(operation): place for place, operation in enumerate(model.operations)}

    def inputs(operation: Any) -> list[Any]:
        given = [tensor for node in operation._inbound_nodes for tensor in node.input_tensors]
        found = [tensor._keras_history.operation for tensor in given]
        return [one for one in found if id(one) in places]  # a layer may have been called in another model too

    before, found = [wanted], {id(wanted)}
    for operation in before:  # grows
        for one in inputs(operation):
            if id(one) not in found:
                found.add(id(one))
                before.append(one)
    before.sort(key=lambda operation: places[id(operation)])
    weighted = [place for place, operation in enumerate(before) if getattr(operation, "weights", None)]
    # The earliest input of what was passed: where it is not before an operation, nothing goes around that one.
    earliest = places[id(wanted)]
    for operation in reversed(before[weighted[0] :] if weighted else []):
        if places[id(operation)] <= earliest and _lies_evenly(operation):
            log.info(
                "Heat maps are of the layer %s: at this image size a map of %s is one cell, the same everywhere.",
                operation.name, layer,
            )  # fmt: skip
            return str(operation.name)
        earliest = min([earliest, *(places[id(one)] for one in inputs(operation))])
    return layer


def _has_places(operation: Any) -> bool:
    return _is_map(operation) and min(operation.output.shape[1] or 0, operation.output.shape[2] or 0) > 1


def _lies_evenly(operation: Any) -> bool:
    return _has_places(operation) and not isinstance(operation, _DISPLACED)


def _is_map(operation: Any) -> bool:
    shape = getattr(getattr(operation, "output", None), "shape", ())
    return isinstance(operation, keras.Layer) and len(shape) == 4


def positive(features: Tensor, weights: Tensor) -> Tensor:
    """Return the evidence for a class, float32 (batch, rows, columns): the sum of `features` (batch, rows, columns,
    channels) weighted by `weights` (batch, channels), negative values set to 0.
    """
    height, width, channels = features.shape[1:]
    flat = ops.reshape(ops.cast(features, "float32"), (-1, height * width, channels))
    summed = ops.matmul(flat, ops.reshape(weights, (-1, channels, 1)))
    return ops.relu(ops.reshape(summed, (-1, height, width)))


def enlarge(evidence: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return maps (batch, rows, columns) enlarged to `size` (height, width), in their own unit.

    The enlargement is bilinear with aligned corners, as SciPy's `zoom`: two small products with constant
    matrices, which every runtime computes alike. For some sizes (4 to 188, for example) `zoom`
    rounds past the last row and column and leaves them 0; this does not.
    """
    rows, columns = (enlargement(n, wanted) for n, wanted in zip(evidence.shape[1:], size, strict=True))
    return ops.matmul(rows, ops.matmul(evidence, columns.T))


def enlargement(given: int, wanted: int) -> np.ndarray:
    """Return the matrix, float32 (wanted, given), of linear interpolation between the first and the last position."""
    places = np.linspace(0, given - 1, wanted)
    return np.maximum(1 - np.abs(places[:, np.newaxis] - np.arange(given)), 0).astype(np.float32)
