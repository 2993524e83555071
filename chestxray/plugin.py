"""What the author of a plugin imports: `ModelPlugin` for an architecture, `SourcePlugin` for data, `MetricPlugin`,
`LossPlugin`, `AugmentationPlugin`, `ExplanationPlugin` and `SegmenterPlugin` for methods.

A plugin is one object in one module, registered by one entry point, whose name is the name of the
model, source or metric::

    [project.entry-points."chestxray.models"]
    inceptionv3 = "chestxray_inceptionv3:plugin"

This module also exports everything else that a plugin may need from this package: `inline` for a network
that is a Keras model, `table` for class tokens and positions, `load_weights` and `load_huggingface` for
weights, `Index` for the rows of a source, `InputError` and `DataError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from chestxray.errors import DataError, InputError, PluginError
from chestxray.method_plugins import AugmentationPlugin, ExplanationPlugin, LossPlugin, MetricPlugin, SegmenterPlugin

if TYPE_CHECKING:
    from chestxray.data.index import Index
    from chestxray.models.inlining import inline
    from chestxray.models.learned_tables import table
    from chestxray.models.weights import load_huggingface, load_weights

__all__ = [
    "AugmentationPlugin",
    "DataError",
    "ExplanationPlugin",
    "Index",
    "InputError",
    "LossPlugin",
    "MetricPlugin",
    "ModelPlugin",
    "PublishedWeights",
    "SegmenterPlugin",
    "SourceOptions",
    "SourcePlugin",
    "inline",
    "load_huggingface",
    "load_weights",
    "pooled_head",
    "table",
]

#: Imported on first use: they need pandas and h5py, which are not needed to list the models.
_LATER = {
    "Index": "chestxray.data.index",
    "inline": "chestxray.models.inlining",
    "load_huggingface": "chestxray.models.weights",
    "load_weights": "chestxray.models.weights",
    "table": "chestxray.models.learned_tables",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)


#: The version of the contract between chestxray and plugins. It counts up when plugins written for the new one
#: would not work with the old one. An author writes the number into ``api``, not this name.
API = 1

Fit = Literal["stretch", "pad", "crop"]
Tensor = Any  # a keras.KerasTensor; keras is not imported until a plugin needs it


def pooled_head(features: Tensor, classes: int) -> Tensor:
    """Return logits (batch, classes): global average pooling (of a rank-4 feature map), dropout 0.2, a dense layer.

    The dense layer is named ``logits`` and computes in float32, also under mixed precision.
    """
    from keras import layers

    if len(features.shape) == 4:
        features = layers.GlobalAveragePooling2D(name="pool")(features)
    features = layers.Dropout(0.2, name="dropout")(features)
    return layers.Dense(classes, dtype="float32", name="logits")(features)


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A published file of weights, which chestxray fetches and loads, and what its publisher says of it.

    - ``url``: of a .safetensors, .pt, .pth, .h5 or .keras file.
    - ``sha256``: in hexadecimal digits, as published; ``""`` if the publisher states none: that of the first file that
      fits is then recorded beside the file, and any other is refused from then on.
    - ``trained_on``: sets whose images it was trained on, by their names in the catalogue (``chestxray data list``)
      where they are in it. Tests on them are said not to be external.
    - ``findings``: what the outputs of the published head mean, in order; ``""``: an output that was not trained.
    - ``thresholds``: the published operating point of each finding, a probability; None: not published.
    - ``fit``: how its publisher fits an image to the size: ``stretch``, ``pad`` or ``crop`` (the middle square). With
      ``findings``, the weights are a ready model, which answers as published: ``chestxray predict MODEL:WEIGHTS``.
    """

    url: str
    sha256: str = ""
    trained_on: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    thresholds: tuple[float | None, ...] = ()
    fit: Fit = "stretch"

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):
            raise PluginError(
                f"PublishedWeights.fit must be one of {', '.join(get_args(Fit))}. Received: {self.fit!r}."
            )
        if len(self.thresholds) not in (0, len(self.findings)):
            raise PluginError(
                f"PublishedWeights.thresholds must be one for each of the {len(self.findings)} findings. "
                f"Received: {len(self.thresholds)}."
            )


