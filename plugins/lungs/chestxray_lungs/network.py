"""The network: a small U-Net (Ronneberger and others 2015, arXiv:1505.04597), and its file of weights."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
from keras import layers
from safetensors import safe_open
from safetensors.numpy import save_file

#: Height and width of its input in pixels.
SIDE = 128
#: Filters at each resolution, from 128 pixels to 8.
FILTERS = (12, 24, 48, 64, 96)


def build() -> keras.Model:
    """Return the network with random weights: films (n, SIDE, SIDE, 1) of mean 0 and deviation 1 to the logit of each
    pixel's being lung, of the same shape. It has 0.47 million parameters.
    """
    films = keras.Input((SIDE, SIDE, 1), name="films")
    x, skipped = films, []
    for level, filters in enumerate(FILTERS):
        if level:
            x = layers.MaxPooling2D(name=f"down{level}_pool")(x)
        for number in range(1 if level == 0 else 2):
            x = _convolved(x, filters, f"down{level}_{number}")
        skipped.append(x)
    for level in reversed(range(len(FILTERS) - 1)):
        x = layers.UpSampling2D(interpolation="bilinear", name=f"up{level}_enlarged")(x)
        x = layers.Concatenate(name=f"up{level}_joined")([x, skipped[level]])
        for number in range(1 if level == 0 else 2):
            x = _convolved(x, FILTERS[level], f"up{level}_{number}")
    return keras.Model(films, layers.Conv2D(1, 1, name="logits", dtype="float32")(x), name="lungs")


def _convolved(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=0.97, name=f"{name}_norm")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def save(model: keras.Model, file: Path, facts: Mapping[str, str]) -> None:
    """Write the weights as float16, and `facts` as the file's metadata."""
    arrays = {variable.path: np.asarray(variable).astype(np.float16) for variable in model.weights}
    save_file(arrays, file, metadata=dict(facts))


def load(file: Path) -> tuple[keras.Model, dict[str, str]]:
    """Return the network with the weights of `file`, and the facts written with them."""
    # Keras seeds the weights, which are replaced, from Python's generator: a run beside it must not notice.
    state = random.getstate()
    model = build()
    random.setstate(state)
    with safe_open(file, framework="numpy") as opened:
        for variable in model.weights:
            variable.assign(opened.get_tensor(variable.path).astype(np.float32))
        return model, dict(opened.metadata() or {})
