"""Whether another training gives the same maps: of the same architecture with another seed (repeatability), and of
another architecture (reproducibility; Arun et al. 2021).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from chestxray.errors import InputError
from chestxray.evaluation.figure_format import with_interval
from chestxray.evaluation.intervals import Figure
from chestxray.explanation.gradcam import enlargement
from chestxray.explanation.map_check import MapCheck, Verdict
from chestxray.explanation.sanity.own_maps import (
    FEWEST,
    as_json,
    choose_pairs,
    drawn_rows,
    high,
    low,
    mean_of_pairs,
)
from chestxray.explanation.sanity.similarity import MEASURES, is_constant, similarities

_MEANING: dict[Verdict, str] = {
    "passes": "The maps of an image are more alike than that: part of them does not hang on one {one}.",
    "doubtful": "Whether the maps of an image are more alike than that cannot be told from these images.",
    "fails": "The maps of an image are no more alike than that: what another {one} agrees on is not of the image.",
}


def repeatability(
    maps: Sequence[np.ndarray], classes: np.ndarray, *, of: str = "", patients: np.ndarray | None = None, seed: int = 0
) -> MapCheck:
    """Return the check ``repeatability`` of `maps` from trainings of one architecture, whose name is `of`; otherwise
    as `reproducibility`.
    """
    between = f"{len(maps)} trainings{f' of {of}' if of else ''}"
    return _check("repeatability", between, maps, classes, patients, seed)


def reproducibility(
    maps: Sequence[np.ndarray], classes: np.ndarray, *, of: str = "", patients: np.ndarray | None = None, seed: int = 0
) -> MapCheck:
    """Return the check ``reproducibility`` of the maps of the same images from several models.

    Passes where the likeness of the maps that two models give of one image is above that of their maps of different
    images: the lower end of the one interval above the upper end of the other, in rank correlation. Fails where it is
    not above: its own upper end is not above that of the other. Doubtful otherwise.

    Args:
        maps: from each model, of the same images in the same order, float (rows, height, width), of 0 and more. Those
            of models with other input sizes are enlarged to the largest.
        classes: the class explained in each image, the same for all models, int (rows,).
        of: the names of the models, for the sentence.
        patients: identifiers (rows,); None: each image is of a patient of its own.
        seed: of the pairs and the bootstrap.

    Images of which a model gives an empty map are counted as unlike, unless all models do, which leaves them out.

    Raises:
        InputError: fewer than two models, or other numbers of images.
    """
    return _check("reproducibility", f"{len(maps)} models{f' ({of})' if of else ''}", maps, classes, patients, seed)


def _check(
    name: str,
    between: str,
    maps: Sequence[np.ndarray],
    classes: np.ndarray,
    patients: np.ndarray | None,
    seed: int,
) -> MapCheck:
    counts = sorted({len(one) for one in maps})
    if len(maps) < 2 or len(counts) > 1:
        raise InputError(
            f"{name} of heat maps needs those of two models or more, of the same images. Received: {len(maps)} models, "
            f"with {' and '.join(map(str, counts))} images."
        )
    shown = ~np.all([is_constant(one) for one in maps], axis=0)
    clusters = np.arange(len(classes)) if patients is None else np.unique(patients, return_inverse=True)[1]
    clusters = np.unique(clusters[shown], return_inverse=True)[1]
    facts = {"images": int(shown.sum()), "empty": int((~shown).sum()), "models": len(maps)}
    if len(np.unique(clusters)) < FEWEST:
        count = len(np.unique(clusters))
        reason = f"Maps that are not the same everywhere are of {count} patients; a verdict needs {FEWEST}."
        return MapCheck(name, "doubtful", reason, facts)
    same, different = _levels([one[shown] for one in _alike(maps)], np.asarray(classes)[shown], clusters, seed)
    rank, baseline = (level[MEASURES[0]] for level in (same, different))
    verdict: Verdict = "doubtful"
    if low(rank) > high(baseline):
        verdict = "passes"
    elif high(rank) <= high(baseline):
        verdict = "fails"
    sentence = (
        f"Between {between}, two maps of one image have a rank correlation of "
        f"{with_interval(rank.to_json(), 2)}, and of two different images {with_interval(baseline.to_json(), 2)}. "
        f"{_MEANING[verdict].format(one='training' if name == 'repeatability' else 'model')}"
    )
    return MapCheck(name, verdict, sentence, {**facts, **as_json(same), "baseline": as_json(different)})


def _alike(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return `maps` at the largest size of any."""
    height, width = (max(one.shape[axis] for one in maps) for axis in (1, 2))
    return [
        one
        if one.shape[1:] == (height, width)
        else enlargement(one.shape[1], height) @ one @ enlargement(one.shape[2], width).T
        for one in maps
    ]


def _levels(
    maps: Sequence[np.ndarray], classes: np.ndarray, clusters: np.ndarray, seed: int
) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """Return how alike maps of the same image, and of different images, are from two models, by measure."""
    rows = np.arange(len(classes))
    first, second = choose_pairs(classes, clusters, seed)
    weights = drawn_rows(clusters, seed)
    levels = []
    for one, other in ((rows, rows), (first, second)):
        found = np.mean([similarities(a[one], b[other]) for a, b in itertools.combinations(maps, 2)], axis=0)
        levels.append(mean_of_pairs(found, one, other, clusters, weights))
    return levels[0], levels[1]
