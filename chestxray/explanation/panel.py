"""The panel of explained images of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from chestxray.errors import InputError, PluginError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import PREFIX, Predictions
from chestxray.explanation import panel_choice
from chestxray.explanation.methods import METHODS
from chestxray.explanation.overlay import marked, overlay
from chestxray.explanation.panel_choice import Choice
from chestxray.explanation.published_explanations import maps_of, on_scale, scale_of, unit_of
from chestxray.recipe import GRADCAM
from chestxray.storage.files import replacing, write_json

log = logging.getLogger("chestxray")


def write_panel(
    model: keras.Model,
    layer: str | None,
    reason: str,
    predictions: Predictions | FindingPredictions,
    images: Mapping[str, np.ndarray],
    each: int,
    seed: int,
    folder: Path,
    method: str = GRADCAM,
    badge: str = "",
    known: Mapping[str, Any] | None = None,
) -> None:
    """Explain a panel of `predictions` (`panel_choice`) and write the overlays and their ``index.json`` to `folder`.

    `images`: uint8 (height, width) by path. The maps are by `method` (`maps_of`). Without a `layer` there are no maps
    of methods that need one, and the index gives the `reason`. All maps share one scale (`scale_of`), which the
    index gives. Where `badge` is ``fails`` (`map_checks`), each picture says so.

    The maps of an answer, wherever the model is used, are Grad-CAM's: where the panel's are not, the index gives the
    scale of Grad-CAM's maps of the same images too. A panel that has lost its images leaves it at what is `known`; one
    of no images (`each` 0) states none.
    """
    record = _record(layer, reason, each, method)
    if not images:
        record["reason"] = record["reason"] or "The images of the test are no longer decoded in the cache."
    chosen, answers = _chosen(predictions, 0 if record["reason"] else each, seed)
    if chosen:
        pixels = np.stack([images[path] for path in predictions.rows["path"].iloc[[item.row for item in chosen]]])
        explained = np.array([item.explained for item in chosen])
        maps = _shown(record, model, pixels, explained)
        for number, (item, grey, heat) in enumerate(zip(chosen, pixels, maps, strict=False)):
            file = _write_one(number, grey, heat, folder, badge)
            record["images"].append({"file": file, **_entry(answers(item.group), item, predictions.classes)})
        if layer is not None and method != GRADCAM:
            record["gradcam"] = gradcam_scale(model, layer, pixels, explained)
    elif each and known is not None:
        record["gradcam"] = dict(known)
    write_json(folder / "index.json", record)


def _chosen(
    predictions: Predictions | FindingPredictions, each: int, seed: int
) -> tuple[list[Choice], Callable[[str], Predictions]]:
    """Return the images of the panel, and by class or finding the table of answers that it is about."""
    if isinstance(predictions, FindingPredictions):
        return panel_choice.of_findings(predictions, each, seed), cache(predictions.of_finding_everywhere)
    return panel_choice.of_classes(predictions, each, seed), lambda group: predictions


def gradcam_scale(model: keras.Model, layer: str, pixels: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """Return the scale of Grad-CAM's maps at `layer` of `pixels`, uint8 (rows, height, width), for `classes`, int
    (rows,): ``highest``, its end; its ``unit``; the number of ``images``, and of those ``beyond`` it.

    Raises:
        NonFiniteError: as `methods.raw_maps`.
    """
    raw = maps_of(GRADCAM, model, layer, pixels[..., np.newaxis], classes)
    highest, beyond = scale_of(raw.max(axis=(1, 2)))
    return {"highest": highest, "beyond": beyond, "unit": unit_of(GRADCAM), "images": len(pixels)}


def _entry(answers: Predictions, item: Choice, classes: Sequence[str]) -> dict[str, Any]:
    """Return what ``index.json`` says of an image: the truth, the answer, its probability, and why it was chosen."""
    answer = answers.rows.iloc[item.row]
    return {
        "path": answer["path"],
        "label": answer["label"],
        "predicted": answer["predicted"],
        "probability": float(answer[PREFIX + answer["predicted"]]),
        "right": bool(answer["label"] == answer["predicted"]),
        "group": item.group,
        "explained": classes[item.explained],
        "kinds": list(item.kinds),
    }


def _shown(record: dict[str, Any], model: keras.Model, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the maps of the record's method in 0..1, on the one scale that is written into the record.

    A method that cannot explain this architecture gives no maps, and the record the reason; so does a plugin's that
    fails, with a warning.
    """
    method = record["method"]
    try:
        raw = maps_of(method, model, record["layer"], pixels[..., np.newaxis], classes)
    except (InputError, PluginError) as error:
        record["reason"] = str(error)
        if isinstance(error, PluginError):
            log.warning("No heat maps are drawn. %s", error)
        return np.empty((0, *pixels.shape[1:]), np.float32)
    highest, beyond = scale_of(raw.max(axis=(1, 2)))
    record["scale"] = {"lowest": 0.0, "highest": highest, "beyond": beyond, "unit": unit_of(method)}
    return on_scale(raw, highest)


def _record(layer: str | None, reason: str, each: int, method: str) -> dict[str, Any]:
    """Return the content of ``index.json`` before there is an image, with the reason where there will be none."""
    record: dict[str, Any] = {"layer": layer, "method": method, "reason": "", "images": []}
    if layer is None and method in METHODS and METHODS[method].needs == "layer":
        record["reason"] = reason or "This architecture has no convolutional layer to explain."
    elif not each:
        record["reason"] = "The recipe asked for none (heatmaps = 0)."
    return record


def _write_one(number: int, grey: np.ndarray, heat: np.ndarray, folder: Path, badge: str) -> str:
    """Write a radiograph beside its overlay and return the name of the file."""
    file = f"{number:03d}.png"
    drawn = marked(overlay(grey, heat)) if badge == "fails" else overlay(grey, heat)
    side_by_side = np.concatenate([np.repeat(grey[..., np.newaxis], 3, axis=-1), drawn], axis=1)
    with replacing(folder / file) as temporary:
        Image.fromarray(side_by_side).save(temporary)
    return file
