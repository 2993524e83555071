"""Plugin + head -> one flat functional keras.Model, from raw pixels to probabilities."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from chestxray.errors import PluginError, WeightsError, first_line
from chestxray.models import attention_pooling, non_finite, published_weights
from chestxray.models.weights import blamed, build_named, load_weights
from chestxray.plugin import ModelPlugin

#: The layer that calibrates the logits: divided by 1, with nothing added, until validation has been asked.
CALIBRATION = "calibration"
#: Names of layers that come before and after a backbone, which its own layers must not have.
OWN_LAYERS = (
    "pixels", "grey_to_channels", "colour_to_grey", "per_image", "per_pixel",
    CALIBRATION, "probabilities", "pooled_features",
)  # fmt: skip
#: Also those of the default head.
RESERVED = frozenset({*OWN_LAYERS, *attention_pooling.LAYERS, "pool", "dropout", "logits"})
Phase = Literal["head", "probe", "finetune", "full"]
Tensor = Any


@dataclass(frozen=True)
class Built:
    """``model``: pixels (batch, height, width, channels) in 0..255 to probabilities (batch,
    classes), of findings each by itself; ``backbone``: the names of its layers that the plugin's `build` made, in
    order; ``fixed``: the names of the layers that were made with ``trainable=False``, which no phase trains;
    ``weights_sha256``: of the published file of weights, ``""`` where none was loaded.
    """

    model: keras.Model
    backbone: tuple[str, ...]
    plugin: ModelPlugin
    fixed: frozenset[str]
    weights_sha256: str = ""


def build(
    plugin: ModelPlugin,
    classes: int,
    image_size: tuple[int, int],
    *,
    task: Literal["classes", "findings"] = "classes",
    name: str = "this architecture",
    weights: str | None = None,
    published_head: bool = False,
    pooling: Literal["mean", "attention"] = "mean",
    normalisation: Literal["plugin", "pixel", "image"] = "plugin",
    moments: tuple[np.ndarray, np.ndarray] | None = None,
    channels: int = 1,
    batch_norm_momentum: float | None = None,
    mixed_precision: bool = False,
    seed: int = 0,
) -> Built:
    """Build the whole model. `channels` is 1 for grey pixels, 3 for colour.

    The probabilities of `classes` add up to 1 (softmax); those of findings are independent (sigmoid).

    `weights` is None (random), one of ``plugin.weights``, or the path of a file. With `published_head`, the file must
    have the head too, of as many outputs; without it, the head is loaded where it fits. With `pooling` ``attention``
    the default head weighs the places of the feature map (`attention_pooling`). `normalisation`
    ``pixel`` needs `moments`: mean and variance by pixel of the training images, each (height,
    width). `name` is for messages. A fixed `seed` gives the same initial weights.

    Raises:
        InputError: an image size or a pooling that the architecture does not take.
        PluginError: the plugin's functions do not return what they must, or two layers have one name.
        WeightsError: weights that cannot be had or do not fit.
    """
    plugin.check_image_size(name, image_size)
    keras.utils.set_random_seed(seed)
    published = plugin.published.get(weights or "")
    by_name = weights if weights in plugin.weights and published is None else None
    with _policy("mixed_float16" if mixed_precision else "float32"):
        pixels = keras.Input((*image_size, channels), dtype="float32", name="pixels")
        matched = _match_channels(pixels, plugin.channels)
        scaled = _scale(plugin, matched, normalisation, moments)
        features = build_named(plugin.build, scaled, by_name)
        _check_features(features)
        if pooling == "attention":
            logits = attention_pooling.head(plugin, features, classes, name)
        else:
            logits = plugin.head(features, classes)
        if tuple(logits.shape) != (None, classes):
            raise PluginError(f"head must return logits (batch, {classes}). Received: shape {tuple(logits.shape)}.")
        calibrated = keras.layers.Rescaling(1.0, dtype="float32", name=CALIBRATION)(logits)
        activation = "softmax" if task == "classes" else "sigmoid"
        output = keras.layers.Activation(activation, dtype="float32", name="probabilities")(calibrated)
        model = _model(name, pixels, output)
    backbone = _layers_between(model, scaled, features)
    sha256, loaded = "", backbone
    if published_head:
        loaded += _layers_between(model, features, logits)
    if published is not None:
        with published_weights.fetched(published) as (path, sha256):
            load_weights(model, path, backbone=loaded, convert=blamed(plugin.convert))
    elif weights is not None and by_name is None:
        load_weights(model, Path(weights), backbone=loaded, convert=blamed(plugin.convert))
    elif by_name is not None and (spoilt := non_finite.first_weights(model)):
        raise WeightsError(f"The weights {by_name!r} of {name} are not finite: {spoilt}.")
    if batch_norm_momentum is not None:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = batch_norm_momentum
    fixed = frozenset(layer.name for layer in model.layers if not layer.trainable)
    return Built(model=model, backbone=backbone, plugin=plugin, fixed=fixed, weights_sha256=sha256)


def freeze(built: Built, phase: Phase) -> None:
    """Set which layers are trained in `phase`.

    ``head`` and ``probe``: what follows the backbone; ``finetune``: also the layers of the backbone that the plugin's
    ``finetune_from`` or ``finetune`` says; ``full``: everything. Layers that were made with ``trainable=False``
    are trained in none. Frozen batch normalisation runs in inference mode.

    Raises:
        PluginError: the backbone has no layer of the name ``finetune_from``, or none that a pattern of
            ``finetune`` matches.
    """
    frozen = set(built.backbone) if phase in ("head", "probe") else set()
    if phase == "finetune":
        frozen = set(built.backbone) - _finetuned(built)
    for layer in built.model.layers:
        layer.trainable = layer.name not in frozen | built.fixed


def _finetuned(built: Built) -> set[str]:
    """The layers of the backbone that the second phase trains."""
    start, patterns = built.plugin.finetune_from, built.plugin.finetune
    if start is not None:
        if start not in built.backbone:
            raise PluginError(f"finetune_from names no layer of the backbone. Received: {start!r}.")
        return set(built.backbone[built.backbone.index(start) :])
    for pattern in patterns:
        if not fnmatch.filter(built.backbone, pattern):
            raise PluginError(f"finetune matches no layer of the backbone. Received: {pattern!r}.")
    return {name for name in built.backbone if not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns)}


def logits_model(model: keras.Model) -> keras.Model:
    """The same graph, ending at the logits (batch, classes) before calibration and softmax or sigmoid."""
    return keras.Model(model.inputs, model.get_layer(CALIBRATION).input)


def set_calibration(model: keras.Model, scale: float | Sequence[float], offset: float | Sequence[float]) -> None:
    """Multiply the logits by `scale` and add `offset` from now on, in `model` and in what is saved of it.

    Each is one number, or one for each class or finding. They come after the calibration that the model has already.
    """
    layer = model.get_layer(CALIBRATION)
    before = np.asarray(layer.scale, dtype=np.float64), np.asarray(layer.offset, dtype=np.float64)
    layer.scale = (before[0] * scale).tolist()
    layer.offset = (before[1] * scale + offset).tolist()
    # Functions traced before hold the old constant.
    model.train_function = model.test_function = model.predict_function = None


def features_model(model: keras.Model, layer: str) -> keras.Model:
    """The same graph with two outputs: the probabilities, and what `layer` gives as one vector an
    image, float32 (batch, features): a feature map is averaged over its places.
    """
    features = model.get_layer(layer).output
    if len(features.shape) == 4:
        name, taken = "pooled_features", {one.name for one in model.layers}
        while name in taken:
            name += "_"
        features = keras.layers.GlobalAveragePooling2D(dtype="float32", name=name)(features)
    return keras.Model(model.inputs, [model.output, features])


def save(model: keras.Model, path: Path) -> None:
    """Write `model` as a ``.keras`` file: the network alone, without the optimiser and its state, which
    may be twice as large and is of use to nobody but the training that it comes from.
    """
    keras.Model(model.input, model.output, name=model.name).save(path)


def moments(pixels: np.ndarray, rows: np.ndarray, block: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance by pixel over `rows` of `pixels` uint8 (n, height, width): two float32
    (height, width). Exact sums, block by block, so that memory stays flat.
    """
    total = np.zeros(pixels.shape[1:], dtype=np.float64)
    squares = np.zeros(pixels.shape[1:], dtype=np.float64)
    for start in range(0, len(rows), block):
        part = pixels[rows[start : start + block]].astype(np.float64)
        total += part.sum(axis=0)
        squares += (part**2).sum(axis=0)
    mean = total / len(rows)
    return mean.astype(np.float32), (squares / len(rows) - mean**2).astype(np.float32)


