"""The panel of explained images of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from chestxray.data.findings import absent
from chestxray.errors import InputError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import PREFIX, Predictions
from chestxray.explanation.methods import METHODS
from chestxray.explanation.overlay import overlay
from chestxray.explanation.published_explanations import maps_of, shared_scale, unit_of
from chestxray.recipe import GRADCAM
from chestxray.storage.files import replacing, write_json


def choose(predictions: Predictions, each: int, seed: int) -> np.ndarray:
    """Return the rows, int64, of up to `each` right and `each` wrong images of every class, drawn at random.

    They are not chosen by confidence: a panel of the best-looking cases would flatter the model.
    """
    generator = np.random.default_rng(seed)
    chosen: list[int] = []
    right = predictions.truth == predictions.predicted
    for number in range(len(predictions.classes)):
        for wanted in (True, False):
            rows = np.flatnonzero((predictions.truth == number) & (right == wanted))
            chosen += sorted(generator.permutation(rows)[:each].tolist())
    return np.asarray(chosen, dtype=np.int64)


def write_panel(
    model: keras.Model,
    layer: str | None,
    reason: str,
    predictions: Predictions,
    images: dict[str, np.ndarray],
    each: int,
    seed: int,
    folder: Path,
    method: str = GRADCAM,
) -> None:
    """Explain a panel of `predictions` and write the overlays and their ``index.json`` to `folder`.

    `images`: uint8 (height, width) by path. The predicted class is explained, by `method` (`maps_of`). Without a
    `layer` there are no maps of methods that need one, and the index gives the `reason`. All maps share one scale, from
    0 to the highest value among them, which the index gives.
    """
    record = _record(layer, reason, each, method)
    if not record["reason"]:
        rows = choose(predictions, each, seed)
        pixels = np.stack([images[path] for path in predictions.rows["path"].iloc[rows]])
        maps = _shown(record, model, pixels, predictions.predicted[rows])
        for number, (row, grey, heat) in enumerate(zip(rows, pixels, maps, strict=False)):
            file = _write_one(number, grey, heat, folder)
            record["images"].append({"file": file, **_class_item(predictions.rows.iloc[row])})
    write_json(folder / "index.json", record)


#: The kinds of images that the panel of a run of findings has of each finding.
KINDS = ("found", "false alarm", "missed")


def choose_findings(predictions: FindingPredictions, each: int) -> list[tuple[int, int, str]]:
    """Return (row, number of the finding, kind) of up to `each` images of every finding and each of `KINDS`.

    They are the plainest of each kind: found and false alarms with the highest probability, missed ones with the
    lowest. Rows in which the finding is not known are left out.
    """
    truth, called, probability = predictions.truth, predictions.predicted, predictions.probabilities
    chosen = []
    for number in range(len(predictions.findings)):
        present, said, score = truth[:, number] == 1, called[:, number], probability[:, number]
        false = (truth[:, number] == 0) & said
        groups = ((present & said, -score), (false, -score), (present & ~said, score))
        for kind, (among, order) in zip(KINDS, groups, strict=True):
            rows = np.flatnonzero(among)
            chosen += [(int(row), number, kind) for row in rows[np.argsort(order[rows], kind="stable")][:each]]
    return chosen


def write_finding_panel(
    model: keras.Model,
    layer: str | None,
    reason: str,
    predictions: FindingPredictions,
    images: dict[str, np.ndarray],
    each: int,
    folder: Path,
    method: str = GRADCAM,
) -> None:
    """As `write_panel` for a run of findings: of each image the finding that it was chosen for is explained."""
    record = _record(layer, reason, each, method)
    chosen = [] if record["reason"] else choose_findings(predictions, each)
    if chosen:
        rows = [row for row, _, _ in chosen]
        pixels = np.stack([images[path] for path in predictions.rows["path"].iloc[rows]])
        numbers = np.array([number for _, number, _ in chosen])
        maps = _shown(record, model, pixels, numbers)
        for place, ((row, number, kind), grey, heat) in enumerate(zip(chosen, pixels, maps, strict=False)):
            file, name = _write_one(place, grey, heat, folder), predictions.findings[number]
            names = (absent(name), name)
            label, said = names[kind != "false alarm"], names[kind != "missed"]
            probability = float(predictions.rows[PREFIX + name].iloc[row])
            item = {
                "file": file,
                "path": predictions.rows["path"].iloc[row],
                "label": label,
                "predicted": said,
                "probability": probability if said == name else 1 - probability,
                "right": label == said,
            }
            record["images"].append(item | {"finding": name, "kind": kind})
    write_json(folder / "index.json", record)


def _shown(record: dict[str, Any], model: keras.Model, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the maps of the record's method in 0..1, on the one scale that is written into the record.

    A method that cannot explain this architecture gives no maps, and the record the reason.
    """
    method = record["method"]
    try:
        raw = maps_of(method, model, record["layer"], pixels[..., np.newaxis], classes)
    except InputError as error:
        record["reason"] = str(error)
        return np.empty((0, *pixels.shape[1:]), np.float32)
    maps, highest = shared_scale(raw)
    record["scale"] = {"lowest": 0.0, "highest": highest, "unit": unit_of(method)}
    return maps


def _record(layer: str | None, reason: str, each: int, method: str) -> dict[str, Any]:
    """Return the content of ``index.json`` before there is an image, with the reason where there will be none."""
    record: dict[str, Any] = {"layer": layer, "method": method, "reason": "", "images": []}
    if layer is None and method in METHODS and METHODS[method].needs == "layer":
        record["reason"] = reason or "This architecture has no convolutional layer to explain."
    elif not each:
        record["reason"] = "The recipe asked for none (heatmaps = 0)."
    return record


def _write_one(number: int, grey: np.ndarray, heat: np.ndarray, folder: Path) -> str:
    """Write a radiograph beside its overlay and return the name of the file."""
    file = f"{number:03d}.png"
    side_by_side = np.concatenate([np.repeat(grey[..., np.newaxis], 3, axis=-1), overlay(grey, heat)], axis=1)
    with replacing(folder / file) as temporary:
        Image.fromarray(side_by_side).save(temporary)
    return file


def _class_item(row: Any) -> dict[str, Any]:
    return {
        "path": row["path"],
        "label": row["label"],
        "predicted": row["predicted"],
        "probability": float(row[PREFIX + row["predicted"]]),
        "right": bool(row["label"] == row["predicted"]),
    }
