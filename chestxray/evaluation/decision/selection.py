"""Selects the decision rule of a run on its validation rows: thresholds, promised sensitivity, abstention."""

from __future__ import annotations

import numpy as np

from chestxray.errors import InputError
from chestxray.evaluation.decision import conformal, operating_point
from chestxray.evaluation.decision.rule import Decision, Promise
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.evaluate import headline_class
from chestxray.evaluation.predictions import PREFIX, Predictions
from chestxray.recipe import Recipe


def check(classes: tuple[str, ...], recipe: Recipe) -> None:
    """Raise `InputError` for choices of `recipe` that these classes do not allow."""
    headline_class(classes, recipe.positive)
    for name, value in (("sensitivity", recipe.sensitivity), ("prevalence", recipe.prevalence)):
        if value is not None and len(classes) != 2:
            raise InputError(
                f"{name} is for two classes, of which one threshold decides; with {len(classes)} the largest "
                f"probability does. Received: {value:g}, with the classes {', '.join(classes)}."
            )


def check_promise(validation: Predictions, recipe: Recipe) -> None:
    """Raise `InputError` for a sensitivity that `validation` has too few patients to promise.

    Probabilities are not used, so that this can be checked before training.
    """
    if recipe.sensitivity is not None:
        positive = headline_class(validation.classes, recipe.positive)
        _promise(validation, validation.truth == positive, recipe)


def decide(validation: Predictions, recipe: Recipe, calibration: Calibration) -> Decision:
    """Return the decision rule that `recipe` asks for, chosen on `validation`.

    The probabilities of `validation` are calibrated ones; `calibration` says how they were calibrated.

    Raises:
        InputError: choices of `recipe` that the classes do not allow, or a sensitivity for which validation has
            too few patients.
    """
    classes, truth, clusters = validation.classes, validation.truth, validation.clusters
    check(classes, recipe)
    chosen = headline_class(classes, recipe.positive)
    positive = None if chosen is None else classes[chosen]
    promise = None if recipe.sensitivity is None else _promise(validation, truth == chosen, recipe)
    own = {
        label: operating_point.choose(
            validation.rows[PREFIX + label].to_numpy(),
            truth == classes.index(label),
            recipe.sensitivity,
            confidence=recipe.confident,
            clusters=clusters,
        )
        for label in ((positive,) if positive is not None else classes)
    }
    counts = np.bincount(truth, minlength=len(classes))
    # Class weights make errors of all classes count equally; calibrated probabilities alone would favour the
    # common classes again. With two classes, Youden's threshold prevents that.
    weighed = positive is None and recipe.class_weights and counts.min() > 0
    limit = None
    if recipe.abstain is not None:
        limit = conformal.quantile(validation.probabilities, truth, recipe.abstain, clusters)
    return Decision(
        classes=classes,
        positive=positive,
        calibration=calibration,
        thresholds=own,
        chosen_by=_chosen_by(recipe),
        priors=tuple(float(share) for share in counts / counts.sum()) if weighed else (),
        coverage=recipe.abstain,
        limit=limit,
        promise=promise,
    )


def _promise(validation: Predictions, positive: np.ndarray, recipe: Recipe) -> Promise:
    assert recipe.sensitivity is not None
    patients = len(np.unique(validation.clusters[positive]))
    operating_point.require_enough(patients, recipe.sensitivity, recipe.confident)
    return Promise(recipe.sensitivity, recipe.confident, patients)


def _chosen_by(recipe: Recipe) -> str:
    if recipe.sensitivity is None:
        return "Youden's index"
    sure = f"with confidence {recipe.confident:g}" if recipe.confident else "on validation alone"
    return f"sensitivity of at least {recipe.sensitivity:g} {sure}"
