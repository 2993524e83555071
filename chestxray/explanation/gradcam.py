"""Probabilities and Grad-CAM (Selvaraju 2017) of many images in one compiled evaluation of a network.

Equal to tf-keras-vis's `Gradcam` of the logits with `normalize_cam`, which evaluates the network once
more for the probabilities and builds its graph anew at every call. Where `closed_form_gradient` knows the
layers behind the feature map, no gradient is taken at all, and the same graph can be exported.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from chestxray.errors import PluginError
from chestxray.evaluation.decision.out_of_distribution import FAINT, SIDE, FeatureDistribution, averaging
from chestxray.explanation.closed_form_gradient import HeadGradient, NoClosedForm
from chestxray.models.assembly import CALIBRATION

if TYPE_CHECKING:
    from chestxray.evaluation.decision.rule import Decision

Tensor = Any
#: In place of a class: the one that the model itself decides on.
OWN = -1


class Graph:
    """All that a model answers, as one graph of raw pixels.

    `layer` is the one to explain, None for no maps. `decision` says which class is explained, the one that
    it decides on; None: the most probable one. `distribution` gives distances, of what the layer `features`
    gives; without it those features are given themselves.

    ``reason`` is empty where the maps come from forward operations only; else it says which layer
    stood against that, and TensorFlow's tape takes the gradient. `tape` asks for the tape anyway.

    Raises:
        PluginError: the model has no layer of that name, or it is not rank 4.
    """

    def __init__(
        self,
        model: keras.Model,
        layer: str | None,
        *,
        decision: Decision | None = None,
        distribution: FeatureDistribution | None = None,
        features: str | None = None,
        tape: bool = False,
    ) -> None:
        self.input_shape = tuple(model.inputs[0].shape[1:])
        self.classes = int(model.output.shape[-1])
        self.has_map = layer is not None
        self.reason = "asked for" if tape else ""
        self._decision, self._distribution = decision, distribution
        self._head: HeadGradient | None = None
        wanted: dict[str, Any] = {"probabilities": model.output}
        if features is not None:
            wanted["features"] = model.get_layer(features).output
        if layer is not None:
            check_layer(model, layer)
            wanted["map"] = model.get_layer(layer).output
            wanted["logits"] = model.get_layer(CALIBRATION).input
            if not tape:
                try:
                    self._head = HeadGradient.between(model.get_layer(layer), wanted["logits"])
                    wanted["needs"] = self._head.needs
                except NoClosedForm as unknown:
                    self.reason = str(unknown)
        self.probe = keras.Model(model.inputs[0], wanted)

    def compute(self, pixels: Tensor, classes: Tensor = OWN) -> dict[str, Tensor]:
        """``probabilities`` (batch, classes), and where there are any ``map`` (batch, height, width) in
        0..1 and ``distance`` (batch,) or ``features`` (batch, channels), all float32, of `pixels`
        float32 (batch, height, width, channels) in 0..255. Explained is the class of each image in
        `classes` int32 (batch,).
        """
        values, evidence = self._values(pixels, classes)
        given = {"probabilities": values["probabilities"]}
        if evidence is not None:
            given["map"] = finish(evidence, self.input_shape[:2])
        if self._distribution is not None:
            given["distance"] = distance(values["features"], pixels, self._distribution)
        elif "features" in values:
            given["features"] = pooled(values["features"])
        return given

    def evidence(self, pixels: Tensor, classes: Tensor) -> Tensor:
        """Maps float32 (batch, rows, columns) as the layer has them, neither enlarged nor scaled."""
        return self._values(pixels, classes)[1]

    def _values(self, pixels: Tensor, classes: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        if not self.has_map:
            return self.probe(pixels, training=False), None
        if self._head is not None:
            values = self.probe(pixels, training=False)
            weights = self._head.weights(values.get("needs", ()), self._chosen(values["probabilities"], classes))
            return values, positive(values["map"], weights)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(pixels)
            values = self.probe(pixels, training=False)
            score = ops.sum(values["logits"] * self._chosen(values["probabilities"], classes))
        gradient = tape.gradient(score, values["map"])
        if gradient is None:
            raise PluginError("cam_layer must name a layer that the logits depend on: no gradient leads there.")
        return values, positive(values["map"], ops.mean(ops.cast(gradient, "float32"), axis=(1, 2)))

    def _chosen(self, probabilities: Tensor, classes: Tensor) -> Tensor:
        """float32 (batch, classes), one-hot: of `classes`, where that is `OWN` of the class decided on."""
        decision = self._decision
        if decision is not None and decision.cutoff is not None:
            number, threshold = decision.cutoff
            own = ops.where(probabilities[:, number] >= threshold, number, 1 - number)
        else:
            weighed = probabilities
            if decision is not None and decision.priors:
                weighed = probabilities / tf.constant(decision.priors, tf.float32)
            # Not Keras's argmax, which looks at single bits: ONNX and LiteRT have nothing for that.
            own = tf.argmax(weighed, axis=-1, output_type=tf.int32)
        return ops.one_hot(ops.where(ops.equal(classes, OWN), own, classes), self.classes, dtype="float32")


class OnePass:
    """``OnePass(model, layer)(images)``: probabilities and heat maps at once, by a `Graph` that is
    compiled at the first call, for any number of images.
    """

    def __init__(self, model: keras.Model, layer: str) -> None:
        check_layer(model, layer)
        self.graph = Graph(model, layer)

    def __call__(
        self, images: np.ndarray, classes: np.ndarray | None = None, batch_size: int = 16
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities float32 (rows, classes) and maps float32 (rows, height, width) in 0..1.

        `images`: (rows, height, width, channels) in 0..255; `classes`: the one to explain, int
        (rows,); None: the most probable one of each image. A map runs from its own least to its own
        greatest place; one without any positive evidence is all zero.
        """
        wanted = np.full(len(images), OWN, np.int32) if classes is None else np.asarray(classes, np.int32)
        probabilities = [np.empty((0, self.graph.classes), np.float32)]
        maps = [np.empty((0, *self.graph.input_shape[:2]), np.float32)]
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            given = self._compiled(tf.constant(images[part], tf.float32), tf.constant(wanted[part]))
            probabilities.append(given["probabilities"].numpy())
            maps.append(given["map"].numpy())
        return np.concatenate(probabilities), np.concatenate(maps)

    @cached_property
    def _compiled(self) -> Any:
        images = tf.TensorSpec((None, *self.graph.input_shape), tf.float32)
        compute = tf.function(self.graph.compute, autograph=False)
        return compute.get_concrete_function(images, tf.TensorSpec((None,), tf.int32))


