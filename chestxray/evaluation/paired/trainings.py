"""Design of the trainings of compared models: one each, several seeds, or the folds of a cross-validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import Predictions

_Table = TypeVar("_Table", Predictions, FindingPredictions)

#: Columns of predictions by the models of a cross-validation: the fold of the model, and how many images
#: it was trained on.
FOLD = "fold"
TRAINED_ON = "training_images"

Design = Literal["one", "seeds", "folds", "folds of one test"]

#: What intervals and p-values refer to, by design.
SCOPES: dict[Design, str] = {
    "one": "p-values and intervals refer to these trained models on other patients like those of the test; chance in "
    "training is not included, and with another seed the order may differ.",
    "seeds": "p-values and intervals refer to other patients and to trainings with other seeds on the same images.",
    "folds": "p-values and intervals refer to models trained anew on other images of similar patients and tested on "
    "other patients (corrected resampled t over the folds, Nadeau and Bengio 2003).",
    "folds of one test": "p-values and intervals refer to other patients and to models trained anew on other images "
    "of similar patients (corrected for the images that folds share, Nadeau and Bengio 2003).",
}


def marked(predictions: _Table, fold: int, training_images: int) -> _Table:
    """Return `predictions` by the model of one fold, with columns for the fold and its number of training images."""
    rows = predictions.rows.assign(**{FOLD: fold, TRAINED_ON: training_images})
    return dataclasses.replace(predictions, rows=rows)


def design(aligned: Mapping[str, Sequence[Predictions]]) -> Design:
    """Return how the trainings of all models are drawn; their tables have the same rows in the same order.

    Folds are used where they are the same in all models, since only then can they be paired.
    """
    several: Design = "seeds" if any(len(tables) > 1 for tables in aligned.values()) else "one"
    names = {model: [_names(table) for table in tables] for model, tables in aligned.items()}
    flat = [one for of_model in names.values() for one in of_model]
    if not all(len(one) for one in flat):
        return several
    if all((one == flat[0]).all() for one in flat) and len(set(flat[0])) > 1:
        return "folds"
    of_models = [[set(one) for one in of_model] for of_model in names.values()]
    constant = all(len(one) == 1 for of_model in of_models for one in of_model)
    if constant and len(set().union(*of_models[0])) > 1 and all(one == of_models[0] for one in of_models):
        return "folds of one test"
    return several


def parts(table: Predictions) -> list[np.ndarray]:
    """Return the row numbers of each fold, in the order of the folds."""
    names = _names(table)
    return [np.flatnonzero(names == name) for name in np.unique(names)]


def ratios_of_test_to_training(table: Predictions) -> np.ndarray:
    """Return the ratio of test to training images of each fold, float (folds,).

    Where the number of training images is not known, the model counts as trained on all other rows.
    """
    rows = len(table.rows)
    known = TRAINED_ON in table.rows
    trained = pd.to_numeric(table.rows[TRAINED_ON], errors="coerce").to_numpy() if known else np.full(rows, np.nan)
    found = []
    for places in parts(table):
        images = trained[places[0]]
        found.append(len(places) / (images if images >= 1 else rows - len(places)))
    return np.array(found)


def by_fold(tables: Sequence[Predictions], values: np.ndarray) -> np.ndarray:
    """Return the mean of `values` (trainings, ...) over the trainings of each fold: (folds, ...)."""
    names = np.array([_names(table)[0] for table in tables])
    return np.stack([values[names == name].mean(axis=0) for name in np.unique(names)])


def _names(table: Predictions) -> np.ndarray:
    """Return the fold of each row as text, an empty array where the table has none."""
    if FOLD not in table.rows or table.rows[FOLD].isna().any():
        return np.zeros(0, dtype=str)
    return table.rows[FOLD].astype(str).to_numpy(dtype=str)
