"""Small networks trained on phantoms in seconds, and their heat maps, for tests of what maps show."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from PIL import Image

from chestxray.data.images.pixels import fitted
from chestxray.data.sources.phantom.drawing import draw
from chestxray.explanation.gradcam import enlargement
from chestxray.explanation.inference_graph import Graph

SIDE = 48
FINDINGS = ("clear", "consolidation")


@dataclasses.dataclass(frozen=True)
class Films:
    """Phantoms, one a patient: every second one has a consolidation. ``masks`` is of it, ``markers`` of the letter."""

    pixels: np.ndarray
    classes: np.ndarray
    masks: np.ndarray
    markers: np.ndarray
    lungs: np.ndarray


def films(count, seed, *, marker):
    """`count` films; with `marker` those with a consolidation have a letter."""
    drawn = [
        draw(seed=seed, patient=n, image=0, finding=FINDINGS[n % 2], size=SIDE, marker=marker and n % 2 == 1)
        for n in range(count)
    ]

    def stacked(planes):
        return np.stack([np.asarray(fitted(Image.fromarray(one), (SIDE, SIDE), "stretch")) for one in planes])

    masks, markers, lungs = (
        stacked([getattr(one, name).astype(np.uint8) * 255 for one in drawn]) > 127
        for name in ("finding", "marker", "lungs")
    )
    return Films(stacked([one.pixels for one in drawn])[..., np.newaxis], np.arange(count) % 2, masks, markers, lungs)


def untrained(seed=0):
    """A network of four convolutions."""
    keras.utils.set_random_seed(seed)
    given = keras.Input((SIDE, SIDE, 1))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(given)
    x = layers.MaxPooling2D(2)(layers.Conv2D(12, 3, padding="same", activation="relu")(x))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(24, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(24, 3, padding="same", activation="relu", name="last")(x)
    logits = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    calibrated = layers.Activation("linear", name="calibration")(logits)
    return keras.Model(given, layers.Softmax()(calibrated))


def trained(*, marker):
    """The network trained on films with or without the marker."""
    seen = films(160, 0, marker=marker)
    model = untrained()
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(seen.pixels, seen.classes, epochs=20 if marker else 30, batch_size=16, verbose=0)
    return model


def gradcam(model, pixels, classes):
    """Grad-CAM in its own unit, enlarged: float32 (rows, height, width)."""
    graph = Graph(model, "last")
    evidence = np.asarray(graph.evidence(tf.constant(pixels, tf.float32), tf.constant(classes, tf.int32)))
    larger = enlargement(evidence.shape[1], SIDE)
    return larger @ evidence @ larger.T
