"""One compiled graph from raw pixels to probabilities, Grad-CAM map and distance from the training images.

The map equals tf-keras-vis's `Gradcam` of the logits, which evaluates the network once more for the probabilities and
builds its graph anew at every call; no map is scaled by its own values. Where `closed_form_gradient` supports the
layers behind the feature map, the graph has forward operations only and can be exported.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from chestxray.errors import NonFiniteError, PluginError
from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.decision.out_of_distribution import FAINT, SIDE, FeatureDistribution, averaging
from chestxray.explanation.closed_form_gradient import HeadGradient, NoClosedForm
from chestxray.explanation.gradcam import check_layer, enlarge, positive
from chestxray.models import backend, interrupts, non_finite
from chestxray.models.assembly import CALIBRATION

if not backend.on_jax():
    import tensorflow as tf
if TYPE_CHECKING:
    from chestxray.evaluation.decision.finding_rule import Rule

Tensor = Any
#: In place of a class number: the class that the model decides on.
OWN = -1
#: Most findings of an image that get a map, where nobody names one.
SHOWN = 3


class Graph:
    """The outputs of `model` as one graph of raw pixels.

    `layer` is the layer that maps are computed from, None for no maps. `decision` determines the explained class,
    the decided one; None: the most probable one. With a decision on findings the `SHOWN` most probable ones are
    explained, each by a map of its own, from one evaluation of the network. `features` names a layer whose pooled
    output is returned, or, with `distribution`, its distance from the training images.

    ``reason`` is empty where the maps come from forward operations only; otherwise it names the layer that has no
    closed form, and TensorFlow's tape takes the gradient. `tape` asks for the tape in any case.

    Raises:
        PluginError: the model has no layer of that name, or its output is not of rank 4.
    """

    def __init__(
        self,
        model: keras.Model,
        layer: str | None,
        *,
        decision: Rule | None = None,
        distribution: FeatureDistribution | None = None,
        features: str | None = None,
        tape: bool = False,
    ) -> None:
        self.input_shape = tuple(model.inputs[0].shape[1:])
        self.classes = int(model.output.shape[-1])
        self.has_map = layer is not None
        self.reason = "asked for" if tape else ""
        #: Number of findings that are explained where nobody names one; 0 in a model of classes.
        self.shown = min(SHOWN, self.classes) if isinstance(decision, FindingDecision) else 0
        self._decision, self._distribution = decision, distribution
        self._head: HeadGradient | None = None
        wanted: dict[str, Any] = {"probabilities": model.output}
        if features is not None:
            wanted["features"] = model.get_layer(features).output
        if layer is not None:
            check_layer(model, layer)
            self._layer = model.get_layer(layer)
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
        """Return the outputs for `pixels`, float32 (batch, height, width, channels) in 0..255, float32 but ``mapped``.

        ``probabilities`` (batch, classes); with a layer, ``map`` (batch, height, width) of 0 and more, in logits by the
        mean gradient, for the class of each image in `classes`, int32 (batch,); with a distribution, ``distance``
        (batch,), else, with a layer of features, ``features`` (batch, channels).

        With a decision on findings and without `classes`, ``map`` is (batch, shown, height, width), and ``mapped``,
        int32 (batch, shown), has the numbers of the explained findings, the most probable first.
        """
        values, evidence, mapped = self._values(pixels, classes)
        given = {"probabilities": values["probabilities"]}
        if evidence is not None:
            size = self.input_shape[:2]
            large = enlarge(ops.reshape(evidence, (-1, *evidence.shape[-2:])), size)
            given["map"] = large if mapped is None else ops.reshape(large, (-1, self.shown, *size))
        if mapped is not None:
            given["mapped"] = mapped
        if self._distribution is not None:
            given["distance"] = distance(values["features"], pixels, self._distribution)
        elif "features" in values:
            given["features"] = pooled(values["features"])
        return given

    def evidence(self, pixels: Tensor, classes: Tensor) -> Tensor:
        """Return the maps, float32 (batch, rows, columns), at the layer's own size and scale."""
        return self._values(pixels, classes)[1]

    def not_finite(self, pixels: np.ndarray) -> str:
        """Return what gives NaN or infinity for `pixels` as `compute` takes them, for a message: the first layer of the
        graph, or the gradient.
        """
        first = non_finite.first_layer(self.probe, ops.convert_to_tensor(pixels, "float32"))
        if not first:
            return "all layers of the graph are finite, but the gradient of the logits is not"
        return f"the first layer of the graph that is not finite: {first}"

    def _values(self, pixels: Tensor, classes: Tensor) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
        """Return the network's outputs, the maps' evidence, and the numbers of the findings where it chose several."""
        if not self.has_map:
            return self.probe(pixels, training=False), None, None
        if backend.on_jax():
            return self._values_of_jax(pixels, classes)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            if self._head is None:
                tape.watch(pixels)
            values = self.probe(pixels, training=False)
            chosen, mapped = self._explained(values["probabilities"], classes)
            scores = [ops.sum(values["logits"] * one) for one in chosen]
        if self._head is not None:
            weights = [self._head.weights(values.get("needs", ()), one) for one in chosen]
        else:
            weights = [_by_tape(tape.gradient(score, values["map"])) for score in scores]
        maps = [positive(values["map"], one) for one in weights]
        return values, maps[0] if mapped is None else ops.stack(maps, axis=1), mapped

    def _values_of_jax(self, pixels: Tensor, classes: Tensor) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
        """As `_values`, with JAX's gradient where the layers have no closed form."""
        values = self.probe(pixels, training=False)
        chosen, mapped = self._explained(values["probabilities"], classes)
        if self._head is not None:
            weights = [self._head.weights(values.get("needs", ()), one) for one in chosen]
        else:
            import jax

            nothing = ops.zeros_like(values["map"])
            score = jax.grad(lambda added, one: ops.sum(self._logits(pixels, added) * one))
            weights = [_by_tape(score(nothing, one)) for one in chosen]
        maps = [positive(values["map"], one) for one in weights]
        return values, maps[0] if mapped is None else ops.stack(maps, axis=1), mapped

    def _logits(self, pixels: Tensor, added: Tensor) -> Tensor:
        """Return the logits where `added` is added to the feature map: JAX takes gradients with respect to what a
        function is given, and the feature map is made within.
        """
        layer, call = self._layer, self._layer.call
        try:
            # On the one layer, and past Keras's own __setattr__, which tracks what it is given.
            object.__setattr__(layer, "call", lambda *given, **options: call(*given, **options) + added)
            return self.probe(pixels, training=False)["logits"]
        finally:
            vars(layer).pop("call", None)

    def _explained(self, probabilities: Tensor, classes: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Return what each map explains, one-hot, float32 (batch, classes), and the numbers of the findings where the
        graph chose several.
        """
        several = self.shown and isinstance(classes, int) and classes == OWN
        mapped = self._most_probable(probabilities) if several else None
        numbers = [classes] if mapped is None else [mapped[:, place] for place in range(self.shown)]
        return [self._chosen(probabilities, one) for one in numbers], mapped

    def _most_probable(self, probabilities: Tensor) -> Tensor:
        """Return the numbers of the most probable findings, int32 (batch, shown); of equal ones the lower is first."""
        if backend.on_jax():
            return ops.top_k(probabilities, self.shown)[1]
        return tf.math.top_k(probabilities, self.shown).indices

    def _chosen(self, probabilities: Tensor, classes: Tensor) -> Tensor:
        """Return `classes` one-hot, float32 (batch, classes); `OWN` stands for the decided class."""
        decision = None if isinstance(self._decision, FindingDecision) else self._decision
        if decision is not None and decision.cutoff is not None:
            number, threshold = decision.cutoff
            own = ops.where(probabilities[:, number] >= threshold, number, 1 - number)
        else:
            weighed = probabilities
            if decision is not None and decision.priors:
                weighed = probabilities / ops.convert_to_tensor(decision.priors, "float32")
            # Not Keras's argmax, whose bit operations ONNX and LiteRT do not have.
            own = ops.argmax(weighed, axis=-1) if backend.on_jax() else tf.argmax(weighed, -1, output_type=tf.int32)
        return ops.one_hot(ops.where(ops.equal(classes, OWN), own, classes), self.classes, dtype="float32")


def _by_tape(gradient: Tensor | None) -> Tensor:
    """Return Grad-CAM's weights, float32 (batch, channels), from the gradient with respect to the feature map."""
    if gradient is None:
        raise PluginError("cam_layer must name a layer that the logits depend on: no gradient leads there.")
    return ops.mean(ops.cast(gradient, "float32"), axis=(1, 2))


class OnePass:
    """``OnePass(model, layer)(images)`` computes probabilities and heat maps together, by a `Graph` compiled at the
    first call for any number of images.
    """

    def __init__(self, model: keras.Model, layer: str) -> None:
        check_layer(model, layer)
        self.graph = Graph(model, layer)

    def __call__(
        self, images: np.ndarray, classes: np.ndarray | None = None, batch_size: int = 16
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities, float32 (rows, classes), and maps, float32 (rows, height, width), as `Graph`.

        `images`: (rows, height, width, channels) in 0..255; `classes`: the class or finding to explain, int
        (rows,); None: the most probable one of each image. A map without positive evidence is all zero.

        Raises:
            NonFiniteError: a map or a probability holds NaN or infinity; the message names the first layer that does.
        """
        wanted = np.full(len(images), OWN, np.int32) if classes is None else np.asarray(classes, np.int32)
        probabilities = [np.empty((0, self.graph.classes), np.float32)]
        maps = [np.empty((0, *self.graph.input_shape[:2]), np.float32)]
        with interrupts.deferred() as check:
            for start in range(0, len(images), batch_size):
                check()
                part = slice(start, start + batch_size)
                given = self._compiled(images[part].astype(np.float32), wanted[part])
                probabilities.append(np.asarray(given["probabilities"]))
                maps.append(np.asarray(given["map"]))
                if not (np.isfinite(probabilities[-1]).all() and np.isfinite(maps[-1]).all()):
                    raise NonFiniteError(f"A heat map cannot be drawn: {self.graph.not_finite(images[part])}.")
        return np.concatenate(probabilities), np.concatenate(maps)

    @cached_property
    def _compiled(self) -> Any:
        if backend.on_jax():
            return _jitted(self.graph)
        images = tf.TensorSpec((None, *self.graph.input_shape), tf.float32)
        compute = tf.function(self.graph.compute, autograph=False)
        traced = compute.get_concrete_function(images, tf.TensorSpec((None,), tf.int32))
        return lambda images, classes: traced(tf.constant(images), tf.constant(classes))


def _jitted(graph: Graph) -> Any:
    """Return `graph`'s outputs as a function of images and classes, compiled by JAX with the weights as inputs of it:
    as constants they would be copied into the program.
    """
    import jax

    from chestxray.models import jax_devices

    variables = graph.probe.variables
    values = [jax_devices.value(variable) for variable in variables]

    @jax.jit
    def compute(values: list[Any], images: Any, classes: Any) -> dict[str, Any]:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return graph.compute(images, classes)

    return lambda images, classes: compute(values, images, classes)


def pooled(features: Tensor) -> Tensor:
    """Return float32 (batch, channels): a feature map averaged over its positions; vectors are returned as they are."""
    features = ops.cast(features, "float32")
    return ops.mean(features, axis=(1, 2)) if len(features.shape) == 4 else features


def distance(features: Tensor, pixels: Tensor, distribution: FeatureDistribution) -> Tensor:
    """Return `FeatureDistribution.distances`, float32 (batch,), for `features` as `pooled` takes them and `pixels`,
    float32 (batch, height, width, channels) in 0..255.

    The residual outside the components is computed as a vector: in single precision the difference of
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
    """Return `FeatureDistribution.by_pixels`, float32 (batch,), for `pixels` as `distance` takes them."""
    rows, columns = (averaging(length, SIDE) for length in pixels.shape[1:3])
    cells = ops.matmul(rows, ops.matmul(ops.mean(pixels, axis=-1), columns.T))
    apart = cells - ops.mean(cells, axis=(1, 2), keepdims=True)
    deviation = ops.sqrt(ops.mean(apart**2, axis=(1, 2), keepdims=True))
    weights = distribution.weights.astype(np.float32).reshape(SIDE, SIDE)
    return ops.sum(apart / (deviation + FAINT) * weights, axis=(1, 2)) + distribution.bias
