"""The model plugin under test, with cached results that several checks share."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from chestxray.models.assembly import Built, build
from chestxray.plugin import ModelPlugin
from chestxray.testing.fresh_process import FreshProcess

CLASSES = 3
SEED = 7


class Subject:
    """A plugin under test. ``module`` is imported by name in the fresh process, ``elsewhere``.

    Checks compute at the smallest image size that the plugin allows, so that their cost depends on the
    architecture and not on its image size.
    """

    def __init__(self, plugin: ModelPlugin, name: str, module: str, elsewhere: FreshProcess) -> None:
        self.plugin = plugin
        self.name = name
        self.module = module
        self.elsewhere = elsewhere
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        self.folder = tempfile.TemporaryDirectory(prefix="chestxray-check-")

    @property
    def size(self) -> tuple[int, int]:
        """The smallest image size (height, width) that the plugin allows, in pixels."""
        return self.plugin.image_size if self.plugin.fixed_size else self.plugin.minimum_size

    def build(self, size: tuple[int, int] | None = None, **choices: Any) -> Built:
        """Build the whole model as a run does. `choices` are arguments of `chestxray.models.assembly.build`."""
        return build(self.plugin, CLASSES, size or self.size, name=self.name, seed=SEED, **choices)

    @cached_property
    def features(self) -> Any:
        """The output of `build` at the plugin's own image size, as a tensor of that shape without its graph.

        Also sets ``shapes``, the output shape of each layer there by its name.
        """
        plugin = self.plugin
        pixels = keras.Input((*plugin.image_size, plugin.channels), dtype="float32", name="the_pixels")
        features = plugin.build(plugin.scale(pixels), None)
        if not isinstance(features, keras.KerasTensor):
            return features
        for layer in keras.Model(pixels, features).operations:
            self.shapes[layer.name] = tuple(getattr(layer.output, "shape", ()))
        # The graph may hold half a gigabyte of weights.
        return keras.KerasTensor(features.shape, dtype=features.dtype)

    @cached_property
    def built(self) -> Built:
        """The whole model, built for grey images of the smallest size."""
        return self.build()

    @cached_property
    def again(self) -> Built:
        """The same model built a second time, for findings; it must have the same weights and layer names."""
        assert self.built  # ensures that this one is built second
        return self.build(task="findings")

    @cached_property
    def other_seed(self) -> keras.Model:
        """The model built a third time, with another seed."""
        return build(self.plugin, CLASSES, self.size, name=self.name, seed=SEED + 1).model

    @cached_property
    def images(self) -> np.ndarray:
        """Test images, float32 (4, height, width, 1) in 0..255: two of noise, a black and a white one."""
        noise = np.random.default_rng(SEED).uniform(0, 255, (2, *self.size, 1))
        flat = np.broadcast_to(np.reshape([0.0, 255.0], (2, 1, 1, 1)), noise.shape)
        return np.concatenate([noise, flat]).astype(np.float32)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """The model's probabilities for `images`, float32 (4, classes)."""
        return outputs(self.built.model, self.images)

    @cached_property
    def saved(self) -> Path:
        """The folder with the saved model, ``model.keras``, and ``images.npy``."""
        folder = Path(self.folder.name)
        self.built.model.save(folder / "model.keras")
        np.save(folder / "images.npy", self.images, allow_pickle=False)
        return folder


def outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the model's outputs for `images` as an array. Avoids `predict`, whose tracing can take a minute."""
    return keras.ops.convert_to_numpy(model(images, training=False))


def times(size: Sequence[int]) -> str:
    """Return a size as text: ``(96, 128)`` as ``96x128``."""
    return "x".join(str(n) for n in size)
