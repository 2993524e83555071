"""Heat maps from what the network answers when parts of the image are hidden: Score-CAM and occlusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from chestxray.explanation.gradcam import check_layer, enlargement
from chestxray.models import backend
from chestxray.models.assembly import logits_model

Tensor = Any
#: Maps of images, float32 (rows, height, width, channels) in 0..255, and classes, int32 (rows,).
Maps = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: Sides of the occluding square in a side of the image; squares overlap by half.
SQUARES = 8


def scorecam(model: keras.Model, layer: str, batch_size: int) -> Maps:
    """Return Score-CAM (Wang 2020) as tf-keras-vis computes it: maps float32 (rows, map rows, map columns).

    A channel's weight is the probability, before calibration, of the class in the image multiplied by the channel,
    which is enlarged to the image and scaled to 0..1. Each (image, channel) is one evaluation of the network; channels
    that are 0 everywhere add nothing and are left out. Masks are made where the network runs, `batch_size` at a time.

    Raises:
        PluginError: `layer` is no feature map of `model`.
    """
    check_layer(model, layer)
    features = keras.Model(model.inputs[0], model.get_layer(layer).output)
    network = _probabilities(model)
    rows, columns = (
        enlargement(given, wanted)
        for given, wanted in zip(features.output.shape[1:3], model.inputs[0].shape[1:3], strict=True)
    )

    def scores(images: Tensor, maps: Tensor, classes: Tensor, pairs: Tensor) -> Tensor:
        channels = ops.take(ops.reshape(ops.transpose(maps, (0, 3, 1, 2)), (-1, *maps.shape[1:3])), pairs[:, 2], axis=0)
        large = ops.matmul(rows, ops.matmul(channels, columns.T))
        low, high = (extreme(large, axis=(1, 2), keepdims=True) for extreme in (ops.min, ops.max))
        masks = (large - low) / (high - low + keras.config.epsilon())
        found = network(ops.take(images, pairs[:, 0], axis=0) * masks[..., None])
        wanted = ops.one_hot(ops.take(classes, pairs[:, 0], axis=0), found.shape[-1], dtype="float32")
        return ops.sum(found * wanted, axis=-1)

    images_in = (None, *model.inputs[0].shape[1:])
    score = compiled(
        scores, (images_in, "float32"), (features.output.shape, "float32"), ((None,), "int32"), ((None, 3), "int32")
    )
    forward = compiled(lambda images: ops.cast(features(images, training=False), "float32"), (images_in, "float32"))

    def maps(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        given, numbers = ops.convert_to_tensor(images), ops.convert_to_tensor(classes)
        found = forward(given)
        kept = np.asarray(found)
        live = np.argwhere((kept != 0).any(axis=(1, 2)))
        pairs = np.column_stack([live, live[:, 0] * kept.shape[-1] + live[:, 1]]).astype(np.int32)
        weights = np.zeros((len(kept), kept.shape[-1]), np.float32)
        # All are sent off before the first answer is fetched.
        parts = [
            (count, score(given, found, numbers, ops.convert_to_tensor(part)))
            for part, count in _parts(pairs, batch_size)
        ]
        if parts:
            weights[tuple(live.T)] = np.concatenate([np.asarray(part)[:count] for count, part in parts])
        return np.maximum(np.einsum("nrck,nk->nrc", kept, weights), 0)

    return maps


def occlusion(model: keras.Model, batch_size: int) -> Maps:
    """Return occlusion maps (Zeiler and Fergus 2014), float32 (rows, height, width).

    A square of an eighth of each side is set to the image's own mean and moved by half of itself. The map of a pixel
    is the mean, over the squares that cover it, of what the class's probability, before calibration, falls by; where
    it rises the map is 0.
    """
    network = _probabilities(model)
    size: tuple[int, int] = tuple(model.inputs[0].shape[1:3])
    squares = np.stack(list(_squares(size)))
    covers = np.maximum(squares.sum(axis=0), 1)

    def falls(image: Tensor, masks: Tensor, wanted: Tensor) -> Tensor:
        hidden = image * (1 - masks) + ops.mean(image) * masks
        return ops.sum(network(hidden) * wanted, axis=-1)

    score = compiled(
        falls, ((1, *model.inputs[0].shape[1:]), "float32"), ((None, *size, 1), "float32"), ((None,), "float32")
    )

    def maps(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        one_hot = np.eye(model.output.shape[-1], dtype=np.float32)
        # The image itself comes first, with nothing hidden.
        masks = np.concatenate([np.zeros((1, *size), np.float32), squares])[..., np.newaxis]
        found = []
        for image, wanted in zip(images, one_hot[classes], strict=True):
            given, class_of = ops.convert_to_tensor(image[np.newaxis]), ops.convert_to_tensor(wanted)
            parts = [
                (count, score(given, ops.convert_to_tensor(part), class_of))
                for part, count in _parts(masks, batch_size)
            ]
            scores = np.concatenate([np.asarray(part)[:count] for count, part in parts])
            found.append(np.tensordot(scores[0] - scores[1:], squares, axes=1) / covers)
        return np.maximum(np.asarray(found, dtype=np.float32), 0)

    return maps


def compiled(function: Callable[..., Any], *arguments: tuple[tuple[int | None, ...], str]) -> Callable[..., Any]:
    """Return `function` of tensors of these shapes and dtypes, traced by TensorFlow; on another backend as it is."""
    if backend.on_jax():
        return function
    import tensorflow as tf

    signature = [tf.TensorSpec(shape, dtype) for shape, dtype in arguments]
    return tf.function(function, autograph=False).get_concrete_function(*signature)


def _probabilities(model: keras.Model) -> Callable[[Tensor], Tensor]:
    """Return what gives the probabilities before calibration, float32 (batch, classes), of images.

    No layer is added to the network: its layers may have any name, also that which Keras would give to one more.
    """
    activation, logits = model.get_layer("probabilities").activation, logits_model(model)
    return lambda images: activation(ops.cast(logits(images, training=False), "float32"))


def _squares(size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield masks, float32 `size`: 1 where a square hides the image."""
    starts = []
    sides = [-(-length // SQUARES) for length in size]
    for length, side in zip(size, sides, strict=True):
        starts.append(sorted({*range(0, length - side, max(side // 2, 1)), length - side}))
    for top in starts[0]:
        for left in starts[1]:
            mask = np.zeros(size, np.float32)
            mask[top : top + sides[0], left : left + sides[1]] = 1
            yield mask


def _parts(rows: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield `rows` in parts of one length, the last filled up with its last row, and how many of a part count."""
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        missing = min(batch_size, len(rows)) - len(part)
        yield (np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part), len(part)
