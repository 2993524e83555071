"""Quantises an exported ONNX file to 8-bit integers, and measures on the run's test images what that costs.

Static quantisation by ONNX Runtime with pairs of QuantizeLinear and DequantizeLinear (QDQ): ranges of activations come
from training images, weights have a scale for each channel. What comes from the last dense layer on (logits,
calibration, softmax or sigmoid), heat maps and distances are still computed in float32, of the quantised feature map.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.data import decoded
from chestxray.data.index import row_keys
from chestxray.errors import ExportError, InputError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired.comparison import compare
from chestxray.evaluation.paired.finding_comparison import compare_findings
from chestxray.evaluation.predictions import PREFIX, Predictions
from chestxray.export import formats, verification
from chestxray.export.source_run import SourceRun
from chestxray.inference.export_metadata import KEY
from chestxray.inference.onnx_engine import OnnxEngine
from chestxray.progress.bars import progress
from chestxray.runs.run_folder import Run

log = logging.getLogger(__name__)

#: Training images that ranges of activations are taken from.
CALIBRATED_ON = 256
#: The AUROC may be so much lower on the test images, unless the export is forced.
LARGEST_LOSS = 0.01
#: Images at a time, and seconds of the measurement of speed.
BATCH, SECONDS = 16, 4.0
_DENSE = ("MatMul", "Gemm")


@dataclass(frozen=True)
class Quantised:
    """What quantisation costs and gives: ``megabytes`` and ``rates`` (images a second) of the float32 file and of the
    int8 file, measured in turns; ``gap``: AUROC of the int8 file minus that of the run's model on its ``tested`` test
    images, with a paired interval by the test ``how``; ``calibrated_on``: number of training images; ``changed``: test
    images about which another decision is taken.
    """

    megabytes: tuple[float, float]
    rates: tuple[float, float]
    gap: Figure
    how: str
    tested: int
    changed: int
    calibrated_on: int

    @property
    def too_large(self) -> bool:
        """Whether the loss is larger than `LARGEST_LOSS`, or not known."""
        return self.gap.value is None or not self.gap.value >= -LARGEST_LOSS


def quantise(subject: SourceRun, path: Path, cache: Path, *, force: bool = False) -> Quantised:
    """Write `subject` as an ONNX file in 8-bit integers to `path`, and measure it beside the file in float32, which is
    verified first.

    Raises:
        InputError: the run's images are gone, or it has none.
        ExportError: the network cannot be converted or quantised, or its AUROC is lower by more than `LARGEST_LOSS` and
            `force` does not allow it.
    """
    run = subject.run
    if run.published or not (run.index.rows["split"] == "train").any():
        raise InputError(
            f"int8 is calibrated on the training images of a run, and {run.published or run.folder} has none. "
            "Allowed: an export without --quantise."
        )
    pixels = _pixels(run, cache)
    rows = run.index.rows
    places = np.flatnonzero(((rows["split"] == "train") & (rows["unreadable"] == "")).to_numpy())
    chosen = np.random.default_rng(run.recipe.seed).permutation(places)[:CALIBRATED_ON]
    with tempfile.TemporaryDirectory() as aside:
        plain = Path(aside) / "model.onnx"
        formats.write_onnx(subject, plain)
        verification.check(subject, plain)
        _write(subject, plain, path, pixels, np.sort(chosen))
        engines = OnnxEngine(plain), OnnxEngine(path)
        gap, how, tested, changed = _gap(subject, engines[1], pixels)
        sizes = plain.stat().st_size / 1e6, path.stat().st_size / 1e6
        rates = _rates(engines, pixels[chosen[:BATCH]])
    found = Quantised(sizes, rates, gap, how, tested, changed, len(chosen))
    if found.too_large and not force:
        change = "cannot be computed" if gap.value is None else f"changes by {gap.value:+.4f}"
        raise ExportError(
            f"In int8 the AUROC on the run's {tested} test images {change}; allowed: a loss of {LARGEST_LOSS:g} at "
            "most. The file was deleted. Allowed: --force, which keeps it, or the file without --quantise."
        )
    return found


def _pixels(run: Run, cache: Path) -> np.ndarray:
    """Return the images of the run's index, uint8 (rows, height, width), from the cache or the files."""
    name = run.environment.get("data", {}).get("decoded", "")
    kept = decoded.known(cache, name)
    if kept is not None and len(kept.pixels) == len(run.index):
        return kept.pixels
    used = run.index.rows.loc[run.index.rows["split"].isin(["train", "test"]) & (run.index.rows["unreadable"] == "")]
    if gone := [path for path in used["path"] if not Path(path).is_file()]:
        raise InputError(
            f"int8 is calibrated on the run's training images and tested on its test images, and {len(gone)} of these "
            f"{len(used)} are gone. The first: {gone[0]}. Allowed: the images where they were, the cache in which the "
            "run decoded them (--cache), or an export without --quantise."
        )
    recipe = run.recipe
    assert recipe.image_size is not None, "a finished run has it"
    return decoded.decode(run.index, recipe.image_size, recipe.fit, cache, max_pixels=recipe.max_pixels).pixels


