"""The interface of an inference engine: a model in Keras, an exported file in another runtime, or an ensemble.

Nothing heavy is imported here, so that a server needs no TensorFlow where its engine needs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from chestxray.errors import InputError
from chestxray.evaluation.decision.finding_rule import Rule

if TYPE_CHECKING:
    from chestxray.data.images.pixels import Fit
    from chestxray.inference.heat_maps import HeatMaps
    from chestxray.models.lung_segmenter import LungSegmenter


@dataclass(frozen=True)
class Outputs:
    """The outputs of an engine for n images.

    ``probabilities`` float32 (n, classes), calibrated. ``distances`` float64 (n,) from the training radiographs,
    None where the engine refuses nothing. ``maps`` float32 (n, height, width) of 0 and more, heat maps
    of the decided class in the unit of the engine's ``heat_maps``; None where they were not asked for. With findings,
    ``maps`` is (n, m, height, width), and ``mapped``, int32 (n, m), has the numbers of the findings that they explain:
    the most probable ones, the first most of all.
    """

    probabilities: np.ndarray
    distances: np.ndarray | None
    maps: np.ndarray | None
    mapped: np.ndarray | None = None


class Engine(Protocol):
    """A model ready for inference, of findings where its ``decision`` is a `FindingDecision`.

    ``classes`` are its outputs in order, classes or findings. ``image_size`` is (height, width) of its input pixels and
    ``fit`` the way images are brought to that size, after ``segmenter``, if any, has cut them to their lungs. Images
    with a distance above ``refusal_threshold`` are refused; None: no image is. ``heat_maps``: the scale and the badge
    of its heat maps; None: it has none.
    """

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def fit(self) -> Fit: ...
    @property
    def segmenter(self) -> LungSegmenter | None: ...
    @property
    def decision(self) -> Rule: ...
    @property
    def refusal_threshold(self) -> float | None: ...
    @property
    def heat_maps(self) -> HeatMaps | None: ...

    def run(self, pixels: np.ndarray, *, maps: bool = False) -> Outputs:
        """Return the outputs for `pixels`, uint8 (n, height, width), in one batch: memory grows with n.

        May be called from several threads. `maps` asks for heat maps; raises `InputError` where the engine has none.
        """
        ...


def check_maps(engine: Engine) -> None:
    """Raise `InputError` unless `engine` has heat maps."""
    if engine.heat_maps is None:
        raise InputError(
            f"{engine.name} has no heat maps: its architecture has no convolutional layer to explain, or its run "
            "states no scale for them, which `chestxray evaluate RUN --heatmaps 2` writes."
        )
