"""Inference engine for the folder of a run or an ensemble, with Keras on TensorFlow."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from chestxray.data.images.pixels import Fit
from chestxray.errors import DataError, InputError
from chestxray.evaluation.decision import finding_rule
from chestxray.evaluation.decision.finding_rule import FindingDecision, Rule
from chestxray.evaluation.decision.out_of_distribution import FILE as REFUSAL
from chestxray.evaluation.decision.out_of_distribution import FeatureDistribution
from chestxray.evaluation.decision.rule import FILE as DECISION
from chestxray.evaluation.decision.rule import NOT_CHOSEN, Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.inference.engine import Engine, Outputs, check_maps
from chestxray.inference.ensemble import Ensemble
from chestxray.inference.heat_maps import HeatMaps
from chestxray.models import interrupts, replicas, startup
from chestxray.models.lung_segmenter import LungSegmenter
from chestxray.recipe import GRADCAM
from chestxray.runs import members, run_folder
from chestxray.runs.members import ENSEMBLE
from chestxray.runs.run_folder import HEATMAPS, MAP_CHECKS, MODEL, RECIPE, Run

if TYPE_CHECKING:
    import keras

#: Most levels of ensembles within ensembles.
DEEPEST = 4


def folders(folder: Path, above: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """Return the folders of the runs behind `folder`: itself, or the members of an ensemble.

    `above` are the ensembles that it is a member of, resolved paths.

    Raises:
        InputError: the folder does not exist, has no weights or decision rule, or its run is not finished.
        DataError: an ensemble's list of members is damaged, or contains the ensemble itself.
    """
    if (folder / ENSEMBLE).is_file():
        listed, place = members.folders(folder), folder.resolve()
        if place in above:
            raise DataError(f"{folder / ENSEMBLE} is damaged: the ensemble is a member of itself.")
        if len(above) == DEEPEST:
            raise DataError(f"{folder / ENSEMBLE} is damaged: it is the {DEEPEST + 1}th ensemble within another.")
        found: list[Path] = []
        for member in listed:
            found += folders(member, (*above, place))
            if len(found) > members.MOST:
                raise DataError(f"{folder / ENSEMBLE} is damaged: it leads to more than {members.MOST} runs.")
        return tuple(found)
    if (folder / RECIPE).is_file() and not (folder / MODEL).is_file() and (folder / "predictions.csv").is_file():
        raise InputError(
            f"{folder} holds predictions and no weights ({MODEL}). Predict with the run that made them, or with an "
            "ensemble of runs (`chestxray ensemble`)."
        )
    run_folder.open_trained(folder, task=None)
    if not (folder / DECISION).is_file():
        raise InputError(f"{folder} has no {DECISION}: run it again with this version of chestxray.")
    return (folder,)


def load_engine(folder: Path) -> Engine:
    """Return the engine for the folder of a finished run or of an ensemble.

    Weights and TensorFlow are loaded at its first `run`.

    Raises:
        InputError, DataError: as `folders`, files that are damaged, and a member of an ensemble that has changed.
    """
    runs = folders(folder)
    if not (folder / ENSEMBLE).is_file():
        return KerasEngine(runs[0])
    members.check_unchanged(folder)
    engines = [load_engine(member) for member in members.folders(folder)]
    path = folder / DECISION
    return Ensemble(
        folder.resolve().name, engines, finding_rule.read(path) if path.is_file() else _unchosen(engines[0])
    )


def _unchosen(member: Engine) -> Rule:
    """Return the rule of an ensemble whose members have no validation images in common, so that none was chosen: the
    most probable class decides; a finding is called present at 0.5.
    """
    if not isinstance(member.decision, FindingDecision):
        return Decision(member.classes, None, Calibration(), {}, "")
    because = f"{NOT_CHOSEN}: the members have no validation images in common"
    rules = member.decision.findings.items()
    return FindingDecision(
        {name: Decision(rule.classes, name, Calibration(), {name: 0.5}, because) for name, rule in rules}
    )


def max_pixels(folder: Path) -> int:
    """Return the most pixels that an image may have: the least limit of the runs of `folder`."""
    return min(run_folder.open_trained(path, task=None).recipe.max_pixels for path in folders(folder))


def fingerprint(folder: Path, options: str = "") -> str:
    """Return a hash, 16 hexadecimal digits, of all that answers depend on: weights, decision rules, the scale
    and the checks of heat maps, and `options`.

    Raises:
        InputError, DataError: as `folders`.
    """
    digest = xxhash.xxh3_64(options.encode())
    ensemble = [folder / DECISION] if (folder / ENSEMBLE).is_file() else []
    files = [run / name for run in folders(folder) for name in (MODEL, DECISION, REFUSAL, RECIPE, HEATMAPS, MAP_CHECKS)]
    for path in [*ensemble, *files]:
        digest.update(f"{path.name}:".encode())
        if path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class KerasEngine:
    """The model of the run in ``folder``, compiled as one graph for any number of images.

    Raises:
        InputError, DataError: the folder's files are damaged; damaged weights are found by the first `run`.
        PluginError: its images are cut by a segmenter that is not installed.
    """

    folder: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Read here, so that damage is reported at once and threads only read cached values.
        _ = self.decision, self.image_size, self.fit, self.segmenter, self.heat_maps, self.refusal_threshold

    @cached_property
    def _run(self) -> Run:
        return run_folder.open_trained(self.folder, task=None)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, or findings, in the order of the model's outputs."""
        return self.decision.classes

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the model's input."""
        size = self._run.recipe.image_size
        if size is None:
            raise DataError(f"{self.folder / RECIPE} is damaged: image_size is missing.")
        return size

    @cached_property
    def fit(self) -> Fit:
        """How images were fitted to the size in training."""
        return self._run.recipe.fit

    @cached_property
    def segmenter(self) -> LungSegmenter | None:
        """What the run's images were cut to their lungs by, None where they are whole.

        Raises:
            PluginError: it is not installed, or another one is.
        """
        found = self._run.segmenter
        if found is not None:
            found.require()
        return found

    @cached_property
    def decision(self) -> Rule:
        """The decision rule chosen on validation."""
        return finding_rule.read(self.folder / DECISION)

    @cached_property
    def _distribution(self) -> FeatureDistribution | None:
        return FeatureDistribution.read(self.folder / REFUSAL) if self.decision.features else None

    @property
    def refusal_threshold(self) -> float | None:
        """The distance above which images are refused; None where the run refuses nothing."""
        return None if self._distribution is None else self._distribution.threshold

    @property
    def _layer(self) -> str | None:
        return self._run.cam_layer[0]

    @cached_property
    def heat_maps(self) -> HeatMaps | None:
        """The scale and the badge of the maps; None where there is no layer for them, or the run states no scale."""
        from chestxray.inference import run_heat_maps

        return run_heat_maps.of_run(self._run)

    @cached_property
    def _model(self) -> keras.Model:
        startup.start()
        from chestxray.models import devices

        with devices.strategy("auto").scope():  # several GPUs share the images
            model = self._run.model
        path = self.folder / MODEL
        takes, gives = tuple(model.inputs[0].shape[1:3]), model.output.shape[-1]
        if takes != self.image_size or gives != len(self.classes):
            raise DataError(
                f"{path} is of another run: it takes images of {takes} and gives {gives} classes, {RECIPE} and "
                f"{DECISION} have {self.image_size} and {len(self.classes)}."
            )
        layers = {layer.name: layer for layer in model.layers}
        for name in filter(None, (self._layer, self.decision.features)):
            if name not in layers:
                raise DataError(f"{path} is of another run: it has no layer {name!r}.")
        if self._distribution is not None:
            width = layers[str(self.decision.features)].output.shape[-1]
            if width != len(self._distribution.centre):
                raise DataError(
                    f"{self.folder / REFUSAL} is of another run: it has {len(self._distribution.centre)} features, the "
                    f"layer {self.decision.features} {width}."
                )
        return model

    @cached_property
    def _plain(self) -> Any:
        return self._compiled(None)

    @cached_property
    def _explaining(self) -> Any:
        return self._compiled(self._layer)

    def _compiled(self, layer: str | None) -> Any:
        """Return the outputs of `inference_graph.Graph` as a function of uint8 (n, height, width), traced for any n."""
        model = self._model
        import tensorflow as tf

        from chestxray.explanation.inference_graph import Graph

        graph = Graph(model, layer, decision=self.decision, features=self.decision.features)
        signature = tf.TensorSpec((None, *self.image_size), tf.uint8)

        def compute(pixels: tf.Tensor) -> Any:
            return graph.compute(tf.cast(pixels, tf.float32)[..., tf.newaxis])

        strategy = replicas.strategy_of(model)
        if strategy is not None:
            return replicas.shared(compute, signature, strategy)
        return tf.function(compute, input_signature=[signature], autograph=False)

    def run(self, pixels: np.ndarray, *, maps: bool = False) -> Outputs:
        """As `Engine.run`."""
        if maps:
            check_maps(self)
        with self._lock:
            # Only the first call loads and traces; running is left to TensorFlow's own locks.
            graph = self._explaining if maps else self._plain
        with interrupts.deferred():
            given = {name: value.numpy() for name, value in graph(pixels).items()}
        if not all(np.isfinite(given[name]).all() for name in ("probabilities", "map") if name in given):
            raise DataError(f"{self.folder / MODEL} is damaged: {self._not_finite(pixels)}.")
        far = None if self._distribution is None else self._distribution.distances(given["features"], pixels)
        return Outputs(given["probabilities"], far, given.get("map"), given.get("mapped"))

    def _not_finite(self, pixels: np.ndarray) -> str:
        from chestxray.explanation.inference_graph import Graph

        return Graph(self._model, self._layer).not_finite(pixels[..., np.newaxis])

    def raw_maps(self, method: str, pixels: np.ndarray, classes: np.ndarray, layer: str | None = None) -> np.ndarray:
        """Return raw maps, float32 (n, height, width), by a method of `published_explanations.maps_of`, of `classes`,
        int (n,), for `pixels` as `run` takes them. `layer`: default the architecture's own.
        """
        with self._lock:
            model = self._model
        from chestxray.explanation.published_explanations import maps_of

        return maps_of(method, model, layer or self._layer, pixels[..., np.newaxis], classes)

    def check_layer(self, layer: str) -> None:
        """Raise `PluginError` where `layer` is not a feature map of the network."""
        from chestxray.explanation.gradcam import check_layer

        with self._lock:
            model = self._model
        check_layer(model, layer)

    @property
    def layer(self) -> str | None:
        """The layer of feature maps that maps are made at by default, None where the architecture has none."""
        return self._layer


def maps_of(engine: Engine, pixels: np.ndarray, number: int) -> np.ndarray:
    """Return the heat maps, float32 (n, height, width), of the class or finding of that number, however probable it is,
    for `pixels` as `Engine.run` takes them, in the unit of the engine: of an ensemble, the mean over its members with
    maps. `engine` is one of `load_engine`.

    Raises:
        InputError: it has no heat maps.
    """
    check_maps(engine)
    assert isinstance(engine, KerasEngine | Ensemble), "load_engine opens no other"
    return engine.raw_maps(GRADCAM, pixels, np.full(len(pixels), number))
