"""Checks of the layers that a plugin names: the Grad-CAM layer and the first fine-tuned layer."""

from __future__ import annotations

import fnmatch
import re

import keras
import numpy as np
import tensorflow as tf

from chestxray.explanation.inference_graph import Graph
from chestxray.explanation.library_maps import gradcam
from chestxray.models.assembly import Built, Phase, freeze
from chestxray.models.weight_matching import snake_case
from chestxray.testing.model_under_test import CLASSES, Subject
from chestxray.testing.results import CheckFailed, CheckSkipped


def check_cam_layer(subject: Subject) -> None:
    """`cam_layer` is a layer of every built model, has an output of rank 4, and the logits depend on it."""
    name = _cam_layer(subject)
    _require_name(subject, "cam_layer", name)
    layer = subject.built.model.get_layer(name)
    if len(layer._inbound_nodes) > 1:
        raise CheckFailed(f"cam_layer {name!r} is applied several times: which of its outputs is not clear")
    shape = tuple(layer.output.shape)
    if len(shape) != 4:
        raise CheckFailed(f"cam_layer {name!r} must have rank 4. Received: shape {shape}", _maps(subject.built))
    _ = subject.features
    large = subject.shapes.get(name)  # at the smallest size a map may be a single value
    if large and large[1:3] == (1, 1):
        wide = [n for n, shape in subject.shapes.items() if len(shape) == 4 and min(shape[1] or 0, shape[2] or 0) > 1]
        raise CheckFailed(
            f"the map of cam_layer {name!r} is 1x1 at image_size: it cannot tell one place from another",
            f"name a layer before the pooling; the last with a map are {', '.join(wide[-4:])}",
        )
    if not _connected(subject, name):
        raise CheckFailed(
            f"no gradient leads from the logits to cam_layer {name!r}",
            "name a layer that the output is computed from, by operations that have a gradient",
        )


def check_gradients(subject: Subject) -> None:
    """A gradient leads from the loss to every weight that is to be trained."""
    model = subject.built.model
    freeze(subject.built, "full")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(subject.images, training=False) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    if dead := [v.path for v, one in zip(model.trainable_variables, gradients, strict=True) if one is None]:
        raise CheckFailed(
            f"no gradient leads to {len(dead)} weights that are to be trained, the first {dead[0]}",
            "stop_gradient, rounding, argmax and a cast to whole numbers have none; give trainable=False to a layer "
            "that is fixed on purpose",
        )


def check_gradcam(subject: Subject) -> None:
    """Grad-CAM gives each image one finite map in 0..1, of the image's size."""
    name = _cam_layer(subject)
    images = subject.images[:2]
    with np.errstate(all="ignore"):  # values that are not finite are reported below
        maps = gradcam(subject.built.model, name, images, np.arange(2) % CLASSES)
    if maps.shape != images.shape[:3]:
        raise CheckFailed(f"the maps must have the shape {images.shape[:3]}. Received: {maps.shape}")
    if not np.isfinite(maps).all():
        raise CheckFailed(
            f"the maps of cam_layer {name!r} are not finite",
            "the layer's output or the gradient behind it is not: choose another layer",
        )
    if maps.min() < 0 or maps.max() > 1.001:
        raise CheckFailed(f"the maps must lie in 0..1. Received: {maps.min():.3g} to {maps.max():.3g}")


def check_one_pass(subject: Subject) -> None:
    """The maps that a run draws and exports equal those of tf-keras-vis."""
    name, images = _cam_layer(subject), subject.images[:2]
    classes = subject.probabilities[:2].argmax(axis=1)
    expected = gradcam(subject.built.model, name, images, classes, finished=False)
    graph = Graph(subject.built.model, name)
    found = np.asarray(graph.evidence(tf.constant(images), tf.constant(classes, tf.int32)))
    # Unscaled: at the smallest size a map may be a single value, which scaling to 0..1 would make meaningless.
    difference = float(np.abs(found - expected).max() / (np.abs(expected).max() or 1.0))
    if not difference < 1e-3:
        raise CheckFailed(
            f"the maps of cam_layer {name!r} differ from tf-keras-vis's by {difference:.2g} of their maximum",
            "a layer of the head that computes something else than its class does? "
            f"{f'The gradient is taken by a tape: {graph.reason}' if graph.reason else ''}".strip(),
        )