def check_layer(model: keras.Model, layer: str) -> None:
    """Raises `PluginError` where `layer` is no feature map of `model`."""
    names = {item.name for item in model.layers}
    if layer not in names or len(model.get_layer(layer).output.shape) != 4:
        raise PluginError(f"cam_layer must name a layer with a rank-4 output. Received: {layer!r}.")


def positive(features: Tensor, weights: Tensor) -> Tensor:
    """Evidence for the class, float32 (batch, rows, columns): `features` (batch, rows, columns,
    channels) summed by `weights` (batch, channels), where positive.
    """
    height, width, channels = features.shape[1:]
    flat = ops.reshape(ops.cast(features, "float32"), (-1, height * width, channels))
    summed = ops.matmul(flat, ops.reshape(weights, (-1, channels, 1)))
    return ops.relu(ops.reshape(summed, (-1, height, width)))


def finish(evidence: Tensor, size: tuple[int, ...]) -> Tensor:
    """Enlarge maps (batch, rows, columns) to `size` (height, width) and scale each to 0..1.

    Bilinear, with the corners of both grids in one place, as SciPy's `zoom`: two small products with
    constant matrices, which every runtime computes alike. For some sizes (4 to 188, say) `zoom`
    rounds past the last row and column and leaves them 0; here they are not.
    """
    rows, columns = (enlargement(n, wanted) for n, wanted in zip(evidence.shape[1:], size, strict=True))
    large = ops.matmul(rows, ops.matmul(evidence, columns.T))
    low, high = (extreme(large, axis=(1, 2), keepdims=True) for extreme in (ops.min, ops.max))
    epsilon = keras.config.epsilon()
    # A compiled graph may add epsilon to `low` first, where it is lost: of a map that is the same
    # everywhere, nothing by nothing would remain.
    return (large - low) / ops.maximum(high - low + epsilon, epsilon)


def enlargement(given: int, wanted: int) -> np.ndarray:
    """Matrix float32 (wanted, given) of linear interpolation between the first and the last place."""
    places = np.linspace(0, given - 1, wanted)
    return np.maximum(1 - np.abs(places[:, np.newaxis] - np.arange(given)), 0).astype(np.float32)


def pooled(features: Tensor) -> Tensor:
    """float32 (batch, channels) of a feature map, averaged over its places, or of vectors."""
    features = ops.cast(features, "float32")
    return ops.mean(features, axis=(1, 2)) if len(features.shape) == 4 else features


def distance(features: Tensor, pixels: Tensor, distribution: FeatureDistribution) -> Tensor:
    """`FeatureDistribution.distances` float32 (batch,) of what `pooled` takes and of `pixels` float32 (batch, height,
    width, channels) in 0..255.

    What lies outside the components is computed as a vector: in single precision the difference of
    two sums of squares would lose it.
    """
    features = pooled(features)
    components = distribution.components.astype(np.float32)
    standardised = (features - distribution.centre.astype(np.float32)) / distribution.scale.astype(np.float32)
    along = ops.matmul(standardised, components.T)
    rest = ops.sum((standardised - ops.matmul(along, components)) ** 2, axis=1)
    squared = ops.sum(along**2 / distribution.variances.astype(np.float32), axis=1) + rest / distribution.noise
    return ops.maximum(ops.sqrt(squared) / distribution.reach, _by_pixels(pixels, distribution))


def _by_pixels(pixels: Tensor, distribution: FeatureDistribution) -> Tensor:
    """`FeatureDistribution.by_pixels` float32 (batch,) of `pixels` as `distance` takes them."""
    rows, columns = (averaging(length, SIDE) for length in pixels.shape[1:3])
    cells = ops.matmul(rows, ops.matmul(ops.mean(pixels, axis=-1), columns.T))
    apart = cells - ops.mean(cells, axis=(1, 2), keepdims=True)
    deviation = ops.sqrt(ops.mean(apart**2, axis=(1, 2), keepdims=True))
    weights = distribution.weights.astype(np.float32).reshape(SIDE, SIDE)
    return ops.sum(apart / (deviation + FAINT) * weights, axis=(1, 2)) + distribution.bias
