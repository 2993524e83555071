"""A network as an encoder: from the pixels of a film to a vector of features, for search and for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

import keras
import numpy as np

from chestxray import registry
from chestxray.data.images.pixels import Fit
from chestxray.errors import DataError, InputError
from chestxray.models import assembly
from chestxray.models.assembly import CALIBRATION
from chestxray.models.lung_segmenter import LungSegmenter
from chestxray.plugin import ModelPlugin
from chestxray.recipe import LARGEST_SIDE
from chestxray.runs import run_folder
from chestxray.storage.schema import Within
from chestxray.training import graph_split


class Origin(TypedDict):
    """Where an encoder comes from, which opens it again: the absolute path of a ``run``, or ``model`` and ``weights``;
    ``layer`` and ``width`` of its features; ``fingerprint``: of its layers and weights.
    """

    run: NotRequired[str]
    model: str
    weights: str
    image_size: list[Annotated[int, Within(1, LARGEST_SIDE)]]
    fit: Fit
    layer: str
    width: int
    fingerprint: str


@dataclass(frozen=True)
class Encoder:
    """``front``: a network from pixels, float32 (batch, height, width, 1) in 0..255, to features (batch, width).

    ``image_size`` is (height, width); ``layer`` the name of the layer whose output the features are, averaged over its
    places where it is a feature map. ``run`` is the folder that it comes from, None where it is an architecture with
    published weights or those of a file. ``segmenter``: what images are cut to their lungs by, None where they are
    whole.
    """

    front: keras.Model
    model: str
    weights: str
    image_size: tuple[int, int]
    fit: Fit
    layer: str
    run: Path | None = None
    segmenter: LungSegmenter | None = None

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.front.output.shape[-1])

    @cached_property
    def origin(self) -> Origin:
        """Where it comes from, as a file of features says it."""
        found: Origin = {
            "model": self.model,
            "weights": self.weights,
            "image_size": list(self.image_size),
            "fit": self.fit,
            "layer": self.layer,
            "width": self.width,
            "fingerprint": graph_split.fingerprint(self.front),
        }
        return found if self.run is None else {**found, "run": str(self.run)}


def of_run(folder: Path) -> Encoder:
    """Return the encoder of a finished run: its features are what the dense layer takes that gives the logits.

    With the default head that is the backbone's output, averaged over its places; with hidden layers in the head, what
    the last of them gives. Dropout, which does nothing to an image that is not trained on, is left out.

    Raises:
        InputError: no run, one without a model, or a head that does not end with a dense layer.
        DataError: its model is damaged.
        PluginError: its images were cut by another segmenter than the one that is installed.
    """
    run = run_folder.open_trained(folder, task=None)
    if run.segmenter is not None:
        run.segmenter.require()
    size = run.recipe.image_size
    if size is None:
        raise DataError(f"{folder / run_folder.RECIPE} is damaged: image_size is missing.")
    logits = run.model.get_layer(CALIBRATION).input._keras_history.operation
    if not isinstance(logits, keras.layers.Dense) or len(logits.input.shape) != 2:
        raise InputError(
            "Features are what the dense layer takes that gives the logits, and the head of this network ends with "
            f"another. Received: {logits.name}, of the kind {type(logits).__name__}."
        )
    tensor = logits.input
    while isinstance(tensor._keras_history.operation, keras.layers.Dropout):
        tensor = tensor._keras_history.operation.input
    layer = tensor._keras_history.operation.name
    front = keras.Model(run.model.inputs[0], tensor)
    # What the run was trained from is not what it holds.
    place = folder.resolve()
    return Encoder(front, run.recipe.model, "trained", size, run.recipe.fit, layer, place, run.segmenter)


def of_model(name: str, weights: str | None, image_size: tuple[int, int] | None, fit: Fit) -> Encoder:
    """Return the encoder of the architecture `name` with pretrained weights: its features are the output of its
    backbone, averaged over its places.

    `weights` is one of those that the architecture offers (None: the first), or the path of a file; `image_size` None
    is the architecture's own.

    Raises:
        PluginError: an unknown or broken architecture.
        InputError: no such weights, or a size that it does not take.
        WeightsError: weights that cannot be had or do not fit.
    """
    plugin: ModelPlugin = registry.load_plugin(registry.MODELS, name)
    given = weights or next(iter(plugin.weights), "none")
    chosen = given if given in plugin.weights else str(Path(given).expanduser().absolute())
    if given not in plugin.weights and not Path(chosen).is_file():
        offered = ", ".join((*plugin.weights, "a file"))
        raise InputError(f"weights of {name} must be {offered}: random features say nothing. Received: {given!r}.")
    size = image_size or plugin.image_size
    built = assembly.build(plugin, 2, size, name=name, weights=chosen)
    if not built.backbone:
        raise InputError(f"{name} has no backbone, only a head: it has no pretrained features.")
    layer = built.backbone[-1]
    front = keras.Model(built.model.inputs[0], assembly.features_model(built.model, layer).outputs[1])
    return Encoder(front, name, chosen, size, fit, layer)


def of_origin(origin: Origin) -> Encoder:
    """Return the encoder that `origin` tells of.

    Raises:
        InputError: it is another one now: the run was trained again, or the file of weights changed.
        ChestXrayError: as `of_run` and `of_model`.
    """
    height, width = origin["image_size"]
    if "run" in origin:
        found = of_run(Path(origin["run"]))
    else:
        found = of_model(origin["model"], origin["weights"], (height, width), origin["fit"])
    if found.origin["fingerprint"] != origin["fingerprint"]:
        raise InputError(
            f"{origin.get('run', origin['weights'])} has changed since the features were computed. Compute them again: "
            "chestxray features."
        )
    return found


def encode(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    """Return features, float32 (n, width), of `pixels`, uint8 (n, height, width)."""
    from chestxray.models import forward

    given = forward.outputs(forward.Forward(encoder.front), pixels, np.arange(len(pixels)))
    return np.concatenate([part for (part,) in given])
