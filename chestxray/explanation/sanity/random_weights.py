"""A copy of a network whose layers get random weights, each by its own initialiser. The network itself is not touched.

Layers are taken in groups: one with a kernel, and those behind it without, such as its normalisation.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import keras
import numpy as np

#: Values of the weights of layers, by name of the layer.
Weights = dict[str, list[np.ndarray]]


class RandomWeights:
    """``model`` is a copy of the given one, with the same names of layers; ``groups`` are the names of its layers that
    random weights change, the last of the network first.

    Layers that no initialiser changes, such as a fixed normalisation of the input, are in no group.

    >>> copy = RandomWeights(model, seed=0)  # doctest: +SKIP
    >>> copy.randomise(range(2))  # the two groups nearest to the output  # doctest: +SKIP
    """

    def __init__(self, model: keras.Model, seed: int) -> None:
        self._own = _values(model)
        self.model = _clone(model, seed)
        self._drawn = _values(self.model)
        self.groups = self._grouped()
        self.randomise(())

    def draw(self, seed: int) -> None:
        """Draw other random weights, which the next `randomise` sets."""
        self._drawn = _values(_clone(self.model, seed))

    def randomise(self, groups: Iterable[int]) -> None:
        """Set the random weights in the `groups` of these numbers, and the own weights in all other layers."""
        chosen = {name for number in groups for name in self.groups[number]}
        for layer in self._weighted():
            layer.set_weights((self._drawn if layer.name in chosen else self._own)[layer.name])

    def _grouped(self) -> tuple[tuple[str, ...], ...]:
        groups: list[list[str]] = []
        for layer in self._weighted():
            pairs = zip(self._own[layer.name], self._drawn[layer.name], strict=True)
            changed = [own for own, drawn in pairs if not np.array_equal(own, drawn)]
            if not changed:
                continue
            if not groups or any(own.ndim > 1 for own in changed):
                groups.append([])
            groups[-1].append(layer.name)
        return tuple(tuple(group) for group in reversed(groups))

    def _weighted(self) -> list[keras.layers.Layer]:
        # A copy's input layers may have other names; what has weights keeps its own.
        return [layer for layer in self.model.layers if layer.weights]


def _values(model: keras.Model) -> Weights:
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def _clone(model: keras.Model, seed: int) -> keras.Model:
    """Return a copy of `model` with weights by the initialisers of its layers, which take their seeds from Python's
    own generator; its state afterwards is the one before.
    """
    state = random.getstate()
    # Not the number alone, which may be the seed that the weights were first drawn with: they would come again.
    random.seed(f"random weights {seed}")
    try:
        # A copy of a compiled model is compiled again, which the losses of findings and of plugins do not survive.
        return keras.models.clone_model(keras.Model(model.inputs[0], model.output))
    finally:
        random.setstate(state)
