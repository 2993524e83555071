"""Deletion, insertion and ROAD of a method's maps beside those of random, centred and other images' maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from chestxray.evaluation.figure_format import in_sentence
from chestxray.explanation import map_priors
from chestxray.explanation.faithfulness.pixel_order import STEPS, Predict, deletion, insertion
from chestxray.explanation.faithfulness.road import SHARES, road
from chestxray.explanation.map_check import MapCheck
from chestxray.explanation.map_estimates import CENTRE, OTHERS, RANDOM, Scores, lead_in_words, mean, verdict

#: Evaluations of the network for each image and each kind of map.
EVALUATIONS = 2 * len(STEPS) + 2 * len(SHARES)
#: A lead of less than this in probability counts as none: an untrained network answers one half whatever is removed,
#: and differs by thousandths.
LEAST = 0.01
_QUESTIONS = {
    "deletion": "The probability while the pixels that a map marks first are removed, as an area (lower is better)",
    "insertion": "The probability while the pixels that a map marks first return to a blurred film, as an area "
    "(higher is better)",
    "road": "Half the difference in probability between removing the least and the most marked pixels (ROAD; higher "
    "is better)",
}


def removal_checks(
    predict: Predict,
    pixels: np.ndarray,
    classes: np.ndarray,
    patients: np.ndarray,
    maps: np.ndarray,
    *,
    films: np.ndarray | None = None,
    seed: int,
) -> list[MapCheck]:
    """Return the checks ``deletion``, ``insertion`` and ``road`` of `maps`, float32 (rows, height, width).

    Args:
        predict: the model.
        pixels: uint8 (rows, height, width, channels).
        classes: the explained classes, int (rows,).
        patients: codes of the patients, int (rows,).
        maps: of the method, in its own unit.
        films: where the film lies, bool (rows, height, width), None: everywhere. The bars beside a padded film, whose
            removal changes nothing, come last in every order.
        seed: of the random maps, the order of equal pixels, the noise and the bootstrap.
    """
    size = (pixels.shape[1], pixels.shape[2])
    orders = {
        "own": maps,
        RANDOM: map_priors.random(len(maps), size, seed),
        CENTRE: np.broadcast_to(map_priors.centre(size), maps.shape),
    }
    if len(np.unique(patients)) > 1:
        orders[OTHERS] = map_priors.mean_of_others(maps, patients)
    if films is not None:
        orders = {which: np.where(films, order, -1) for which, order in orders.items()}
    found = []
    for name, score in (("deletion", deletion), ("insertion", insertion), ("road", road)):
        values = {which: score(predict, pixels, classes, order, seed=seed) for which, order in orders.items()}
        sign = -1.0 if name == "deletion" else 1.0
        signed = {which: sign * one for which, one in values.items()}
        found.append(_check(name, values, Scores(signed.pop("own"), signed, patients), seed))
    return found


def _check(name: str, values: dict[str, np.ndarray], scores: Scores, seed: int) -> MapCheck:
    differences = scores.differences(seed)
    span = (-0.5, 0.5) if name == "road" else (0.0, 1.0)
    means = {which: mean(one, scores.patients, span=span, seed=seed).to_json() for which, one in values.items()}
    own = means.pop("own")
    judged = verdict(scores, differences, LEAST)
    beside = ", ".join(f"{which} {one['value']:.2f}" for which, one in means.items())
    sentence = f"{_QUESTIONS[name]} is {in_sentence(own)}; {beside}. {lead_in_words(scores, differences, LEAST)}"
    figures: dict[str, Any] = {
        "images": len(scores.own),
        "patients": len(np.unique(scores.patients)),
        "value": own,
        "priors": means,
        "better_by": {which: one.to_json() for which, one in differences.items()},
    }
    return MapCheck(name, judged, sentence, figures)
