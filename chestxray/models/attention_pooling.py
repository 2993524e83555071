"""Attention in the place of global average pooling: a learned weight for each place of a feature map.

Ilse, Tomczak and Welling, *Attention-based Deep Multiple Instance Learning*, ICML 2018, equation 8: the weights are a
softmax over places of ``w . tanh(V h)``, of which w and V are learned. w begins at zero, so that training begins with
the average.
"""

from __future__ import annotations

from typing import Any

import keras

from chestxray.errors import InputError
from chestxray.plugin import ModelPlugin, pooled_head

#: Units of the hidden layer, as in the paper.
HIDDEN = 128
#: The names of the layers.
LAYERS = (
    "pool_places", "pool_hidden", "pool_scores", "pool_softmax", "pool_weights", "pool_attended", "pool_vector",
)  # fmt: skip


def head(plugin: ModelPlugin, features: Any, classes: int, name: str) -> Any:
    """Return the logits (batch, classes) of the default head on the attended places of `features`, a feature map
    (batch, height, width, channels).

    Raises:
        InputError: the features are a vector, or the architecture has a head of its own.
    """
    if plugin.head is not pooled_head or len(features.shape) != 4:
        why = "has a head of its own" if plugin.head is not pooled_head else "gives one vector an image, and no map"
        raise InputError(f"pooling attention weighs the places of a feature map; {name} {why}. Allowed: pooling mean.")
    height, width, channels = features.shape[1:]
    names = iter(LAYERS)
    places = keras.layers.Reshape((height * width, channels), name=next(names))(features)
    hidden = keras.layers.Dense(HIDDEN, activation="tanh", name=next(names))(places)
    scores = keras.layers.Dense(1, kernel_initializer="zeros", use_bias=False, name=next(names))(hidden)
    weights = keras.layers.Softmax(axis=1, dtype="float32", name=next(names))(scores)
    row = keras.layers.Reshape((1, height * width), name=next(names))(weights)
    attended = keras.layers.Dot(axes=(2, 1), name=next(names))([row, places])
    return pooled_head(keras.layers.Reshape((channels,), name=next(names))(attended), classes)
