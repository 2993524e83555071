"""The control that shows the model itself films without their lungs, and the lungs alone.

The other controls show what could be learnt without the lungs; this one shows what the model in question uses. It is
made where a plugin is installed that finds lungs. Blanked pixels are set to the mean of the others, and lungs are
dilated first, since masks are drawn a little too small; the shape of what was blanked remains, as does the heart.
Films of which no lungs are found are counted and left out: what else could be blanked would tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data import lung_boxes, lung_masks
from chestxray.data.images.pixels import Fit
from chestxray.data.index import Index
from chestxray.errors import PluginError
from chestxray.evaluation.influence import accuracy
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.shortcuts.scores import Area, areas, average
from chestxray.evaluation.support import effective

NAME, TITLE = "lungs_blanked", "The film without its lungs"
#: Most test films, whole patients.
MOST = 400
#: Share of the width by which lungs are dilated, and the least share of films whose lungs must be found.
GROWTH, FOUND = 1 / 32, 0.5


@dataclass(frozen=True)
class Masked:
    """What a model answers to test films of which a part is blanked.

    ``keys``: source and path of each film; ``without`` and ``only``: probabilities, float (films, classes), without
    its lungs, and of its lungs alone; ``unknown``: number of further films of which no lungs were found. ``reason``:
    why there are no films; ``""`` if there are. ``segmenter``: the plugin that found the lungs, and its version.
    """

    keys: tuple[tuple[str, str], ...] = ()
    without: np.ndarray | None = None
    only: np.ndarray | None = None
    unknown: int = 0
    reason: str = ""
    segmenter: str = ""

    def of_finding(self, number: int) -> Masked:
        """Return the same for one finding, whose classes are absent and present."""
        if self.without is None or self.only is None:
            return self
        parts = (np.stack([1 - given[:, number], given[:, number]], axis=1) for given in (self.without, self.only))
        without, only = parts
        return replace(self, without=without, only=only)


def masked(
    index: Index,
    pixels: np.ndarray,
    answer: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int = 0,
    whole: np.ndarray | None = None,
    fit: Fit = "stretch",
) -> Masked | None:
    """Return what a model answers to test films without their lungs; None where no segmenter is installed.

    Where images are cut to their lungs, these are found in `whole`, the same films as they were, uint8 (rows, n, m),
    and cut and fitted alike.

    `pixels`, uint8 (rows, height, width), has one image per row of `index`; `answer` returns the model's probabilities,
    float (films, classes), of such films.
    """
    try:
        if (entry := lung_masks.segmenter()) is None:
            return None
        if not len(places := _drawn(index, seed)):
            return Masked(reason="There are no test images.")
        films = np.stack([pixels[place] for place in places])
        if lung_boxes.COLUMN not in index.rows or whole is None:
            found = lung_masks.lung_masks(entry, films)
        else:
            rows = index.rows.iloc[places]
            found = lung_boxes.masks_within(
                lung_masks.lung_masks(entry, np.stack([whole[place] for place in places])),
                lung_boxes.of_rows(rows),
                rows[["width", "height"]].astype(int).to_numpy().tolist(),
                (films.shape[1], films.shape[2]),
                fit,
            )
    except PluginError as error:
        return Masked(reason=str(error))
    known = found.any(axis=(1, 2))
    if known.mean() < FOUND:
        return Masked(reason=f"Lungs were found in {known.sum()} of {len(places)} test films.", unknown=len(places))
    films, inside = films[known], _dilated(found[known])
    rows = index.rows.iloc[places[known]]
    return Masked(
        keys=tuple(zip(rows["source"], rows["path"], strict=True)),
        without=answer(blanked(films, inside)),
        only=answer(blanked(films, ~inside)),
        unknown=int((~known).sum()),
        segmenter=f"{entry.qualified} {entry.version}",
    )


def blanked(films: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Return `films`, uint8 (films, height, width), with `hidden`, bool of that shape, set to the mean of the rest."""
    visible = ~hidden
    counts = np.maximum(visible.sum(axis=(1, 2), keepdims=True), 1)
    mean = np.round((films * visible).sum(axis=(1, 2), keepdims=True) / counts).astype(np.uint8)
    return np.where(visible, films, mean)


@dataclass(frozen=True)
class Answers:
    """The AUROCs on the same test films: of the ``model``, ``without`` the lungs, and of the lungs alone (``only``);
    ``right``, the accuracy without the lungs, is a figure in JSON types; ``films`` is their number.
    """

    model: Area
    without: Area
    only: Area
    right: dict[str, Any]
    films: int


def answers(given: Masked, test: Predictions) -> Answers:
    """Return the AUROCs of `given`, which has films, beside that of `test`, the model's predictions of whole films."""
    assert given.without is not None and given.only is not None
    known = zip(test.rows["source"], test.rows["path"], strict=True)
    place = {key: number for number, key in enumerate(known)}
    shown = [number for number, key in enumerate(given.keys) if key in place]
    rows = np.array([place[given.keys[number]] for number in shown], dtype=np.int64)
    truth, clusters = test.truth[rows], test.clusters[rows]

    def area(probabilities: np.ndarray) -> Area:
        return average(areas(probabilities, truth, np.zeros(len(rows), dtype=np.int64), clusters))

    right = accuracy(given.without[shown].argmax(axis=1) == truth).figure(clusters, effective(clusters)).to_json()
    without, only = area(given.without[shown]), area(given.only[shown])
    return Answers(area(test.probabilities[rows]), without, only, right, len(rows))


def _drawn(index: Index, seed: int) -> np.ndarray:
    """Return the places of at most `MOST` test films, whole patients; int (films,), in order."""
    places = np.flatnonzero((index.rows["split"] == "test").to_numpy())
    if len(places) <= MOST:
        return places
    codes = pd.factorize(index.clusters().to_numpy()[places])[0]
    order = np.random.default_rng(seed).permutation(codes.max() + 1)[codes]
    return places[order < np.sort(order)[MOST]]


def _dilated(found: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    width = 2 * max(1, round(GROWTH * found.shape[2])) + 1
    return ndimage.maximum_filter(found, size=(1, width, width))
