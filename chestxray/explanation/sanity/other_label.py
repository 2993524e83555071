"""The map of another label must differ, and so must the map of a model that was trained on shuffled labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from chestxray.explanation.map_check import Explain, MapCheck
from chestxray.explanation.sanity.own_maps import Meaning, OwnMaps

_OTHER = Meaning(
    passes="they are of the label that they are said to be of", fails="a map does not say which label it is of"
)
_SHUFFLED = Meaning(
    passes="they depend on what the labels taught the model", fails="part of them does not come from the labels"
)


def other_label(model: Any, explain: Explain, own: OwnMaps) -> list[MapCheck]:
    """Return the check ``other-label``: the map of each image for another class, or finding, drawn at random, beside
    `own`. No check where the model has one output. It costs one map an image.
    """
    outputs = int(model.output.shape[-1])
    if outputs < 2:
        return []
    if reason := own.unable():
        return [own.doubtful("other-label", reason)]
    others = another(own.classes, outputs, own.seed)
    level = own.level(explain(model, own.pixels, others))
    return [own.check("other-label", "With another label to explain", level, _OTHER)]


def another(classes: np.ndarray, outputs: int, seed: int) -> np.ndarray:
    """Return for each of `classes`, int (rows,), another of the `outputs` classes, drawn at random: int (rows,)."""
    steps = np.random.default_rng(seed).integers(1, outputs, len(classes))
    return (np.asarray(classes) + steps) % outputs


def shuffled_labels(shuffled: Any, explain: Explain, own: OwnMaps) -> list[MapCheck]:
    """Return the check ``shuffled-labels``: the maps of `shuffled`, a model made as the one of `own`, but trained on
    labels that were dealt to the images at random (the data randomisation of Adebayo et al. 2018). One map an image.
    """
    if reason := own.unable():
        return [own.doubtful("shuffled-labels", reason)]
    level = own.level(explain(shuffled, own.pixels, own.classes))
    return [
        own.check("shuffled-labels", "With a model trained as this one was but on shuffled labels", level, _SHUFFLED)
    ]
