"""Testing a trained model: thresholds are chosen on validation first, then the test is predicted once."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from chestxray.data.index import Index
from chestxray.evaluation.decision import out_of_distribution
from chestxray.evaluation.decision import temperature_scaling as calibrations
from chestxray.evaluation.decision.ood_images import altered_films, mirrored_films, other_pictures
from chestxray.evaluation.decision.out_of_distribution import FeatureDistribution
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.selection import decide
from chestxray.evaluation.decision.temperature_scaling import Calibration, calibrated
from chestxray.evaluation.predictions import Predictions, together
from chestxray.models import forward, xla_compilation
from chestxray.models.assembly import Built, features_model, set_calibration
from chestxray.models.forward import Forward
from chestxray.recipe import Recipe
from chestxray.runs.results import Refusals
from chestxray.training.fit import class_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """Calibrated predictions of ``validation`` and ``test`` with the decision applied; ``distribution`` and
    ``refusals`` are None if nothing is refused.
    """

    decision: Decision
    validation: Predictions
    test: Predictions
    distribution: FeatureDistribution | None
    refusals: Refusals | None
    images_per_second: float | None

    @property
    def predictions(self) -> Predictions:
        """The predictions of validation and test together."""
        return together([self.validation, self.test])


def hold(built: Built, pixels: np.ndarray, index: Index, recipe: Recipe, cache: Path) -> Trial:
    """Choose the decision on validation, put the calibration into the model, predict the test, and return the result.

    `pixels`, uint8 (rows, height, width), has one image per row of `index`.
    """
    model = built.model
    layer = built.backbone[-1] if recipe.refuse and built.backbone else None
    feature_model = _forward(
        model if layer is None else features_model(model, layer),
        recipe,
        int(index.rows["split"].isin(["validation", "test"]).sum()),
        cache,
    )
    validation, seen = _predict(feature_model, pixels, index, "validation", recipe.predict_batch_size)
    calibration = calibrations.fit(validation, _class_weights(index, recipe)) if recipe.calibrate else Calibration()
    validation = calibrated(validation, calibration)
    decision = dataclasses.replace(decide(validation, recipe, calibration), features=layer)
    distribution = None
    if layer is not None:
        sample = _sample(index, recipe.seed)
        given = forward.outputs(feature_model, pixels, sample, recipe.predict_batch_size)
        training = np.concatenate([features for _, features in given])
        judged = pixels[np.flatnonzero((index.rows["split"] == "validation").to_numpy())]
        distribution = out_of_distribution.learn(
            training, pixels[sample], np.concatenate(seen), judged, recipe.refuse, validation.clusters
        )
        if distribution is None:
            log.info("Nothing is refused: too few training images, or features, to estimate the feature distribution.")
            decision = dataclasses.replace(decision, features=None)
    test, refusals = _test(feature_model, pixels, index, distribution, recipe)
    if refusals is not None and distribution is not None:
        refusals = dataclasses.replace(
            refusals, validation=distribution.refused(np.concatenate(seen), judged), judges=validation.clusters
        )
    set_calibration(model, calibration)
    tested = np.flatnonzero((index.rows["split"] == "test").to_numpy())
    return Trial(
        decision=decision,
        validation=decision.applied(validation, None if refusals is None else refusals.validation),
        test=decision.applied(calibrated(test, calibration), None if refusals is None else refusals.test),
        distribution=distribution,
        refusals=refusals,
        images_per_second=forward.images_per_second(feature_model, pixels, tested, recipe.predict_batch_size),
    )


def repeat(
    model: keras.Model,
    pixels: np.ndarray,
    index: Index,
    decision: Decision,
    distribution: FeatureDistribution | None,
    recipe: Recipe,
    cache: Path,
) -> tuple[Predictions, Refusals | None]:
    """Predict the test rows of other data with a calibrated `model` and the decision of its run.

    Returns the predictions, and the refusals or None. `pixels` as in `hold`.
    """
    known = distribution is not None and decision.features is not None
    feature_model = _forward(
        features_model(model, str(decision.features)) if known else model, recipe, len(index), cache
    )
    test, refusals = _test(feature_model, pixels, index, distribution if known else None, recipe)
    return decision.applied(test, None if refusals is None else refusals.test), refusals


def _class_weights(index: Index, recipe: Recipe) -> np.ndarray | None:
    """Return the class weights of the cross-entropy, float (classes,), or None without weights and for other losses,
    in which weights do not shift the predicted frequencies.
    """
    if not recipe.class_weights or recipe.loss != "crossentropy":
        return None
    rows = index.rows
    labels = rows.loc[rows["split"] == "train", "label"].to_numpy()
    weights = class_weights((labels[:, None] == np.asarray(index.classes, dtype=object)).astype(np.float32))
    return np.array([weights[number] for number in range(len(index.classes))])


def _forward(model: keras.Model, recipe: Recipe, rows: int, cache: Path) -> Forward:
    batch = recipe.predict_batch_size
    jit = xla_compilation.choose(model, "inference", batch, -(-rows // batch), cache, wanted=recipe.jit_compile)
    return Forward(model, rows, jit=jit)


def _predict(
    feature_model: Forward, pixels: np.ndarray, index: Index, split: str, batch_size: int
) -> tuple[Predictions, list[np.ndarray]]:
    places = np.flatnonzero((index.rows["split"] == split).to_numpy())
    parts = list(forward.outputs(feature_model, pixels, places, batch_size))
    probabilities = np.concatenate([part[0] for part in parts])
    predictions = Predictions.from_probabilities(index.rows.iloc[places], index.classes, probabilities)
    return predictions, [part[1] for part in parts if len(part) > 1]


def _test(
    feature_model: Forward, pixels: np.ndarray, index: Index, distribution: FeatureDistribution | None, recipe: Recipe
) -> tuple[Predictions, Refusals | None]:
    places = np.flatnonzero((index.rows["split"] == "test").to_numpy())
    probabilities, far, done = [], [], 0
    for given in forward.outputs(feature_model, pixels, places, recipe.predict_batch_size):
        probabilities.append(given[0])
        block = places[done : done + len(given[0])]
        done += len(block)
        if distribution is not None:
            far.append(distribution.refused(given[1], pixels[block]))
    predictions = Predictions.from_probabilities(index.rows.iloc[places], index.classes, np.concatenate(probabilities))
    if distribution is None:
        return predictions, None

    def refused(pictures: np.ndarray) -> np.ndarray:
        seen = np.concatenate(
            [given[1] for given in forward.outputs(feature_model, pictures, np.arange(len(pictures)))]
        )
        return distribution.refused(seen, pictures)

    shown = (other_pictures(pixels.shape[1:3]), altered_films(pixels, places))
    return predictions, Refusals(
        threshold=distribution.threshold,
        allowed=recipe.refuse,
        validation=np.empty(0, bool),
        judges=np.empty(0, np.int64),
        test=np.concatenate(far),
        others=np.concatenate([refused(pictures) for pictures, _ in shown]),
        kinds=np.concatenate([kinds for _, kinds in shown]),
        mirrored=refused(mirrored_films(pixels, places)),
    )


def _sample(index: Index, seed: int) -> np.ndarray:
    """Return the row numbers of at most `out_of_distribution.SAMPLE` random training images, sorted."""
    places = np.flatnonzero((index.rows["split"] == "train").to_numpy())
    return np.sort(np.random.default_rng(seed).permutation(places)[: out_of_distribution.SAMPLE])
