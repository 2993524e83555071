"""The methods that draw heat maps, behind one signature: `raw_maps`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from chestxray.errors import InputError, NonFiniteError
from chestxray.explanation.gradcam import check_layer, enlargement
from chestxray.models import backend, interrupts, non_finite
from chestxray.recipe import EXPLANATIONS, GRADCAM

#: Bytes that the layers' outputs of one batch may take, by the estimate of `images_at_once`.
MEMORY = 2**30
#: Most images at once, where memory allows more.
MOST = 32
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Method:
    """What a user should know of a method.

    ``needs``: ``layer`` where the map is made at the layer of feature maps, ``pixels`` where it needs none;
    ``unit``: what the numbers of a map are; ``cost``: evaluations of the network for an image (``+`` a gradient);
    ``library``: how it relates to tf-keras-vis.
    """

    needs: Literal["layer", "pixels"]
    unit: str
    reference: str
    cost: str
    library: Literal["runs", "equals", "has none"]


METHODS: dict[str, Method] = {
    GRADCAM: Method("layer", "logit, by mean gradient", "Selvaraju 2017, arXiv:1610.02391", "1", "equals"),
    "gradcam++": Method("layer", "logit, by weighted gradient", "Chattopadhay 2018, arXiv:1710.11063", "1+", "equals"),
    "layercam": Method("layer", "logit, by positive gradient", "Jiang 2021, doi:10.1109/TIP.2021.3089943",
                       "1+", "equals"),
    "scorecam": Method("layer", "feature times probability", "Wang 2020, arXiv:1910.01279", "one a channel", "equals"),
    "hirescam": Method("layer", "logit, by gradient", "Draelos 2020, arXiv:2011.08891", "1+", "has none"),
    "saliency": Method("pixels", "logit a grey level", "Simonyan 2014, arXiv:1312.6034", "1+", "runs"),
    "smoothgrad": Method("pixels", "logit a grey level", "Smilkov 2017, arXiv:1706.03825", "24+", "runs"),
    "integrated-gradients": Method("pixels", "logit", "Sundararajan 2017, arXiv:1703.01365", "32+", "has none"),
    "occlusion": Method("pixels", "fall of the probability", "Zeiler 2014, arXiv:1311.2901", "226", "has none"),
    "attention-rollout": Method("layer", "share of the attention", "Abnar 2020, arXiv:2005.00928", "1", "has none"),
}  # fmt: skip
#: Methods whose own batches are parts of the image, and methods that TensorFlow's tape computes.
_PERTURBING = ("scorecam", "occlusion")
_OF_TAPE = ("gradcam++", "layercam", "hirescam", "saliency", "smoothgrad", "integrated-gradients")


def raw_maps(
    method: str,
    model: keras.Model,
    layer: str | None,
    pixels: np.ndarray,
    classes: np.ndarray,
    *,
    seed: int = 0,
    batch_size: int | None = None,
) -> np.ndarray:
    """Return maps, float32 (rows, height, width), of 0 and more, at the size of the model's input and in the unit of
    the method: no map is scaled by its own values, so that the maps of one method can be compared.

    `model` is one of `assembly.build`, or reloaded; `pixels`: uint8 (rows, height, width, channels); `classes`:
    the class or finding that is explained, int (rows,); `seed`: of SmoothGrad's noise. Maps of a layer are enlarged
    linearly. `batch_size`: images at once; default: `images_at_once`. Maps do not depend on it. What is compiled for a
    model, a method and a layer is kept with the model, and follows its weights.

    Raises:
        InputError: an unknown method or class; a method that needs a layer and gets none; attention rollout of a
            network without attention; a method that needs TensorFlow on another backend.
        PluginError: the model has no such layer, or it is no feature map.
        NonFiniteError: a map holds NaN or infinity; the message says where it arises.
    """
    check(method, layer)
    numbers = _checked(classes, len(pixels), int(model.output.shape[-1]))
    size: tuple[int, int] = tuple(model.inputs[0].shape[1:3])
    most = batch_size or images_at_once(model)
    run = _kept(method, model, layer, seed, most)
    found = [np.empty((0, *size), np.float32)]
    with interrupts.deferred() as stop:
        for start in range(0, len(pixels), most):
            stop()
            images = np.asarray(pixels[start : start + most], np.float32)
            maps = np.asarray(run(images, numbers[start : start + most]), np.float32)
            if not np.isfinite(maps).all():
                raise NonFiniteError(f"A heat map cannot be drawn by {method}: {_not_finite(model, images)}.")
            found.append(enlarged(maps, size))
    return np.concatenate(found)


def check(method: str, layer: str | None) -> None:
    """Raise `InputError` unless `method` is one of `METHODS` that can do with `layer`, None for no layer."""
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(EXPLANATIONS)}. Received: {method!r}.")
    if layer is None and METHODS[method].needs == "layer":
        others = ", ".join(name for name, one in METHODS.items() if one.needs == "pixels")
        raise InputError(
            f"{method} needs a layer of feature maps, and this architecture has none (cam_layer is None). "
            f"Methods that need none: {others}."
        )
    if method in _OF_TAPE and backend.on_jax():
        others = ", ".join(name for name in METHODS if name not in _OF_TAPE)
        raise InputError(f"{method} needs Keras on TensorFlow. On JAX there are: {others}.")


def images_at_once(model: keras.Model, limit: int = MEMORY) -> int:
    """Return how many images are computed at once: as many as `limit` bytes hold, 1 to `MOST`.

    An image is estimated at the outputs of all layers, which a gradient keeps, at twice their size: the gradients
    themselves come on top.
    """
    values = sum(_values(tensor.shape) for operation in model.operations for tensor in _outputs(operation))
    return int(min(max(limit // max(2 * 4 * values, 1), 1), MOST))


def enlarged(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return `maps` (rows, map rows, map columns), linearly enlarged to `size` (height, width) with aligned corners."""
    if maps.shape[1:] == size:
        return maps
    rows, columns = (enlargement(given, wanted) for given, wanted in zip(maps.shape[1:], size, strict=True))
    return np.asarray(rows @ maps @ columns.T, dtype=np.float32)


