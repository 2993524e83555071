"""Images of which it is known where their finding is, drawn for the checks that compare maps with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data.column_kinds import MASK
from chestxray.data.grouping import patient_codes
from chestxray.data.images.pixels import Fit
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation.drawn_images import drawn
from chestxray.explanation.localisation.masks import films_of, masks_of


@dataclass(frozen=True)
class Located:
    """Images and where their true finding is.

    ``pixels``: uint8 (rows, height, width, 1); ``classes``: the true class, or a finding that is present, int (rows,);
    ``masks``: where it is, bool (rows, height, width), none of them empty; ``patients``: codes, int (rows,); ``films``:
    where the film lies, bool (rows, height, width), None: everywhere.
    """

    pixels: np.ndarray
    classes: np.ndarray
    masks: np.ndarray
    patients: np.ndarray
    films: np.ndarray | None = None


def located(
    predictions: Predictions | FindingPredictions,
    images: Mapping[str, np.ndarray],
    rows: pd.DataFrame,
    fit: Fit,
    *,
    most: int,
    seed: int,
) -> Located | None:
    """Return up to `most` images of `predictions`, of as many patients as can be, with masks or boxes of their finding.

    The finding is the true class, decided on or not, as in Saporta 2022; of several findings of a film the most
    probable one whose place is known. `rows`, of an index, have the masks or boxes, and `images`, uint8 (height, width)
    by path, the pixels. None where no place is known.

    Raises:
        DataError: a mask or box of the data cannot be used; the message names it.
    """
    own = rows.set_index("path", drop=False).loc[predictions.rows["path"]].reset_index(drop=True)
    classes = _classes(predictions, _present(predictions, own))
    known = np.flatnonzero(classes >= 0)
    if not known.size:
        return None
    patients = patient_codes(predictions.rows)
    chosen = known[drawn(patients[known], most, seed)]
    some, of = own.iloc[chosen].reset_index(drop=True), classes[chosen]
    pixels = np.stack([images[path] for path in some["path"]])[..., np.newaxis]
    masks = masks_of(some, (pixels.shape[1], pixels.shape[2]), fit, findings=[predictions.classes[i] for i in of])
    left = masks.any(axis=(1, 2))  # a crop may have removed the whole of a box
    if not left.any():
        return None
    films = films_of(some[left], (pixels.shape[1], pixels.shape[2]), fit) if fit == "pad" else None
    return Located(pixels[left], of[left], masks[left], patients[chosen][left], films)


def _present(predictions: Predictions | FindingPredictions, rows: pd.DataFrame) -> np.ndarray:
    """Return whether the place of each class or finding is known, bool (rows, classes), among those that are true."""
    true = predictions.truth == 1 if isinstance(predictions, FindingPredictions) else _one_hot(predictions)
    known = np.zeros(true.shape, bool)
    for column in rows:
        if column == "mask":
            known |= _named(rows[column])[:, np.newaxis]
        elif column == "boxes":
            known |= np.array([[name in boxed for name in predictions.classes] for boxed in map(_boxed, rows[column])])
        elif column.startswith(MASK) and column.removeprefix(MASK) in predictions.classes:
            known[:, predictions.classes.index(column.removeprefix(MASK))] |= _named(rows[column])
    return known & true


def _one_hot(predictions: Predictions) -> np.ndarray:
    return np.arange(len(predictions.classes)) == predictions.truth[:, np.newaxis]


def _named(column: pd.Series[Any]) -> np.ndarray:
    return np.array([isinstance(one, str) and one != "" for one in column])


def _boxed(text: object) -> set[str]:
    """Return the findings of the boxes in the JSON `text` of an image, which may have none."""
    return {one["finding"] for one in json.loads(text)} if isinstance(text, str) and text else set()


def _classes(predictions: Predictions | FindingPredictions, known: np.ndarray) -> np.ndarray:
    """Return the most probable of the classes or findings that are `known`, int (rows,), -1 where none is."""
    best = np.where(known, predictions.probabilities, -1.0).argmax(axis=1)
    return np.where(known.any(axis=1), best, -1)
