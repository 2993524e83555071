"""Testing a trained model: thresholds are chosen on validation first, then the test is predicted once."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from chestxray.data.index import Index
from chestxray.evaluation.decision import finding_selection, out_of_distribution
from chestxray.evaluation.decision import temperature_scaling as calibrations
from chestxray.evaluation.decision.finding_rule import FindingDecision, Rule
from chestxray.evaluation.decision.ood_images import altered_films, mirrored_films, other_pictures
from chestxray.evaluation.decision.out_of_distribution import FeatureDistribution
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.selection import decide
from chestxray.evaluation.decision.temperature_scaling import Calibration, calibrated
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import Predictions, together
from chestxray.models import forward, replicas, xla_compilation
from chestxray.models.assembly import Built, features_model, set_calibration
from chestxray.models.forward import Forward
from chestxray.recipe import Recipe
from chestxray.runs.results import Refusals
from chestxray.training import finding_losses
from chestxray.training.fit import Rows, class_shift

log = logging.getLogger(__name__)


#: The predictions of either task.
Table = Predictions | FindingPredictions


@dataclass(frozen=True)
class Trial:
    """Calibrated predictions of ``validation`` and ``test`` with the decision applied; ``distribution`` and
    ``refusals`` are None if nothing is refused. Predictions and decision are those of the task of the index.
    """

    decision: Rule
    validation: Table
    test: Table
    distribution: FeatureDistribution | None
    refusals: Refusals | None
    images_per_second: float | None

    @property
    def predictions(self) -> Table:
        """The predictions of validation and test together."""
        if isinstance(self.validation, FindingPredictions):
            assert isinstance(self.test, FindingPredictions)
            return together([self.validation, self.test])
        assert isinstance(self.test, Predictions)
        return together([self.validation, self.test])


def hold(
    built: Built, pixels: np.ndarray, index: Index, recipe: Recipe, cache: Path, before: Rule | None = None
) -> Trial:
    """Choose the decision on validation, put the calibration into the model, predict the test, and return the result.

    `pixels`, uint8 (rows, height, width), has one image per row of `index`. `before` is the rule of a model that is not
    of this training and is calibrated already: the new calibration follows the one in the model, and nothing of class
    weights is undone a second time.
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
    chosen = _chosen(validation, index, recipe, before)
    validation = chosen.validation
    decision = _with_features(chosen.decision, layer)
    distribution = None
    if layer is not None:
        sample = _sample(index, recipe.seed)
        given = forward.outputs(feature_model, pixels, sample, recipe.predict_batch_size, names=_names(index))
        training = np.concatenate([features for _, features in given])
        judged = pixels[np.flatnonzero((index.rows["split"] == "validation").to_numpy())]
        distribution = out_of_distribution.learn(
            training, pixels[sample], np.concatenate(seen), judged, recipe.refuse, validation.clusters
        )
        if distribution is None:
            log.info("Nothing is refused: too few training images, or features, to estimate the feature distribution.")
            decision = _with_features(decision, None)
    test, refusals = _test(feature_model, pixels, index, distribution, recipe)
    if refusals is not None and distribution is not None:
        refusals = dataclasses.replace(
            refusals, validation=distribution.refused(np.concatenate(seen), judged), judges=validation.clusters
        )
    set_calibration(model, *chosen.scale_and_offset)
    tested = np.flatnonzero((index.rows["split"] == "test").to_numpy())
    return Trial(
        decision=decision,
        validation=_applied(decision, validation, None if refusals is None else refusals.validation),
        test=_applied(decision, chosen.calibrated(test), None if refusals is None else refusals.test),
        distribution=distribution,
        refusals=refusals,
        images_per_second=forward.images_per_second(feature_model, pixels, tested, recipe.predict_batch_size),
    )


@dataclass(frozen=True)
class _Chosen:
    """What validation decided: its calibrated predictions, the rule, and the calibration as numbers of the logits."""

    validation: Table
    decision: Rule
    scale_and_offset: tuple[float | Sequence[float], float | Sequence[float]]

    def calibrated(self, table: Table) -> Table:
        """Return `table` with calibrated probabilities."""
        if isinstance(table, FindingPredictions):
            assert isinstance(self.decision, FindingDecision)
            return table.with_probabilities(self.decision.calibrated(table.probabilities))
        assert isinstance(self.decision, Decision)
        return calibrated(table, self.decision.calibration)