@dataclass(frozen=True, kw_only=True)
class ModelPlugin:
    """An architecture: functions of keras tensors, and what a user should know about it.

    - ``build(scaled, weights) -> features``: the backbone, applied to a tensor, so that the whole
      model is one flat functional graph. `weights` is None (random) or one of the names listed
      in ``weights``; chestxray itself loads files given by path. Returns a feature map
      (batch, height, width, channels) or a vector (batch, features).
    - ``scale(pixels) -> scaled``: converts float32 (batch, height, width, channels) in 0..255 to
      the range that the backbone was trained on, in keras layers.
    - ``image_size``: (height, width) in pixels of the published network.
    - ``minimum_size``: the smallest (height, width) in pixels that the graph can be built with.
    - ``fixed_size``: True if the graph accepts only ``image_size``.
    - ``size_multiple``: what height and width must be a multiple of, in pixels: a vision transformer's patch.
    - ``channels``: 1 (grey) or 3 (grey repeated).
    - ``cam_layer``: name of the layer that Grad-CAM explains, rank 4; None if no layer is
      convolutional, with the reason in ``cam_reason``.
    - ``finetune_from``: name of the first layer trained in the second phase; None: all.
    - ``finetune``: in place of it, patterns of the names of the layers trained then, as ``"block5_*"``: ``*`` any
      characters, ``?`` one. A layer that ``build`` makes with ``trainable=False`` is trained in no phase.
    - ``weights``: names of the available pretrained weights.
    - ``published``: those of them that are one file each, which chestxray fetches: `build` is then called with None,
      and ``convert`` maps the names of the file.
    - ``head(features, classes) -> logits``: default `pooled_head`.
    - ``convert(tensors, shapes) -> arrays``: for weights published under other names (PyTorch's, say):
      maps {published name: array} to {"layer/variable": array} in keras layout. `shapes` is
      {"layer/variable": shape} of the model, for arrays that depend on the image size (positions).
    - ``reference``, ``licence``, ``weights_licence``: paper; licence of the code and of the weights.
    - ``api``: the version of this contract that the plugin is written for, `API`. A plugin for a newer one than
      the installed chestxray knows is refused when it is loaded.

    Raises:
        PluginError: a field that cannot be; both ``finetune_from`` and ``finetune``.
    """

    build: Callable[[Tensor, str | None], Tensor]
    scale: Callable[[Tensor], Tensor]
    image_size: tuple[int, int]
    minimum_size: tuple[int, int] = (32, 32)
    fixed_size: bool = False
    size_multiple: int = 1
    channels: int = 3
    cam_layer: str | None = None
    cam_reason: str = ""
    finetune_from: str | None = None
    finetune: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    published: Mapping[str, PublishedWeights] = field(default_factory=dict)
    head: Callable[[Tensor, int], Tensor] = pooled_head
    convert: Callable[[Mapping[str, Any], Mapping[str, tuple[int, ...]]], Mapping[str, Any]] | None = None
    reference: str = ""
    licence: str = ""
    weights_licence: str = ""
    api: int = 1

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise PluginError(f"ModelPlugin.channels must be 1 or 3. Received: {self.channels}.")
        if self.finetune and self.finetune_from is not None:
            raise PluginError(
                "ModelPlugin takes finetune_from or finetune, not both. "
                f"Received: {self.finetune_from!r} and {self.finetune!r}."
            )
        if not isinstance(self.size_multiple, int) or self.size_multiple < 1:
            raise PluginError(
                f"ModelPlugin.size_multiple must be a whole number of pixels from 1 on. Received: {self.size_multiple}."
            )
        for name in ("image_size", "minimum_size"):
            size = getattr(self, name)
            if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
                raise PluginError(f"ModelPlugin.{name} must be (height, width) in whole pixels. Received: {size}.")
            if any(side % self.size_multiple for side in size):
                raise PluginError(
                    f"ModelPlugin.{name} must be multiples of size_multiple, {self.size_multiple}. Received: {size}."
                )
        if unknown := set(self.published) - set(self.weights):
            raise PluginError(f"ModelPlugin.published has names that weights has not: {', '.join(sorted(unknown))}.")

    def check_image_size(self, name: str, size: tuple[int, int]) -> None:
        """Raise `InputError` if the model `name` cannot be built for `size` (height, width) in pixels."""
        low = self.minimum_size
        if self.fixed_size and size != self.image_size:
            allowed = f"exactly {self.image_size[0]}x{self.image_size[1]}"
        elif size[0] < low[0] or size[1] < low[1]:
            allowed = f"at least {low[0]}x{low[1]}"
        elif any(side % self.size_multiple for side in size):
            allowed = f"multiples of {self.size_multiple}"
        else:
            return
        raise InputError(f"image_size of {name} must be {allowed} pixels. Received: {size[0]}x{size[1]}.")


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What a run passes to a source besides the address."""

    cache: Path
    """Folder for what the source downloads or draws; shared by all runs."""
    seed: int = 0
    patient_pattern: str | None = None
    """Regular expression searched in an image's path below the address; its groups are the patient."""
    label_pattern: str | None = None
    """Regular expression searched in an image's path below the address; its groups are the class."""
    skip: tuple[str, ...] = ()
    """Glob patterns of folders, by name or by path below the address, that are left out."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Options of this source alone, from ``--data-option NAME=VALUE``."""
    by: tuple[str, ...] = ()
    """Columns that results are to be told by, as the user calls them: to be kept where the source has them."""


@dataclass(frozen=True, kw_only=True)
class SourcePlugin:
    """A kind of data source: ``--data KIND:ADDRESS`` calls ``load(ADDRESS, options)``.

    ``load`` makes sure that the image files are on the local disk and returns an `Index`; it raises
    `DataError` or `InputError` if it cannot. With ``open``, for archives, object stores and PACS, the rows have keys in
    the place of paths, and ``open(key)`` returns the bytes of an image file, or raises any exception: the image then
    counts as unreadable. It is called once for each key, by several threads at a time, and its result is kept in the
    cache: a key must always mean the same bytes. ``address_help`` says in a few words what the address
    is. ``options`` maps the names that the source accepts from ``--data-option`` to a line of help
    each; None: the source receives all options and checks them itself. ``path_options`` names those
    options that are paths: the user gives them relative to the current folder, and the source
    receives them as absolute paths. ``api`` is the version of this contract that the plugin is written for, `API`.
    """

    load: Callable[[str, SourceOptions], Index]
    address_help: str
    open: Callable[[str], bytes] | None = None
    options: Mapping[str, str] | None = None
    path_options: tuple[str, ...] = ()
    licence: str = ""
    api: int = 1
