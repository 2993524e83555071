"""Random weights in place of the learnt ones must change the heat maps (Adebayo et al. 2018; Arun et al. 2021).

Weights are drawn from the output downwards, group of layers by group, until none is left that was learnt; and in one
group at a time. A method whose maps stay explains the image, not the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np

from chestxray.errors import NonFiniteError
from chestxray.explanation.map_check import Explain, MapCheck
from chestxray.explanation.sanity.own_maps import Meaning, OwnMaps, as_json
from chestxray.explanation.sanity.random_weights import RandomWeights

#: Stages of the cascade, groups randomised alone, and networks whose weights are all random.
STAGES, ALONE, NETWORKS = 8, 6, 4
#: From the numbers of the groups that are random to the maps.
Changed: TypeAlias = Callable[[Iterable[int]], np.ndarray]

_CASCADE = Meaning(
    passes="they depend on what the model has learnt", fails="part of them does not come from what the model has learnt"
)
_ALONE = Meaning(
    passes="they depend on the layers",
    fails="in the mean part of a map does not come from the layer that is made random",
)


def randomisation(model: Any, explain: Explain, own: OwnMaps) -> list[MapCheck]:
    """Return the checks ``cascading-randomisation`` and ``single-layer-randomisation`` of the maps `own` of `model`.

    `explain` is always called with one and the same copy of `model`, whose weights change between calls, so that it
    may keep a graph that it has compiled for it. The maps of `NETWORKS` networks whose weights are all random decide
    on the cascade. It costs ``STAGES + NETWORKS - 1 + ALONE`` maps an image, fewer in a network of fewer layers.
    """
    names = ("cascading-randomisation", "single-layer-randomisation")
    if reason := own.unable():
        return [own.doubtful(name, reason) for name in names]
    copy = RandomWeights(model, own.seed)
    if not copy.groups:
        return [own.doubtful(name, "The model has no layer with weights that could be random.") for name in names]

    def changed(groups: Iterable[int]) -> np.ndarray:
        copy.randomise(groups)
        return explain(copy.model, own.pixels, own.classes)

    try:
        return [_cascade(own, copy, changed), _alone(own, copy, changed)]
    except NonFiniteError as error:
        reason = f"With random weights the network gives numbers that are not finite, and so no maps: {error}"
        return [own.doubtful(name, reason) for name in names]


def stages(groups: int) -> list[int]:
    """Return how many of so many groups of layers are random in each stage of the cascade, up to all of them.

    >>> stages(53), stages(3)
    ([1, 8, 16, 23, 31, 38, 46, 53], [1, 2, 3])
    """
    return np.unique(np.linspace(1, groups, min(STAGES, groups)).round().astype(int)).tolist()


def chosen_alone(groups: int) -> list[int]:
    """Return the numbers of the groups of layers that are made random alone, of so many, from the top.

    >>> chosen_alone(53), chosen_alone(3)
    ([0, 10, 21, 31, 42, 52], [0, 1, 2])
    """
    return np.unique(np.linspace(0, groups - 1, min(ALONE, groups)).round().astype(int)).tolist()


def _cascade(own: OwnMaps, copy: RandomWeights, changed: Changed) -> MapCheck:
    groups = len(copy.groups)
    found = []
    for count in stages(groups):
        maps = changed(range(count))
        found.append({"random": count, "down_to": copy.groups[count - 1][0], **as_json(own.level(maps))})
    networks = [maps]
    for number in range(1, NETWORKS):
        copy.draw(own.seed + number)
        networks.append(changed(range(groups)))
    level = own.level(*networks, drawn=True)
    more: dict[str, Any] = {"groups": groups, "networks": NETWORKS, "stages": found}
    return own.check("cascading-randomisation", "With all weights random", level, _CASCADE, **more)


def _alone(own: OwnMaps, copy: RandomWeights, changed: Changed) -> MapCheck:
    """The mean over the groups decides: skip connections let much of a network do without a certain one of them, and
    a single draw of a layer near the output may by chance weigh the same features.
    """
    maps, found = [], []
    for number in chosen_alone(len(copy.groups)):
        maps.append(changed([number]))
        found.append({"layer": copy.groups[number][0], **as_json(own.level(maps[-1]))})
    began = f"With one layer random, in the mean of {len(found)} layers"
    alike = [(one["rank_correlation"]["value"], one["layer"]) for one in found]
    (least, changing), (most, keeping) = min(alike), max(alike)
    spread = f" By layer it is {least:.2f} ({changing}) to {most:.2f} ({keeping})."
    return own.check("single-layer-randomisation", began, own.level(*maps), _ALONE, spread, layers=found)
