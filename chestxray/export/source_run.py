"""The run behind an exported file: its graph in single precision, and the metadata."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from chestxray._version import RESEARCH_ONLY, VERSION
from chestxray.data.images.reading import preprocessing
from chestxray.evaluation.decision import finding_rule
from chestxray.evaluation.decision.finding_rule import Rule
from chestxray.evaluation.decision.out_of_distribution import FILE as REFUSAL
from chestxray.evaluation.decision.out_of_distribution import FeatureDistribution
from chestxray.evaluation.decision.rule import FILE as DECISION
from chestxray.explanation.inference_graph import OWN, Graph
from chestxray.inference import run_heat_maps
from chestxray.inference.export_metadata import OUTPUTS
from chestxray.inference.heat_maps import HeatMaps
from chestxray.runs.run_folder import Run


@dataclass(frozen=True)
class SourceRun:
    """A run to be exported in the format ``form``.

    ``model`` is the run's own, with which the file is compared; ``graph`` is the exported computation; ``layer`` is
    the layer of the heat maps, None where there is none, and ``heat_maps`` their scale and badge.
    """

    run: Run
    form: str
    model: keras.Model
    graph: Graph
    layer: str | None
    decision: Rule
    distribution: FeatureDistribution | None
    heat_maps: HeatMaps | None

    @classmethod
    def of(cls, run: Run, form: str) -> SourceRun:
        """Load the model of `run`.

        Raises:
            DataError: a file of the run is damaged.
        """
        decision = finding_rule.read(run.folder / DECISION)
        distribution = FeatureDistribution.read(run.folder / REFUSAL) if decision.features else None
        if distribution is not None and _drowned(distribution):
            distribution = None
        # Without a scale no map could be shown.
        maps = run_heat_maps.of_run(run)
        layer = None if maps is None else run.cam_layer[0]
        model = run.model
        whole = single_precision(model)
        features = None if distribution is None else decision.features
        graph = Graph(whole, layer, decision=decision, distribution=distribution, features=features)
        # The other formats have no gradients.
        if graph.reason and form != "savedmodel":
            graph = Graph(whole, None, distribution=distribution, features=features)
        return cls(run, form, model, graph, layer, decision, distribution, maps)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the file's outputs."""
        if self.form == "keras":
            return ("probabilities",)
        given = {
            "probabilities": True,
            "map": self.graph.has_map,
            "mapped": self.graph.has_map and self.graph.shown > 0,
            "distance": self.distribution is not None,
        }
        return tuple(name for name in OUTPUTS if given[name])

    @property
    def notes(self) -> tuple[str, ...]:
        """Outputs that the file does not have, with the reasons."""
        if self.form == "keras":
            return ("A Keras file gives probabilities alone: no map, no distance.",)
        notes = []
        if self.run.cam_layer[0] is None:
            notes.append("No map: the architecture has no convolutional layer to explain.")
        elif self.heat_maps is None:
            notes.append(
                "No map: the run states no scale of its heat maps. `chestxray evaluate RUN --heatmaps 2` does."
            )
        elif not self.graph.has_map:
            reason = Graph(self.model, self.layer).reason
            notes.append(f"No map: behind {self.layer} its gradient cannot be written in forward operations, {reason}.")
        if self.distribution is None and self.decision.features is not None:
            notes.append(
                "No distance: the run's features differ so little from image to image that rounding, which is not "
                "the same in any two programs, would decide what is refused."
            )
        elif self.distribution is None:
            notes.append("No distance: the run refuses nothing.")
        return tuple(notes)

    @property
    def halved(self) -> bool:
        """Whether the run's model computes in half precision: the float32 file then agrees less closely."""
        return _halved(self.model)

    @cached_property
    def compiled(self) -> Any:
        """The graph as a function of raw pixels, uint8 (batch, height, width, channels), to all outputs.

        The input is uint8 so that pixels scaled to 0..1 are rejected instead of misread.
        """

        def answer(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.graph.compute(tf.cast(pixels, tf.float32), OWN)

        return tf.function(answer, input_signature=[pixels_of(self.graph)], autograph=False)

    @property
    def description(self) -> dict[str, Any]:
        """The metadata of the file, see docs/export.md."""
        run = self.run
        height, width = self.graph.input_shape[:2]
        return {
            "chestxray": VERSION,
            "research_use": RESEARCH_ONLY,
            "name": run.folder.resolve().name,
            "model": run.recipe.model,
            "image_size": [height, width],
            "fit": run.recipe.fit,
            "preprocessing": preprocessing((int(height), int(width)), run.recipe.fit),
            "outputs": list(self.outputs),
            "decision": self.decision.to_json(),
            "heat_maps": self.heat_maps.to_json() if self.heat_maps is not None and "map" in self.outputs else None,
            "refusal_threshold": None if self.distribution is None else self.distribution.threshold,
            "data": {name: run.environment["data"].get(name) for name in ("name", "fingerprint", "licence")},
            "packages": run.environment["packages"],
        }


def pixels_of(graph: Graph) -> tf.TensorSpec:
    """Return the input of a file: raw pixels, uint8 (batch, height, width, channels)."""
    return tf.TensorSpec((None, *graph.input_shape), tf.uint8, name="pixels")


def single_precision(model: keras.Model) -> keras.Model:
    """Return `model`, or, where any layer computes in half precision, a copy that computes in float32."""
    if not _halved(model):
        return model

    def layer_of(operation: Any) -> Any:
        if not isinstance(operation, keras.layers.Layer):
            return operation
        return type(operation).from_config({**operation.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=layer_of)
    for variable, value in zip(copy.variables, model.variables, strict=True):
        variable.assign(np.asarray(value))
    return copy


def _drowned(distribution: FeatureDistribution) -> bool:
    """Return whether rounding changes the distances too much: features of two runtimes agree to about 1e-6."""
    return bool(np.sqrt(np.mean((distribution.centre / distribution.scale) ** 2)) * 1e-6 > 1e-3)


def _halved(model: keras.Model) -> bool:
    return any(layer.compute_dtype != "float32" for layer in model.layers)