def _match_channels(pixels: Tensor, wanted: int) -> Tensor:
    given = pixels.shape[-1]
    if given == wanted:
        return pixels
    if given == 1:
        return keras.layers.Concatenate(name="grey_to_channels")([pixels] * wanted)
    # Luminance weights of ITU-R BT.601, as Pillow's conversion to grey.
    weights = keras.initializers.Constant(np.reshape([0.299, 0.587, 0.114], (1, 1, 3, 1)))
    layer = keras.layers.Conv2D(
        1, 1, use_bias=False, kernel_initializer=weights, trainable=False, name="colour_to_grey"
    )
    return layer(pixels)


def _scale(
    plugin: ModelPlugin, pixels: Tensor, normalisation: str, moments: tuple[np.ndarray, np.ndarray] | None
) -> Tensor:
    if normalisation == "plugin":
        return plugin.scale(pixels)
    if normalisation == "image":
        return keras.layers.LayerNormalization(
            axis=(1, 2, 3), center=False, scale=False, epsilon=1e-3, dtype="float32", name="per_image"
        )(pixels)
    if moments is None:
        raise ValueError("normalisation 'pixel' needs the moments of the training images")
    mean, variance = (np.repeat(m[..., np.newaxis], pixels.shape[-1], axis=-1)[np.newaxis] for m in moments)
    layer = keras.layers.Normalization(axis=(1, 2, 3), dtype="float32", name="per_pixel")
    layer.build(pixels.shape)
    layer.adapt_mean.assign(np.reshape(mean, layer.adapt_mean.shape))
    # Less than one grey level squared is a constant pixel (black padding): dividing by its own
    # deviation would blow up whatever a test image shows there.
    layer.adapt_variance.assign(np.reshape(np.maximum(variance, 1.0), layer.adapt_variance.shape))
    layer.finalize_state()
    return layer(pixels)


def _model(name: str, pixels: Tensor, output: Tensor) -> keras.Model:
    try:
        return keras.Model(pixels, output)
    except ValueError as error:
        # Keras raises it where two layers have one name.
        raise PluginError(
            f"The layers of {name} must have a name each, other than pixels, {CALIBRATION}, probabilities and what "
            f"else is put before and after the network. Received: {first_line(error)}"
        ) from error


def _check_features(features: Tensor) -> None:
    if not isinstance(features, keras.KerasTensor) or len(features.shape) not in (2, 4):
        received = getattr(features, "shape", type(features).__name__)
        raise PluginError(
            f"build must return a feature map (batch, height, width, channels) or a vector (batch, features). "
            f"Received: {received}."
        )


def _layers_between(model: keras.Model, start: Tensor, end: Tensor) -> tuple[str, ...]:
    """Names of the layers that lead to `end` but not to `start`, in the model's order."""
    before = {layer.name for layer in keras.Model(model.inputs, start).layers}
    upto = {layer.name for layer in keras.Model(model.inputs, end).layers}
    return tuple(layer.name for layer in model.layers if layer.name in upto - before)


@contextmanager
def _policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
