"""Plugins for metrics, losses, augmentations, explanations and segmenters: one small frozen dataclass each.

They are registered as models are, by an entry point whose name is what a recipe calls them by::

    [project.entry-points."chestxray.metrics"]
    youden = "chestxray_youden:plugin"
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chestxray.errors import PluginError

Array = Any  # a numpy array; neither numpy nor keras is imported until a plugin needs it
Tensor = Any  # a tensor of Keras's backend


@dataclass(frozen=True, kw_only=True)
class MetricPlugin:
    """A figure of a test, ``--metric NAME``. It gets an interval, a paired test and a row in the report like our own.

    - ``compute(truth, probability, weights) -> values``: NumPy arrays. `weights` is float (replicates, rows): how often
      each row counts in each bootstrap replicate, 0 for one that is left out. Returns float (replicates,), NaN where
      the figure cannot be computed. With ``per="class"`` it is called for each class or finding against the rest:
      `truth` is bool (rows,), `probability` float (rows,) in 0..1. With ``per="set"`` it is called once: `truth` holds
      class numbers, int (rows,), `probability` is float (rows, classes).
    - ``title``: its name in tables; ``meaning``: what it says, in a sentence for the report.
    - ``higher_is_better``; ``bounds``: its least and its greatest possible value.
    - ``per``: of two classes, a figure per class is that of the positive one; of more, the mean over the classes.
    - ``reference``, ``licence``, ``api``: as of `ModelPlugin`.

    Raises:
        PluginError: a field that cannot be.
    """

    compute: Callable[[Array, Array, Array], Array]
    title: str
    meaning: str = ""
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    per: Literal["class", "set"] = "class"
    reference: str = ""
    licence: str = ""
    api: int = 1

    def __post_init__(self) -> None:
        if self.per not in ("class", "set"):
            raise PluginError(f"MetricPlugin.per must be class or set. Received: {self.per!r}.")
        if len(self.bounds) != 2 or not -math.inf < self.bounds[0] < self.bounds[1] < math.inf:
            raise PluginError(f"MetricPlugin.bounds must be two finite numbers, rising. Received: {self.bounds}.")


@dataclass(frozen=True, kw_only=True)
class LossPlugin:
    """A loss, ``--loss NAME``. Probabilities are those of the model's softmax or sigmoid.

    - ``compute(labels, probabilities) -> losses``: in keras.ops; both float32 (batch, classes), labels from 0 to 1 and
      of mixed or smoothed images between. With ``task="classes"`` it returns one number an image, (batch,). With
      ``task="findings"`` it returns (batch, findings): chestxray leaves out what is not known and takes the mean.
      The loss of an image may not depend on the others of the batch.
    - ``task``: what it is for. A loss for both is two plugins.
    - ``reference``, ``licence``, ``api``: as of `ModelPlugin`.

    Raises:
        PluginError: a field that cannot be.
    """

    compute: Callable[[Tensor, Tensor], Tensor]
    task: Literal["classes", "findings"] = "classes"
    reference: str = ""
    licence: str = ""
    api: int = 1

    def __post_init__(self) -> None:
        if self.task not in ("classes", "findings"):
            raise PluginError(f"LossPlugin.task must be classes or findings. Received: {self.task!r}.")


@dataclass(frozen=True, kw_only=True)
class AugmentationPlugin:
    """A random change of training images, ``--augment NAME``.

    - ``augment(images, draws, noise) -> images``: in keras.ops. `images` is float32 (batch, height, width, 1) in
      0..255, returned as the same; `draws` is float32 (batch, ``draws``), uniform in 0..1; `noise` is standard normal
      in the shape of the images with ``noise=True``, else None. All randomness comes from these two, so that a run
      repeats and resumes exactly; an image may not depend on the others of the batch.
    - ``draws``: how many numbers it needs of each image.
    - ``mirrors``: whether it mirrors images side to side, which puts the heart on the wrong side.
    - ``reference``, ``licence``, ``api``: as of `ModelPlugin`.

    Raises:
        PluginError: a field that cannot be.
    """

    augment: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    draws: int
    noise: bool = False
    mirrors: bool = False
    reference: str = ""
    licence: str = ""
    api: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.draws, int) or self.draws < 1:
            raise PluginError(f"AugmentationPlugin.draws must be a whole number from 1 on. Received: {self.draws!r}.")


@dataclass(frozen=True, kw_only=True)
class ExplanationPlugin:
    """A way of drawing a run's heat maps, ``--explain NAME``, in the place of Grad-CAM.

    - ``explain(model, layer, images, classes) -> maps``: `model` is a Keras model of images to logits (batch, classes);
      `layer` the name of its feature map that Grad-CAM would explain, None where it has none; `images` is a float32
      NumPy array (rows, height, width, 1) in 0..255; `classes` int32 (rows,), the class or finding to explain. Returns
      float (rows, map height, map width) in 0..1, of any size up to that of the images; chestxray enlarges it.
    - ``reference``, ``licence``, ``api``: as of `ModelPlugin`.
    """

    explain: Callable[[Any, str | None, Array, Array], Array]
    reference: str = ""
    licence: str = ""
    api: int = 1


@dataclass(frozen=True, kw_only=True)
class SegmenterPlugin:
    """A way of finding the lungs, which the controls use that blank them. The one that is installed is used.

    - ``masks(pixels) -> masks``: `pixels` is a uint8 NumPy array (rows, height, width), upright frontal films of any
      size, perhaps stretched; returns bool of the same shape, the pixels that show lung, the heart's left out. Where
      it finds no plausible lungs, the mask of a film is empty: unknown, and not a guess. A film's mask may not depend
      on the others.
    - ``weights``: the file that its weights are read from, if any. Models whose images are cut to the lungs
      (``--crop lungs``) are used with the very weights that they were trained with.
    - ``reference``, ``licence``, ``api``: as of `ModelPlugin`.
    """

    masks: Callable[[Array], Array]
    weights: Path | None = None
    reference: str = ""
    licence: str = ""
    api: int = 1