def _kept(method: str, model: keras.Model, layer: str | None, seed: int, batch_size: int) -> Run:
    """Return what computes maps at their own size, compiled once for a model."""
    # With the model, so that both are forgotten together; past Keras's own __setattr__, which tracks what it is given.
    known: dict[Any, Run] = vars(model).setdefault("__chestxray_maps__", {})
    key = (method, layer, seed, batch_size if method in _PERTURBING else 0)
    if key not in known:
        known[key] = _made(method, model, layer, seed, batch_size)
    return known[key]


def _made(method: str, model: keras.Model, layer: str | None, seed: int, batch_size: int) -> Run:
    from chestxray.explanation import attention_rollout, perturbation_maps

    if method == "occlusion":
        return perturbation_maps.occlusion(model, batch_size)
    if METHODS[method].needs == "pixels":
        from chestxray.explanation import map_gradients

        return map_gradients.OF_PIXELS[method](model, seed)
    assert layer is not None, "checked before"
    if method == GRADCAM:
        return _gradcam(model, layer)
    if method == "scorecam":
        return perturbation_maps.scorecam(model, layer, batch_size)
    if method == "attention-rollout":
        return attention_rollout.attention_rollout(model, layer)
    from chestxray.explanation import map_gradients

    return map_gradients.of_layer(method, model, layer)


def _gradcam(model: keras.Model, layer: str) -> Run:
    from chestxray.explanation.inference_graph import Graph
    from chestxray.explanation.perturbation_maps import compiled

    check_layer(model, layer)
    graph = Graph(model, layer)
    evidence = compiled(graph.evidence, ((None, *graph.input_shape), "float32"), ((None,), "int32"))
    return lambda images, classes: evidence(keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(classes))


def _checked(classes: np.ndarray, rows: int, count: int) -> np.ndarray:
    numbers = np.asarray(classes)
    if numbers.shape != (rows,) or not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"classes must be ({rows},) whole numbers. Received: {numbers.shape}, {numbers.dtype}.")
    if rows and not (numbers.min() >= 0 and numbers.max() < count):
        raise InputError(f"classes must be from 0 to {count - 1}. Received: {numbers.min()} to {numbers.max()}.")
    return numbers.astype(np.int32)


def _not_finite(model: keras.Model, images: np.ndarray) -> str:
    first = non_finite.first_layer(model, keras.ops.convert_to_tensor(images))
    if not first:
        return "all layers of the graph are finite, but the gradient of the logits, or what it gives, is not"
    return f"the first layer of the graph that is not finite: {first}"


def _outputs(operation: Any) -> list[Any]:
    return [tensor for tensor in keras.tree.flatten(operation.output) if hasattr(tensor, "shape")]


def _values(shape: tuple[int | None, ...]) -> int:
    return int(np.prod([length or 1 for length in shape[1:]], dtype=np.int64))
