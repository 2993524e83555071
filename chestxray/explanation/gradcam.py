"""Arithmetic of Grad-CAM maps (Selvaraju 2017): evidence from weighted features, and its enlargement."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from chestxray.errors import PluginError

Tensor = Any


def check_layer(model: keras.Model, layer: str) -> None:
    """Raise `PluginError` where `layer` is not a feature map of `model`."""
    names = {item.name for item in model.layers}
    if layer not in names or len(model.get_layer(layer).output.shape) != 4:
        raise PluginError(f"cam_layer must name a layer with a rank-4 output. Received: {layer!r}.")


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
