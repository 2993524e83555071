"""The panel of explained images of a run, and tf-keras-vis's Grad-CAM as the reference that `gradcam` must equal.

The only module that imports tf_keras_vis.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import PREFIX, Predictions
from chestxray.explanation import panel_choice
from chestxray.explanation.gradcam import check_layer
from chestxray.explanation.overlay import overlay
from chestxray.explanation.panel_choice import Choice
from chestxray.explanation.published_explanations import maps_of
from chestxray.models.assembly import logits_model
from chestxray.recipe import GRADCAM
from chestxray.storage.files import replacing, write_json


def gradcam(
    model: keras.Model,
    layer: str,
    images: np.ndarray,
    classes: np.ndarray,
    batch_size: int = 16,
    *,
    finished: bool = True,
) -> np.ndarray:
    """Return heat maps of the logit of one class an image, computed by tf-keras-vis.

    `images`: float32 (rows, height, width, channels) in 0..255; `classes`: int (rows,). Returns
    float32 (rows, height, width) in 0..1, each map scaled from its own minimum to its own maximum; a
    map without positive evidence is all zero. Without `finished`, maps have the layer's own size and scale.

    Raises:
        PluginError: the model has no layer of that name, or it is not rank 4.
    """
    check_layer(model, layer)
    engine, score = engine_of(logits_model(model))
    maps = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        heat = engine(
            score([int(c) for c in classes[part]]),
            images[part],
            penultimate_layer=layer,
            seek_penultimate_conv_layer=False,
            expand_cam=finished,
            normalize_cam=finished,
        )
        maps.append(np.asarray(heat, dtype=np.float32))
    return np.concatenate(maps)


def engine_of(model: keras.Model) -> tuple[Any, Any]:
    """Return tf-keras-vis's Grad-CAM of `model`, whose output are logits, and its ``CategoricalScore``."""
    with warnings.catch_warnings():
        # tf-keras-vis imports scipy.ndimage.interpolation, which SciPy calls deprecated.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"tf_keras_vis|scipy")
        warnings.filterwarnings("ignore", message=".*scipy.ndimage.*", category=DeprecationWarning)
        from tf_keras_vis.gradcam import Gradcam
        from tf_keras_vis.utils.scores import CategoricalScore
    # The model already ends at the logits, so that there is nothing to modify, hence no copy.
    return Gradcam(model, clone=False), CategoricalScore


def write_panel(
    model: keras.Model,
    layer: str | None,
    reason: str,
    predictions: Predictions | FindingPredictions,
    images: dict[str, np.ndarray],
    each: int,
    seed: int,
    folder: Path,
    method: str = GRADCAM,
) -> None:
    """Explain a panel of `predictions` (`panel_choice`) and write the overlays and their ``index.json`` to `folder`.

    `images`: uint8 (height, width) by path. The maps are by `method` (`maps_of`). Without a `layer` there are no maps
    of Grad-CAM, and the index gives the `reason`.
    """
    record = _record(layer, reason, each, method)
    chosen, answers = _chosen(predictions, 0 if record["reason"] else each, seed)
    if chosen:
        pixels = np.stack([images[path] for path in predictions.rows["path"].iloc[[item.row for item in chosen]]])
        explained = np.array([item.explained for item in chosen])
        maps = maps_of(method, model, layer, pixels[..., np.newaxis], explained)
        for number, (item, grey, heat) in enumerate(zip(chosen, pixels, maps, strict=True)):
            file = _write_one(number, grey, heat, folder)
            record["images"].append({"file": file, **_entry(answers(item.group), item, predictions.classes)})
    write_json(folder / "index.json", record)


def _chosen(
    predictions: Predictions | FindingPredictions, each: int, seed: int
) -> tuple[list[Choice], Callable[[str], Predictions]]:
    """Return the images of the panel, and by class or finding the table of answers that it is about."""
    if isinstance(predictions, FindingPredictions):
        return panel_choice.of_findings(predictions, each, seed), cache(predictions.of_finding_everywhere)
    return panel_choice.of_classes(predictions, each, seed), lambda group: predictions


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


def _record(layer: str | None, reason: str, each: int, method: str) -> dict[str, Any]:
    """Return the content of ``index.json`` before there is an image, with the reason where there will be none."""
    record: dict[str, Any] = {"layer": layer, "method": method, "reason": "", "images": []}
    if layer is None and method == GRADCAM:
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
