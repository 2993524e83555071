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
from chestxray.data.grouping import patient_codes
from chestxray.data.images.pixels import Fit
from chestxray.errors import DataError, InputError, NonFiniteError, PluginError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation.faithfulness import image_checks
from chestxray.explanation.localisation.located import Located, located
from chestxray.explanation.localisation.masks import films_of, masks_of
from chestxray.explanation.map_check import MapCheck, badge
from chestxray.explanation.methods import check
from chestxray.explanation.published_explanations import maps_of
from chestxray.explanation.sanity import model_checks
from chestxray.explanation.sanity.discrimination import untaught
from chestxray.models import forward
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
    validation: Predictions | FindingPredictions | None = None,
    shuffled: keras.Model | None = None,
) -> Judgement:
    """Check the maps that `method` at `layer` gives for `model` on the test images of `predictions`. Where it gives
    none, the judgement has the reason.

    The decided class of an image is explained; of findings the most probable one among those that it has, or among
    all; where the place of a finding is known, that finding. `images` are uint8 (height, width) by path; `rows` of the
    index may have masks or boxes, `fit` to the input; where an image has no mask of its lungs, they are found by the
    segmenter that is installed; of images cut to the lungs they are not looked for. `auroc` is that of the whole test.
    With `thorough` the pixels that a map marks are also removed (deletion, insertion, ROAD), which costs some 100
    further evaluations of the network for each of 24 images. Where masks or boxes of images of `validation` are known,
    the threshold of the overlap (IoU) is chosen on them. Masks that cannot be used leave their checks doubtful, and
    are named. `shuffled` is a model trained alike on shuffled labels, whose maps and test are those to differ from. A
    plugin's method that fails is named in a warning too.

    Raises:
        PluginError: `layer` is no feature map of `model`.
    """
    if reason := unable(method, layer, model):
        return Judgement(method, (), 0, reason)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(predictions.rows))[:IMAGES])
    table = predictions.rows.iloc[chosen]
    pixels = np.stack([images[path] for path in table["path"]])[..., np.newaxis]
    explained, own = _explained(predictions)[chosen], rows.set_index("path").loc[table["path"]].reset_index()
    places, lungs = _Places.of(predictions, validation, images, rows, fit, seed), _lungs(own, pixels[..., 0], fit)

    def explain(network: keras.Model, films: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return maps_of(method, network, layer, films, classes)

    try:
        beside = None if shuffled is None else untaught(predictions, _answers(shuffled, predictions, images))
        checks = model_checks.model_checks(
            model, explain, pixels, explained, auroc=auroc, patients=patient_codes(table), seed=seed,
            shuffled=shuffled, beside=beside,
        ) + image_checks.checks(
            model, explain, pixels, explained, patient_codes(table), seed=seed, removal=thorough,
            lungs=lungs if isinstance(lungs, np.ndarray) else None,
            films=films_of(own, (pixels.shape[1], pixels.shape[2]), fit) if fit == "pad" else None,
            found_at=places.test, validation=places.validation, names=predictions.classes,
        )  # fmt: skip
        checks += [one for one in (places.unusable, lungs) if isinstance(one, MapCheck)]
    except (InputError, NonFiniteError, PluginError) as error:  # a plugin's method may refuse an architecture too
        reason = f"The heat maps could not be checked. {error}"
        if isinstance(error, PluginError):
            log.warning("%s", reason)
        return Judgement(method, (), 0, reason)
    return Judgement(method, tuple(checks), len(chosen))


def unable(method: str, layer: str | None, model: keras.Model | None = None) -> str:
    """Return why `method` gives no maps at `layer`, or none of `model`, ``""`` if it does. What a plugin's method can
    do is known only once it has drawn.

    Raises:
        PluginError: as `methods.raw_maps`.
    """
    if method not in EXPLANATIONS:
        return ""
    try:
        check(method, layer)
        if model is not None:
            # Of no image at all: what draws the maps is made, and kept for the checks, but does not run.
            maps_of(method, model, layer, np.empty((0, *model.inputs[0].shape[1:]), np.uint8), np.empty(0, np.int32))
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


@dataclass(frozen=True)
class _Places:
    """Images of the test and of validation whose finding's place is known; or the check that could not be made."""

    test: Located | None = None
    validation: Located | None = None
    unusable: MapCheck | None = None

    @classmethod
    def of(
        cls,
        test: Predictions | FindingPredictions,
        validation: Predictions | FindingPredictions | None,
        images: Mapping[str, np.ndarray],
        rows: pd.DataFrame,
        fit: Fit,
        seed: int,
    ) -> _Places:
        def known(part: Predictions | FindingPredictions | None) -> Located | None:
            return None if part is None else located(part, images, rows, fit, most=image_checks.MASKED, seed=seed)

        try:
            return cls(known(test), known(validation))
        except DataError as error:
            return cls(unusable=_not_made("pointing-game", str(error)))


def _answers(
    model: keras.Model, predictions: Predictions | FindingPredictions, images: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return the probabilities that `model` gives for the rows of `predictions`, float (rows, outputs)."""
    network, paths, found = forward.Forward(model), predictions.rows["path"].tolist(), []
    for start in range(0, len(paths), 4096):
        films = np.stack([images[path] for path in paths[start : start + 4096]])
        found += [part[0] for part in forward.outputs(network, films, np.arange(len(films)))]
    return np.concatenate(found)


def _not_made(name: str, why: str) -> MapCheck:
    """Return the check `name` that masks which cannot be used leave doubtful."""
    log.warning("Heat maps are not compared with masks: %s", why)
    sentence = "This check could not be made: a mask or box of the data cannot be used. A warning of the run names it."
    return MapCheck(name, "doubtful", sentence)


def _lungs(rows: pd.DataFrame, pixels: np.ndarray, fit: Fit) -> np.ndarray | MapCheck | None:
    """Return where the lungs are, bool (rows, height, width): by the data or, of a row without a mask, by the segmenter
    that is installed; all False where neither knows them. None where that is so of all rows, or where images are cut to
    the lungs; a check that could not be made where masks of the data cannot be used.
    """
    if lung_boxes.COLUMN in rows:
        log.info("Heat maps are not checked against the lungs: images are cut to them, and most of each is lung.")
        return None
    found, given = np.zeros(pixels.shape, bool), np.zeros(len(rows), bool)
    if "lung_mask" in rows:
        given = np.array([isinstance(path, str) and path != "" for path in rows["lung_mask"]])
    try:
        if given.any():
            found[given] = masks_of(rows[given], (pixels.shape[1], pixels.shape[2]), fit, column="lung_mask")
    except DataError as error:
        return _not_made("inside-lungs", str(error))
    try:
        if not given.all() and (entry := lung_masks.segmenter()) is not None:
            found[~given] = lung_masks.lung_masks(entry, pixels[~given])
    except (InputError, PluginError) as error:
        log.warning("Heat maps are not checked against the lungs of %d films: %s", int((~given).sum()), error)
    return found if found.any() else None
