"""Two architectures that are trained in a moment, and how a test installs them as a distribution."""

import dataclasses
import sys

import keras

from made import tiny_plugin

small = tiny_plugin()
flat = dataclasses.replace(
    small,
    build=lambda scaled, weights: keras.layers.Dense(4, activation="relu", name="only")(keras.layers.Flatten()(scaled)),
    cam_layer=None,
    finetune_from=None,
)


def install(folder, monkeypatch):
    """Install the models ``small`` and ``flat`` for the length of a test."""
    info = folder / "tiny_models-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[chestxray.models]\nsmall = tiny_models:small\nflat = tiny_models:flat\n")
    monkeypatch.syspath_prepend(folder)
    sys.modules.setdefault("tiny_models", sys.modules[__name__])
