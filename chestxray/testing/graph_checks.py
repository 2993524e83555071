"""Checks of the whole model: image sizes, structure, channels and inference."""

from __future__ import annotations

import keras
import numpy as np

from chestxray.testing.model_under_test import CLASSES, Subject, outputs, times
from chestxray.testing.results import CheckFailed, described, place

NESTED_HINT = (
    "apply the layers to the tensor itself, so that all are layers of one graph: keras.applications "
    "does so with input_tensor=scaled"
)


def check_sizes(subject: Subject) -> None:
    """The whole model can be built at its smallest size and at a larger, oblong size with an odd height.

    Both sides of it are multiples of what the plugin asks for.
    """
    sizes = [subject.size]
    if not subject.plugin.fixed_size:
        # Any size from the smallest on is allowed, so one that is not a multiple of a power of two is tried.
        step = subject.plugin.size_multiple
        sizes.append((subject.size[0] + -(-17 // step) * step, subject.size[1] + -(-32 // step) * step))
    for size in sizes:
        try:
            _ = subject.built if size == subject.size else subject.build(size)
        # Third-party code may raise anything: any exception fails the check.
        except Exception as error:
            raise CheckFailed(
                f"cannot be built at {times(size)}, a size that it allows: {described(error)}",
                f"raise minimum_size, or set size_multiple or fixed_size=True; {place(error)}",
            ) from error


def check_flat(subject: Subject) -> None:
    """The model is one flat graph of layers, without nested or subclassed models and Lambda layers."""
    wrong = []
    for layer in subject.built.model.layers:
        inside = layer._flatten_layers(include_self=True, recursive=True)
        models = [item for item in inside if isinstance(item, keras.Model)]
        if models:
            wrong.append(f"layer {layer.name!r} is or holds a model of its own ({type(models[0]).__name__})")
        elif isinstance(layer, keras.layers.Lambda):
            wrong.append(f"layer {layer.name!r} is a Lambda")
    if not wrong:
        return
    hint = NESTED_HINT if "model" in wrong[0] else "use keras.ops or a layer: a Lambda is code in a file"
    raise CheckFailed("; ".join(wrong), hint)


def check_channels(subject: Subject) -> None:
    """Grey and colour images both give finite probabilities that add up to 1."""
    _require_probabilities("grey", subject.probabilities)
    colour = np.repeat(subject.images, 3, axis=-1)
    _require_probabilities("colour", outputs(subject.build(channels=3).model, colour))


def check_inference(subject: Subject) -> None:
    """The probabilities of an image depend neither on the other images of the batch nor on the call."""
    alone = outputs(subject.built.model, subject.images[:1])[0]
    difference = float(np.abs(alone - subject.probabilities[0]).max())
    if not difference < 1e-3:
        raise CheckFailed(
            f"the probabilities of one image differ by {difference:.2g} between a call with it alone and "
            "one with others",
            "is something averaged over the batch, or drawn anew at each call?",
        )


def _require_probabilities(what: str, probabilities: np.ndarray) -> None:
    expected = (probabilities.shape[0], CLASSES)
    if probabilities.shape != expected:
        raise CheckFailed(f"{what} images: expected shape {expected}. Received: {probabilities.shape}")
    if not np.isfinite(probabilities).all():
        raise CheckFailed(
            f"{what} images: the probabilities are not finite",
            "noise, a black and a white image were tried: is there a division by a spread, or a logarithm?",
        )
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise CheckFailed(f"{what} images: the probabilities do not add up to 1")
