"""Verifies an exported file against the run's model, and measures its speed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from chestxray.data.images import reading
from chestxray.data.images.pixels import UnreadableImage
from chestxray.data.sources.phantom.samples import drawn
from chestxray.errors import ExportError
from chestxray.evaluation.decision.rule import Decision
from chestxray.explanation.inference_graph import Graph, OnePass
from chestxray.export.source_run import SourceRun
from chestxray.inference.onnx_engine import OnnxEngine
from chestxray.models.assembly import features_model
from chestxray.runs.run_folder import Run

#: Number of compared images, and batch size of the speed measurement.
COUNT = 16
#: Largest allowed differences; that of maps is a share of their scale, that of distances is relative, that of
#: ``mapped`` is of probabilities: of the finding that a map is of, and of the one that is as probable in the model as
#: the place of the map says.
TOLERANCE = {"probabilities": 1e-4, "map": 1e-3, "mapped": 1e-4, "distance": 1e-3}
#: The same where the run's model computes in half precision and the file in single precision.
HALVED = {"probabilities": 2e-2, "map": 1e-1, "mapped": 2e-2, "distance": 5e-2}

Runner = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Checked:
    """The result of a verification.

    ``differences``: output -> the largest difference from the run's model, below ``tolerances``, if any. ``rate`` and
    ``tensorflow_rate``: images a second with all outputs, of the file and of TensorFlow. ``images`` describes the
    compared images.
    """

    images: str
    differences: Mapping[str, float]
    tolerances: Mapping[str, float]
    rate: float
    tensorflow_rate: float


def check(subject: SourceRun, path: Path, *, exact: bool = True) -> Checked:
    """Compare the file at `path` with the model of `subject`. Without `exact`, of a file that computes in fewer bits,
    the differences are stated and none is too large.

    Raises:
        ExportError: the outputs differ by more than the tolerances.
    """
    pixels, said = _pixels(subject)
    runner = RUNNERS[subject.form](subject, path)
    given = runner(pixels)
    _require_finite(subject, pixels, given)
    differences = compare(subject, pixels, given)
    allowed = HALVED if subject.halved else TOLERANCE
    tolerances = {name: allowed[name] for name in differences} if exact else {}
    for name, difference in differences.items():
        if exact and not difference <= tolerances[name]:
            raise ExportError(
                f"The exported {subject.form} file does not answer as the model does and was deleted: {name} differ "
                f"by {difference:.2g} on {said}; allowed: {tolerances[name]:g}."
            )
    return Checked(
        images=said,
        differences=differences,
        tolerances=tolerances,
        rate=rate(lambda: runner(pixels), len(pixels)),
        tensorflow_rate=rate(lambda: subject.compiled(tf.constant(pixels)), len(pixels)),
    )


def _require_finite(subject: SourceRun, pixels: np.ndarray, given: Mapping[str, np.ndarray]) -> None:
    """Raise `ExportError` if an output of the file is NaN or infinite, with the layer of the model that is the first to
    be so; where the model is finite, the file alone is at fault.
    """
    if odd := [name for name, values in given.items() if not np.isfinite(values).all()]:
        raise ExportError(
            f"The exported {subject.form} file gives NaN or infinity ({', '.join(odd)}) and was deleted. Of the model "
            f"itself, {Graph(subject.model, subject.layer).not_finite(pixels)}."
        )


def compare(subject: SourceRun, pixels: np.ndarray, given: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the largest difference of each output `given` from that of the run's model for `pixels`, uint8."""
    model = subject.model
    wanted = {"probabilities": model.output}
    if subject.distribution is not None:
        wanted["features"] = features_model(model, str(subject.decision.features)).outputs[1]
    found = keras.Model(model.inputs[0], wanted)(tf.constant(pixels, tf.float32), training=False)
    probabilities = np.asarray(found["probabilities"])
    differences = {"probabilities": _largest(given["probabilities"] - probabilities)}
    if "mapped" in given and subject.layer is not None:
        differences |= _of_findings(subject, pixels, probabilities, given)
    elif "map" in given and subject.layer is not None:
        assert isinstance(subject.decision, Decision), "maps of findings come with their numbers"
        decided = subject.decision.decided(probabilities)
        # Rounding may change the decision of an image exactly at the threshold.
        alike = subject.decision.decided(given["probabilities"]) == decided
        _, maps = OnePass(model, subject.layer)(pixels[alike], decided[alike])
        differences["map"] = _of_scale(subject, given["map"][alike] - maps)
    if "distance" in given and subject.distribution is not None:
        distances = subject.distribution.distances(np.asarray(found["features"]), pixels.mean(axis=-1))
        differences["distance"] = _largest(given["distance"] / distances - 1)
    return differences


