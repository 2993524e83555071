"""Checks of maps against known places: masks or boxes of findings, and the lungs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chestxray.evaluation.figure_format import in_sentence
from chestxray.explanation import map_priors
from chestxray.explanation.localisation.overlap import area, iou, pointing, share_inside, tuned_threshold
from chestxray.explanation.map_check import MapCheck
from chestxray.explanation.map_estimates import CENTRE, Scores, lead_in_words, mean, verdict

#: The name of what a map without information scores.
AREA = "chance, the share of the area"
#: A lead of less than this share of the film, or of the images, counts as none: with many images it can be certain, and
#: means nothing to who looks at the map.
LEAST = 0.01
_QUESTIONS = {
    "pointing-game": "The strongest point of the map lies inside the finding's mask or box in a share of",
    "share-inside": "The share of the map inside the finding's mask or box is",
    "iou": "The overlap of the marked area with the finding's mask or box (intersection over union) is",
    "inside-lungs": "The share of the map inside the lungs is",
}


@dataclass(frozen=True)
class Tuning:
    """Validation images, from which the threshold of the overlap is chosen: ``maps``, ``masks`` and ``films`` as in
    `overlap_checks`.
    """

    maps: np.ndarray
    masks: np.ndarray
    films: np.ndarray | None = None


def overlap_checks(
    maps: np.ndarray,
    masks: np.ndarray,
    patients: np.ndarray,
    *,
    findings: Sequence[str] | None = None,
    tuning: Tuning | None = None,
    films: np.ndarray | None = None,
    seed: int = 0,
) -> list[MapCheck]:
    """Return the checks ``pointing-game`` and ``share-inside`` and, with `tuning`, ``iou``.

    Args:
        maps: float (rows, height, width), of 0 and more.
        masks: bool (rows, height, width); an image whose mask is all False is left out.
        patients: codes of the patients, int (rows,).
        findings: the explained finding of each image, for figures by finding.
        tuning: validation images. Without them there is no ``iou``: its threshold must not be chosen on `maps`.
        films: where the film lies in each image, bool (rows, height, width); None: everywhere.
        seed: of the bootstrap.

    Returns:
        An empty list where no image has a mask.
    """
    known = masks.any(axis=(1, 2))
    if not known.any():
        return []
    maps, masks, patients = maps[known], masks[known], patients[known]
    films = None if films is None else films[known]
    names = None if findings is None else np.asarray(findings, dtype=object)[known]
    blob = np.broadcast_to(map_priors.centre((maps.shape[1], maps.shape[2])), maps.shape)
    chance, empty = area(masks, films), int((~maps.any(axis=(1, 2))).sum())
    found = []
    for name, score in (("pointing-game", pointing), ("share-inside", share_inside)):
        scores = Scores(score(maps, masks, films), {AREA: chance, CENTRE: score(blob, masks, films)}, patients)
        found.append(_check(name, scores, names, seed, {"empty_maps": empty}))
    if tuning is not None and (usable := tuning.masks.any(axis=(1, 2))).any():
        some = None if tuning.films is None else tuning.films[usable]
        tuned = Tuning(tuning.maps[usable], tuning.masks[usable], some)
        found.append(_iou_check(maps, masks, blob, patients, names, tuned, films, seed))
    return found


def lung_check(
    maps: np.ndarray, lungs: np.ndarray, patients: np.ndarray, *, films: np.ndarray | None = None, seed: int = 0
) -> list[MapCheck]:
    """Return the check ``inside-lungs``: the share of the map inside the lungs beside the lungs' share of the film.

    Arguments as of `overlap_checks`. It passes where the map is inside more than by chance, with an interval above
    `LEAST`, and is doubtful otherwise. It never fails: a large heart lies outside the lungs, and a map inside them does
    not show that the model uses disease. A fixed blob is reported for comparison only: most of it lies in the lungs.
    """
    known = lungs.any(axis=(1, 2))
    if not known.any():
        return []
    maps, lungs, patients = maps[known], lungs[known], patients[known]
    films = None if films is None else films[known]
    blob = np.broadcast_to(map_priors.centre((maps.shape[1], maps.shape[2])), maps.shape)
    beside = mean(share_inside(blob, lungs, films), patients, seed=seed).to_json()
    scores = Scores(share_inside(maps, lungs, films), {AREA: area(lungs, films)}, patients)
    empty = int((~maps.any(axis=(1, 2))).sum())
    found = _check("inside-lungs", scores, None, seed, {"empty_maps": empty, "centre_blob": beside})
    return [replace(found, verdict="passes" if found.verdict == "passes" else "doubtful")]


def _iou_check(
    maps: np.ndarray,
    masks: np.ndarray,
    blob: np.ndarray,
    patients: np.ndarray,
    names: np.ndarray | None,
    tuning: Tuning,
    films: np.ndarray | None,
    seed: int,
) -> MapCheck:
    threshold = tuned_threshold(tuning.maps, tuning.masks, tuning.films)
    blob_threshold = tuned_threshold(np.broadcast_to(blob[0], tuning.maps.shape), tuning.masks, tuning.films)
    priors = {AREA: area(masks, films), CENTRE: iou(blob, masks, blob_threshold, films)}
    more = {"threshold": threshold, "threshold_of_centre": blob_threshold, "validation_images": len(tuning.maps)}
    more["empty_maps"] = int((~maps.any(axis=(1, 2))).sum())
    return _check("iou", Scores(iou(maps, masks, threshold, films), priors, patients), names, seed, more)


def _check(name: str, scores: Scores, names: np.ndarray | None, seed: int, more: Mapping[str, Any]) -> MapCheck:
    differences = scores.differences(seed)
    figures = _figures(scores, seed) | {"better_by": {which: one.to_json() for which, one in differences.items()}}
    if names is not None:
        figures["by_finding"] = {
            str(one): _figures(_of_rows(scores, names == one), seed) for one in sorted(set(names.tolist()))
        }
    beside = ", ".join(f"{which} {one['value']:.2f}" for which, one in figures["priors"].items())
    lead = lead_in_words(scores, differences, LEAST)
    sentence = f"{_QUESTIONS[name]} {in_sentence(figures['value'])}; {beside}. {lead}"
    if empty := more.get("empty_maps"):
        sentence += f" {empty} of the maps {'is' if empty == 1 else 'are'} empty."
    return MapCheck(name, verdict(scores, differences, LEAST), sentence, {**figures, **more})


def _of_rows(scores: Scores, rows: np.ndarray) -> Scores:
    return Scores(scores.own[rows], {k: one[rows] for k, one in scores.priors.items()}, scores.patients[rows])


def _figures(scores: Scores, seed: int) -> dict[str, Any]:
    return {
        "images": len(scores.own),
        "patients": len(np.unique(scores.patients)),
        "value": mean(scores.own, scores.patients, seed=seed).to_json(),
        "priors": {k: mean(one, scores.patients, seed=seed).to_json() for k, one in scores.priors.items()},
    }