def _chosen(validation: Table, index: Index, recipe: Recipe, before: Rule | None) -> _Chosen:
    """Return the calibration and the decision that `recipe` asks for, chosen on `validation`."""
    if isinstance(validation, FindingPredictions):
        weights = None if before is not None else _finding_weights(index, recipe)
        known = before if isinstance(before, FindingDecision) else None
        table, rule = finding_selection.decide(validation, recipe, weights, known)
        scale, offset = rule.scale_and_offset()
        return _Chosen(table, rule, (scale.tolist(), offset.tolist()))
    class_weights = None if before is not None else _class_weights(index, recipe)
    calibration = calibrations.fit(validation, class_weights) if recipe.calibrate else Calibration()
    validation = calibrated(validation, calibration)
    numbers = 1 / calibration.temperature, calibration.offsets or 0.0
    return _Chosen(validation, decide(validation, recipe, calibration), numbers)


def _with_features(decision: Rule, layer: str | None) -> Rule:
    if isinstance(decision, FindingDecision):
        return decision.with_features(layer)
    return dataclasses.replace(decision, features=layer)


def _applied(decision: Rule, table: Table, refused: np.ndarray | None) -> Table:
    if isinstance(decision, FindingDecision):
        assert isinstance(table, FindingPredictions)
        return decision.applied(table, refused)
    assert isinstance(table, Predictions)
    return decision.applied(table, refused)


def repeat(
    model: keras.Model,
    pixels: np.ndarray,
    index: Index,
    decision: Rule,
    distribution: FeatureDistribution | None,
    recipe: Recipe,
    cache: Path,
) -> tuple[Table, Refusals | None]:
    """Predict the test rows of other data with a calibrated `model` and the decision of its run.

    Returns the predictions, and the refusals or None. `pixels` as in `hold`.
    """
    known = distribution is not None and decision.features is not None
    feature_model = _forward(
        features_model(model, str(decision.features)) if known else model, recipe, len(index), cache
    )
    test, refusals = _test(feature_model, pixels, index, distribution if known else None, recipe)
    return _applied(decision, test, None if refusals is None else refusals.test), refusals


def _class_weights(index: Index, recipe: Recipe) -> np.ndarray | None:
    """Return how much each class counts in training relative to its frequency, float (classes,), by class weights or by
    sampling; None without either and for other losses than cross-entropy, in which weights do not shift the predicted
    frequencies.
    """
    if recipe.loss != "crossentropy":
        return None
    return class_shift(recipe, Rows.of(index, "train").labels)


def _finding_weights(index: Index, recipe: Recipe) -> dict[str, np.ndarray] | None:
    """Return the same of absent and present, float (2,), by finding."""
    if recipe.loss != "crossentropy":
        return None
    weights = finding_losses.shift(recipe, Rows.of(index, "train").labels)
    return None if weights is None else dict(zip(index.classes, weights, strict=True))


def _forward(model: keras.Model, recipe: Recipe, rows: int, cache: Path) -> Forward:
    batch = recipe.predict_batch_size
    if replicas.strategy_of(model) is not None:  # without XLA, see `Forward`
        return Forward(model, rows)
    jit = xla_compilation.choose(model, "inference", batch, -(-rows // batch), cache, wanted=recipe.jit_compile)
    return Forward(model, rows, jit=jit)


def _predict(
    feature_model: Forward, pixels: np.ndarray, index: Index, split: str, batch_size: int
) -> tuple[Table, list[np.ndarray]]:
    places = np.flatnonzero((index.rows["split"] == split).to_numpy())
    parts = list(forward.outputs(feature_model, pixels, places, batch_size, names=_names(index)))
    probabilities = np.concatenate([part[0] for part in parts])
    return _table(index, places, probabilities), [part[1] for part in parts if len(part) > 1]


def _names(index: Index) -> list[str]:
    return index.rows["path"].tolist()


def _table(index: Index, places: np.ndarray, probabilities: np.ndarray) -> Table:
    if index.task == "findings":
        return FindingPredictions.from_probabilities(index, probabilities, places)
    return Predictions.from_probabilities(index.rows.iloc[places], index.classes, probabilities)


def _test(
    feature_model: Forward, pixels: np.ndarray, index: Index, distribution: FeatureDistribution | None, recipe: Recipe
) -> tuple[Table, Refusals | None]:
    places = np.flatnonzero((index.rows["split"] == "test").to_numpy())
    probabilities, far, done = [], [], 0
    for given in forward.outputs(feature_model, pixels, places, recipe.predict_batch_size, names=_names(index)):
        probabilities.append(given[0])
        block = places[done : done + len(given[0])]
        done += len(block)
        if distribution is not None:
            far.append(distribution.refused(given[1], pixels[block]))
    predictions = _table(index, places, np.concatenate(probabilities))
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
