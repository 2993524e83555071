"""Checks of a plugin's functions `scale`, `build` and `head`, at its own image size."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from chestxray.testing.model_under_test import CLASSES, SEED, Subject, outputs
from chestxray.testing.results import CheckFailed


def check_scale(subject: Subject) -> None:
    """`scale` returns finite floating-point numbers in the shape of the pixels."""
    shape = (*subject.plugin.image_size, subject.plugin.channels)
    pixels = keras.Input(shape, dtype="float32")
    scaled = _tensor("scale", subject.plugin.scale(pixels))
    if tuple(scaled.shape) != (None, *shape):
        raise CheckFailed(
            f"scale must keep the shape {_shape((None, *shape))}. Received: {_shape(scaled.shape)}",
            "other normalisations take the place of scale, so build must not depend on what it adds",
        )
    if not str(scaled.dtype).startswith(("float", "bfloat")):
        raise CheckFailed(f"scale must return floating-point numbers. Received: {scaled.dtype}")
    extremes = np.concatenate([np.zeros((1, *shape)), np.full((1, *shape), 255)]).astype(np.float32)
    if not np.isfinite(outputs(keras.Model(pixels, scaled), extremes)).all():
        raise CheckFailed("scale of a black or a white image is not finite", "is there a division by zero?")


def check_features(subject: Subject) -> None:
    """`build` returns a feature map or a vector, for batches of any size, at the plugin's own image size."""
    features = _tensor("build", subject.features)
    if len(features.shape) not in (2, 4):
        raise CheckFailed(
            "build must return a feature map (batch, height, width, channels) or a vector "
            f"(batch, features). Received: {_shape(features.shape)}"
        )
    if features.shape[0] is not None:
        raise CheckFailed(
            f"build must leave the size of a batch open. Received: {_shape(features.shape)}",
            "reshape with -1 or with keras.layers.Reshape, never with a number of images",
        )
    if None in features.shape[1:]:
        raise CheckFailed(f"the features must have a known shape. Received: {_shape(features.shape)}")


def check_head(subject: Subject) -> None:
    """`head` returns one logit per class, for any number of classes, without an activation."""
    for classes in (2, CLASSES + 2):
        # The head depends on the feature tensor alone, so the backbone need not be built again.
        features = keras.Input(subject.features.shape[1:], dtype="float32")
        logits = _tensor("head", subject.plugin.head(features, classes))
        if tuple(logits.shape) != (None, classes):
            raise CheckFailed(
                f"head must return logits (batch, {classes}). Received: {_shape(logits.shape)}",
                "a dense layer of `classes` units without activation, named 'logits'",
            )
        _require_logits(keras.Model(features, logits))


def _require_logits(head: keras.Model) -> None:
    """Check that the head of some features gives logits, and not what an activation makes of them."""
    shape = (64, *(side or 1 for side in head.input_shape[1:]))
    drawn = np.random.default_rng(SEED).normal(0, 30, shape).astype(np.float32)
    found = outputs(head, drawn)
    # Numbers of both signs and any size are expected.
    if found.min() >= 0 and (found.max() <= 1 or (found == 0).any()):
        ends = "softmax or sigmoid" if found.max() <= 1 else "an activation such as ReLU"
        raise CheckFailed(
            f"head must return logits, but ends in {ends}: of strong features they lie in "
            f"{found.min():.3g}..{found.max():.3g}",
            "end the head with a dense layer without activation: softmax or sigmoid follow by themselves",
        )


def _tensor(function: str, value: Any) -> Any:
    if not isinstance(value, keras.KerasTensor):
        raise CheckFailed(
            f"{function} must return one keras tensor. Received: {type(value).__name__}",
            "of a keras.Model return its .output" if isinstance(value, keras.Model) else "",
        )
    return value


def _shape(shape: Any) -> str:
    return "(" + ", ".join("batch" if n is None else str(n) for n in shape) + ")"
