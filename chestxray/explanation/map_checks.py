"""The checks that a run makes of its own heat maps, and the badge that they give the method."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd

from chestxray.data import lung_boxes, lung_masks
from chestxray.data.column_kinds import MASK
from chestxray.data.grouping import patient_codes
from chestxray.data.images.pixels import Fit
from chestxray.errors import DataError, InputError, NonFiniteError, PluginError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation.faithfulness import image_checks
from chestxray.explanation.localisation.masks import masks_of
from chestxray.explanation.map_check import MapCheck, badge
from chestxray.explanation.methods import check
from chestxray.explanation.published_explanations import maps_of
from chestxray.explanation.sanity import model_checks
from chestxray.recipe import EXPLANATIONS

log = logging.getLogger("chestxray")

#: Most test images that a judgement looks at; the checks draw theirs among them.
IMAGES = 200


@dataclass(frozen=True)
class Judgement:
    """What the checks say of a method's maps for one model; ``reason`` why there are none, else ``""``."""

    method: str
    checks: tuple[MapCheck, ...]
    images: int
    reason: str = ""

    @property
    def badge(self) -> str:
        """``passes``, ``doubtful`` or ``fails``; ``""`` where no check was made."""
        return "" if self.reason else badge(self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the judgement in JSON types."""
        return {
            "method": self.method,
            "badge": self.badge,
            "reason": self.reason,
            "images": self.images,
            "checks": [one.record() for one in self.checks],
        }


def judge(
    model: keras.Model,
    layer: str | None,
    method: str,
    predictions: Predictions | FindingPredictions,
    images: Mapping[str, np.ndarray],
    rows: pd.DataFrame,
    auroc: Figure,
    *,
    fit: Fit,
    thorough: bool,
    seed: int,
) -> Judgement:
    """Check the maps that `method` at `layer` gives for `model` on the test images of `predictions`.

    The decided class of an image is explained; of findings the most probable one among those that it has, or among
    all. `images` are uint8 (height, width) by path; `rows` of the index may have masks or boxes, `fit` to the input;
    the lungs are those of the data, or found by the segmenter that is installed. `auroc` is that of the whole test.
    With `thorough` the pixels that a map marks are also removed (deletion, insertion, ROAD), which costs some 100
    further evaluations of the network for each of 24 images.

    Raises:
        InputError: a mask or box of the data cannot be read.
        PluginError: the method is a plugin's and fails.
    """
    if reason := _unable(method, layer):
        return Judgement(method, (), 0, reason)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(predictions.rows))[:IMAGES])
    table = predictions.rows.iloc[chosen]
    pixels = np.stack([images[path] for path in table["path"]])[..., np.newaxis]
    size = (pixels.shape[1], pixels.shape[2])
    explained, own = _explained(predictions)[chosen], rows.set_index("path").loc[table["path"]].reset_index()

    def explain(network: keras.Model, films: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return maps_of(method, network, layer, films, classes)

    try:
        checks = model_checks.model_checks(
            model, explain, pixels, explained, auroc=auroc, patients=patient_codes(table), seed=seed
        ) + image_checks.checks(
            model, explain, pixels, explained, patient_codes(table), seed=seed, removal=thorough,
            masks=_masks(own, [predictions.classes[i] for i in explained], size, fit),
            lungs=_lungs(own, pixels[..., 0], fit),
        )  # fmt: skip
    except NonFiniteError as error:
        return Judgement(method, (), 0, f"The heat maps could not be checked. {error}")
    return Judgement(method, tuple(checks), len(chosen))


def _unable(method: str, layer: str | None) -> str:
    if method not in EXPLANATIONS:
        return ""
    try:
        check(method, layer)
    except InputError as error:
        return str(error)
    return ""


def _explained(predictions: Predictions | FindingPredictions) -> np.ndarray:
    """Return the number of the explained class or finding of each row, int (rows,)."""
    if isinstance(predictions, Predictions):
        return predictions.predicted
    present = predictions.truth == 1
    among = present | ~present.any(axis=1, keepdims=True)
    return np.asarray(np.where(among, predictions.probabilities, -1.0).argmax(axis=1))


def _masks(rows: pd.DataFrame, names: list[str], size: tuple[int, int], fit: Fit) -> np.ndarray | None:
    """Return where the explained findings are, as `masks_of`; None where the data do not tell, or not legibly."""
    if not any(name in ("mask", "boxes") or name.startswith(MASK) for name in rows):
        return None
    try:
        return masks_of(rows, size, fit, findings=names)
    except InputError:  # not one is known
        return None
    except DataError as error:
        raise InputError(f"The heat maps cannot be checked against their masks: {error}") from error


def _lungs(rows: pd.DataFrame, pixels: np.ndarray, fit: Fit) -> np.ndarray | None:
    """Return where the lungs are by the data or, failing that, by the segmenter that is installed; None without one."""
    try:
        if "lung_mask" in rows:
            return masks_of(rows, (pixels.shape[1], pixels.shape[2]), fit, column="lung_mask")
        if lung_boxes.COLUMN in rows:
            log.info("Heat maps are not checked against the lungs: images are cut to them, and most of each is lung.")
            return None
        entry = lung_masks.segmenter()
        return None if entry is None else lung_masks.lung_masks(entry, pixels)
    except DataError as error:
        raise InputError(f"The heat maps cannot be checked against masks of the lungs: {error}") from error
    except (InputError, PluginError) as error:
        log.warning("Heat maps are not checked against the lungs: %s", error)
        return None
