"""Heat maps from gradients, each one compiled function of a whole batch: those of a layer, and those of the pixels.

Grad-CAM++ (Chattopadhay 2018), LayerCAM (Jiang 2021) and HiResCAM (Draelos 2020) weigh a layer's features by the
gradient of a logit; integrated gradients (Sundararajan 2017) and SmoothGrad (Smilkov 2017) take the gradient with
respect to the pixels. LayerCAM and SmoothGrad compute what tf-keras-vis computes, Grad-CAM++ but for a factor of each
map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from chestxray.errors import PluginError
from chestxray.explanation.gradcam import check_layer
from chestxray.explanation.library_maps import saliency_engine
from chestxray.models.assembly import CALIBRATION, logits_model

Tensor = Any
#: Maps of images, float32 (batch, height, width, channels) in 0..255, and classes, int32 (batch,).
Maps = Callable[[Tensor, Tensor], Tensor]

#: Steps of the path of integrated gradients; the midpoint rule.
STEPS = 32
#: Noisy copies of an image for SmoothGrad, and their standard deviation as a share of the image's range.
COPIES, NOISE = 24, 0.2


def hirescam(features: Tensor, gradients: Tensor) -> Tensor:
    """Return evidence (batch, rows, columns): features times gradients, both (batch, rows, columns, channels)."""
    import tensorflow as tf

    return tf.nn.relu(tf.reduce_sum(features * gradients, axis=-1))


def layercam(features: Tensor, gradients: Tensor) -> Tensor:
    """As `hirescam`, of the positive gradients alone."""
    import tensorflow as tf

    return tf.nn.relu(tf.reduce_sum(features * tf.nn.relu(gradients), axis=-1))


def gradcam_plus_plus(features: Tensor, gradients: Tensor) -> Tensor:
    """As `hirescam`, with one weight a channel: the positive gradients weighted by the paper's alphas, which are scaled
    to a sum of 1 over the places as in the authors' own program.

    The paper takes the gradient of exp(score). In the alphas exp(score) cancels; of the map it is a factor, which is
    left out: beside a film of a high score the maps of all others would look empty, and above 88 it is no float32.
    """
    import tensorflow as tf

    second = gradients * gradients
    below = 2 * second + second * gradients * tf.reduce_sum(features, axis=(1, 2), keepdims=True)
    alphas = second / (below + tf.cast(second == 0, tf.float32))
    total = tf.reduce_sum(alphas, axis=(1, 2), keepdims=True)
    alphas /= total + tf.cast(total == 0, tf.float32)
    weights = tf.reduce_sum(tf.nn.relu(gradients) * alphas, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))


#: Evidence from features and gradients, by method.
OF_LAYER = {"gradcam++": gradcam_plus_plus, "layercam": layercam, "hirescam": hirescam}


def of_layer(method: str, model: keras.Model, layer: str) -> Maps:
    """Return the compiled maps of a method of `OF_LAYER`, float32 (batch, map rows, map columns).

    Raises:
        PluginError: `layer` is no feature map of `model`, or no gradient leads to it.
    """
    import tensorflow as tf

    check_layer(model, layer)
    probe = keras.Model(model.inputs[0], [model.get_layer(layer).output, model.get_layer(CALIBRATION).input])

    def maps(images: Tensor, classes: Tensor) -> Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            features, logits = probe(images, training=False)
            scores = tf.gather(tf.cast(logits, tf.float32), classes, batch_dims=1)
        gradients = tape.gradient(scores, features)
        if gradients is None:
            raise PluginError(f"The layer must be one that the logits depend on: no gradient leads to {layer!r}.")
        return OF_LAYER[method](tf.cast(features, tf.float32), tf.cast(gradients, tf.float32))

    return _compiled(maps, model)


def saliency(model: keras.Model) -> Maps:
    """Return maps (batch, height, width): the greatest absolute gradient of the logit over the channels of a pixel
    (Simonyan 2014), by tf-keras-vis.
    """
    import tensorflow as tf

    gradients = saliency_engine(logits_model(model))
    return lambda images, classes: tf.reduce_max(gradients(images, classes), axis=-1)


def smoothgrad(model: keras.Model, seed: int) -> Maps:
    """Return maps (batch, height, width): `saliency`'s gradients, averaged over `COPIES` noisy copies of the image.

    The noise is the same for every image but for its deviation, so that a map does not depend on the other images of
    its batch.
    """
    import tensorflow as tf

    gradients = saliency_engine(logits_model(model))
    shape = tuple(model.inputs[0].shape[1:])
    # The legacy generator, which tf-keras-vis draws from: with the same seed both have the same noise.
    drawn = np.random.RandomState(seed).normal(size=(COPIES, *shape)).astype(np.float32)

    def maps(images: Tensor, classes: Tensor) -> Tensor:
        low, high = (f(images, axis=(1, 2, 3), keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
        deviation = NOISE * (high - low)
        total = sum(gradients(images + deviation * one, classes) for one in drawn)
        return tf.reduce_max(total / COPIES, axis=-1)

    return maps


def attributions(model: keras.Model, steps: int = STEPS) -> Maps:
    """Return compiled integrated gradients with their sign, float32, as the shape of the images.

    The path leads from a black image (all 0) to the image. The sum over an image approaches the difference of the
    logit between the two (completeness, Sundararajan 2017), the better the more `steps`.
    """
    import tensorflow as tf

    logits = logits_model(model)
    positions = (np.arange(steps, dtype=np.float32) + 0.5) / steps

    def maps(images: Tensor, classes: Tensor) -> Tensor:
        def gradient(position: Tensor) -> Tensor:
            part = images * position
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(part)
                scores = tf.gather(tf.cast(logits([part], training=False), tf.float32), classes, batch_dims=1)
            return tape.gradient(scores, part)

        def add(total: Tensor, position: Tensor) -> Tensor:
            return total + gradient(position)

        # One step at a time: memory does not grow with the number of steps.
        total = tf.foldl(add, tf.constant(positions), tf.zeros_like(images), parallel_iterations=1)
        return images * total / steps

    return _compiled(maps, model)


def integrated_gradients(model: keras.Model) -> Maps:
    """Return maps (batch, height, width): `attributions` summed over the channels, those against the class set to 0."""
    import tensorflow as tf

    signed = attributions(model)
    return lambda images, classes: tf.nn.relu(tf.reduce_sum(signed(images, classes), axis=-1))


#: Maps from the gradient with respect to the pixels, by method; what makes them takes the model and a seed.
OF_PIXELS: dict[str, Callable[[keras.Model, int], Maps]] = {
    "saliency": lambda model, seed: saliency(model),
    "smoothgrad": smoothgrad,
    "integrated-gradients": lambda model, seed: integrated_gradients(model),
}


def _compiled(maps: Maps, model: keras.Model) -> Maps:
    import tensorflow as tf

    images = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)
    signature = [images, tf.TensorSpec((None,), tf.int32)]
    return tf.function(maps, autograph=False).get_concrete_function(*signature)