def _of_findings(
    subject: SourceRun, pixels: np.ndarray, probabilities: np.ndarray, given: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return the largest differences of the maps of findings, each from the map of the finding that the file names,
    and of the probabilities of these findings from the largest ones.
    """
    mapped, explain = given["mapped"], OnePass(subject.model, str(subject.layer))
    largest = -np.sort(-probabilities, axis=1)[:, : mapped.shape[1]]
    named = np.take_along_axis(probabilities, mapped, axis=1)
    maps = np.stack([explain(pixels, numbers)[1] for numbers in mapped.T], axis=1)
    return {"map": _of_scale(subject, given["map"] - maps), "mapped": _largest(named - largest)}


def _of_scale(subject: SourceRun, differences: np.ndarray) -> float:
    """Return the largest of the differences of maps as a share of their scale."""
    assert subject.heat_maps is not None, "without a scale there are no maps"
    return _largest(differences) / (subject.heat_maps.highest or 1.0)


def rate(answer: Callable[[], Any], count: int, seconds: float = 1.0) -> float:
    """Return images a second of `answer`, which processes `count` images: the best of several calls after the first."""
    answer()
    best, spent = np.inf, 0.0
    while spent < seconds:
        start = time.perf_counter()
        answer()
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + taken
    return count / best


def _pixels(subject: SourceRun) -> tuple[np.ndarray, str]:
    """Return images, uint8 (COUNT, height, width, channels), and a description of them."""
    paths = _tested(subject.run)
    size = (int(subject.graph.input_shape[0]), int(subject.graph.input_shape[1]))
    try:
        found = [reading.read(Path(path), size=size, fit=subject.run.recipe.fit).pixels for path in paths]
        said = f"{len(found)} test images of the run"
    except UnreadableImage:
        found = []
    if not found:  # the files were moved or deleted, or it is a ready model, which has none
        found = list(drawn(COUNT, size))
        said = f"{COUNT} drawn phantoms (the run's images are not available)"
    return np.repeat(np.stack(found)[..., np.newaxis], subject.graph.input_shape[2], axis=-1), said


def _tested(run: Run) -> list[str]:
    if run.published:
        return []
    rows = run.index.rows
    paths: list[str] = rows.loc[rows["split"] == "test", "path"].head(COUNT).tolist()
    return paths


def _largest(differences: np.ndarray) -> float:
    return float(np.abs(differences).max(initial=0))


def _run_onnx(subject: SourceRun, path: Path) -> Runner:
    engine = OnnxEngine(path)
    return lambda pixels: engine.answer(pixels, subject.outputs)


def _run_litert(subject: SourceRun, path: Path) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
    return lambda pixels: interpreter.get_signature_runner("serve")(pixels=pixels)


def _run_savedmodel(subject: SourceRun, path: Path) -> Runner:
    loaded = tf.saved_model.load(str(path))
    return lambda pixels: {name: value.numpy() for name, value in loaded.serve(tf.constant(pixels)).items()}


def _run_keras(subject: SourceRun, path: Path) -> Runner:
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    compiled = tf.function(model, reduce_retracing=True)
    return lambda pixels: {"probabilities": compiled(tf.constant(pixels, tf.float32), training=False).numpy()}


RUNNERS: dict[str, Callable[[SourceRun, Path], Runner]] = {
    "onnx": _run_onnx,
    "litert": _run_litert,
    "savedmodel": _run_savedmodel,
    "keras": _run_keras,
}