def _write(subject: SourceRun, source: Path, target: Path, pixels: np.ndarray, places: np.ndarray) -> None:
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.starts = iter(range(0, len(places), BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            start = next(self.starts, None)
            return None if start is None else {"pixels": pixels[places[start : start + BATCH]][..., np.newaxis]}

    nodes = backbone_nodes(onnx.load(source))
    log.info("Quantising to int8, calibrated on %d training images ...", len(places))
    try:
        with _quiet():
            quantization.quantize_static(
                source,
                target,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_quantize=nodes,
            )
    except Exception as error:  # ONNX and ONNX Runtime each raise their own errors
        raise ExportError(f"ONNX Runtime cannot quantise this network: {str(error).partition(chr(10))[0]}") from error
    model = onnx.load(target)
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ExportError("ONNX Runtime found nothing to quantise in this network.")
    model.doc_string = onnx.load(source).doc_string
    onnx.helper.set_model_props(model, {KEY: json.dumps(_description(subject))})
    onnx.save(model, target)


def _description(subject: SourceRun) -> dict[str, Any]:
    """Return the metadata of the file: the checks of heat maps are of the network in float32, another one."""
    said = subject.description | {"precision": "int8"}
    if said["heat_maps"] is None:
        return said
    sentence = "The maps of this network in 8-bit integers were not checked, only those of the network in float32."
    return said | {"heat_maps": said["heat_maps"] | {"badge": "not checked", "sentence": sentence, "reasons": []}}


def backbone_nodes(model: Any) -> list[str]:
    """Return the names of the nodes of an ``onnx.ModelProto`` that lead to the last dense layer before its
    ``probabilities``, without that layer; all that lead to them where no layer is dense.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    order = {node.name: number for number, node in enumerate(model.graph.node)}

    def before(names: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while names:
            node = made.get(names.pop())
            if node is not None and node.name not in found:
                found[node.name] = node
                names += node.input
        return found

    leading = before(["probabilities"])
    dense = [node for node in leading.values() if node.op_type in _DENSE]
    if dense:
        leading = before(list(max(dense, key=lambda node: order[node.name]).input))
    return sorted(leading, key=lambda name: order[name])


def _gap(subject: SourceRun, engine: OnnxEngine, pixels: np.ndarray) -> tuple[Figure, str, int, int]:
    """Return the difference of the AUROCs on the test images, how it is tested, their number, and how many are decided
    on differently.
    """
    run = subject.run
    of_findings = run.task == "findings"
    table = (run.finding_predictions if of_findings else run.predictions).of("test")
    rows = row_keys(run.index.rows).get_indexer(row_keys(table.rows))
    given = []
    with progress("Testing int8", len(rows)) as advance:
        for start in range(0, len(rows), BATCH):
            some = pixels[rows[start : start + BATCH]]
            given.append(engine.run(some).probabilities.astype(np.float64))
            advance(len(some))
    probabilities = np.concatenate(given)
    differ = np.asarray(subject.decision.decided(probabilities) != subject.decision.decided(table.probabilities))
    changed = differ.reshape(len(rows), -1).any(axis=1)
    tables: Any = {"int8": _with(table, probabilities), "float32": table}
    options: Any = {"metric": "auroc", "replicates": run.recipe.replicates, "seed": run.recipe.seed}
    if of_findings:
        pair = compare_findings(tables, **options).mean.pairs[0]
    else:
        pair = compare(tables, positive=run.positive, **options).pairs[0]
    return _signed(pair), pair.test, len(rows), int(changed.sum())


def _with(table: Predictions | FindingPredictions, probabilities: np.ndarray) -> Predictions | FindingPredictions:
    columns = [PREFIX + name for name in table.classes]
    rows = table.rows.copy()
    rows[columns] = probabilities
    return type(table)(rows, table.classes)


def _signed(pair: Any) -> Figure:
    """Return the difference as int8 minus float32, whichever of them the comparison names first."""
    figure = pair.difference
    if pair.first == "int8" or figure.value is None:
        return figure
    low, high = figure.low, figure.high
    return Figure(-figure.value, None if high is None else -high, None if low is None else -low)


def _rates(engines: tuple[OnnxEngine, OnnxEngine], pixels: np.ndarray) -> tuple[float, float]:
    """Return images a second of both, the best of calls in turns, so that both meet the same load of the machine."""
    best = [np.inf, np.inf]
    for engine in engines:
        engine.run(pixels)
    started = time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        for number, engine in enumerate(engines):
            begun = time.perf_counter()
            engine.run(pixels)
            best[number] = min(best[number], time.perf_counter() - begun)
    return len(pixels) / best[0], len(pixels) / best[1]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop ONNX Runtime's advice to preprocess the graph, which tf2onnx has done."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(before)