def check_freezing(subject: Subject) -> None:
    """Each phase trains exactly its layers: the head; the layers from `finetune_from` on; all layers."""
    built, start = subject.built, subject.plugin.finetune_from
    if start is not None:
        _require_name(subject, "finetune_from", start)
        if start not in built.backbone:
            raise CheckFailed(f"finetune_from {start!r} is no layer of the backbone", "scale and head are none")
    tuned = _tuned(subject)
    freeze(built, "full")
    variables = {layer.name: {v.path for v in layer.trainable_variables} for layer in built.model.layers}
    frozen: dict[Phase, tuple[str, ...]] = {
        "head": built.backbone,
        "finetune": tuple(name for name in built.backbone if name not in tuned),
        "full": (),
    }
    try:
        for phase, names in frozen.items():
            freeze(built, phase)
            _require_trained(built, phase, set().union(*(variables[n] for n in variables if n not in names)))
    finally:
        freeze(built, "full")


def _tuned(subject: Subject) -> set[str]:
    """The layers of the backbone that the second phase is to train."""
    backbone, plugin = subject.built.backbone, subject.plugin
    if plugin.finetune_from is not None:
        return set(backbone[backbone.index(plugin.finetune_from) :])
    tuned = {pattern: set(fnmatch.filter(backbone, pattern)) for pattern in plugin.finetune or ("*",)}
    for pattern, names in tuned.items():
        # Keras numbers the layers that nobody named anew in every model.
        if not names & set(subject.again.backbone):
            raise CheckFailed(
                f"finetune {pattern!r} matches no layer of every backbone",
                f"the backbone ends with {', '.join(backbone[-4:])}; give layers names of their own",
            )
    return set().union(*tuned.values())


def _require_trained(built: Built, phase: Phase, expected: set[str]) -> None:
    trained = {v.path for v in built.model.trainable_variables}
    if trained != expected:
        stray = sorted(trained ^ expected)
        raise CheckFailed(f"in the phase {phase} other variables are trained than should be: {stray[0]}")
    if not trained:
        raise CheckFailed(f"in the phase {phase} nothing is trained", "does the head have weights?")


def _cam_layer(subject: Subject) -> str:
    if subject.plugin.cam_layer is None:
        raise CheckSkipped(f"there is no cam_layer: {subject.plugin.cam_reason or 'no reason given'}")
    return subject.plugin.cam_layer


def _require_name(subject: Subject, field: str, name: str) -> None:
    """Check that the layer has this name in every model, not only in the first that a process builds."""
    models = (subject.built, subject.again)
    found = [name in {layer.name for layer in built.model.layers} for built in models]
    if all(found):
        return
    # Keras names a layer without an explicit name after its class, with a number from the second one on.
    classes = {snake_case(type(layer).__name__) for layer in subject.built.model.layers}
    if any(found) or re.sub(r"_\d+$", "", name) in classes:
        raise CheckFailed(
            f"{field} {name!r} is not in every model: Keras numbers the layers that nobody named, and "
            "goes on counting from one model to the next",
            "give that layer a name of its own: name=...",
        )
    raise CheckFailed(
        f"{field} {name!r} names no layer of the model",
        f"{_maps(subject.built)}; layers that the output is not computed from are not in the model",
    )


def _maps(built: Built) -> str:
    names = [name for name in built.backbone if len(getattr(built.model.get_layer(name).output, "shape", ())) == 4]
    return f"the last feature maps are {', '.join(names[-4:])}" if names else "the backbone has no feature map"


def _connected(subject: Subject, name: str) -> bool:
    model = subject.built.model
    logits = model.get_layer("probabilities").input
    probe = keras.Model(model.inputs, [model.get_layer(name).output, logits])
    images = tf.constant(subject.images[:1])
    with tf.GradientTape() as tape:
        tape.watch(images)
        maps, scores = probe(images, training=False)
    return tape.gradient(scores, maps) is not None
