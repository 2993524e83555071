"""Plugins for metrics, losses, augmentations and explanations: one small frozen dataclass each.

They are registered as models are, by an entry point whose name is what a recipe calls them by::

    [project.entry-points."chestxray.metrics"]
    youden = "chestxray_youden:plugin"
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from chestxray.errors import PluginError

Array = Any  # a numpy array; numpy is not imported until a plugin needs it


@dataclass(frozen=True, kw_only=True)
class MetricPlugin:
    """A figure of a test, ``--metric NAME``. It gets an interval, a paired test and a row in the report like our own.

    - ``compute(truth, probability, weights) -> values``: NumPy arrays. `weights` is float (replicates, rows): how often
      each row counts in each bootstrap replicate, 0 for one that is left out. Returns float (replicates,), NaN where
      the figure cannot be computed. With ``per="class"`` it is called for each class or finding against the rest: `truth`
      is bool (rows,), `probability` float (rows,) in 0..1. With ``per="set"`` it is called once: `truth` holds class
      numbers, int (rows,), `probability` is float (rows, classes).
    - ``title``: its name in tables; ``meaning``: what it says, in a sentence for the report.
    - ``higher_is_better``; ``bounds``: its least and its greatest possible value.
    - ``per``: of two classes, a figure per class is that of the positive one; of more, the mean over the classes.
    - ``reference``, ``licence``, ``api``: as of `ModelPlugin`.

    Raises:
        PluginError: a field that cannot be.
    """

    compute: Callable[[Array, Array, Array], Array]
    title: str
    meaning: str = ""
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    per: Literal["class", "set"] = "class"
    reference: str = ""
    licence: str = ""
    api: int = 1

    def __post_init__(self) -> None:
        if self.per not in ("class", "set"):
            raise PluginError(f"MetricPlugin.per must be class or set. Received: {self.per!r}.")
        if len(self.bounds) != 2 or not -math.inf < self.bounds[0] < self.bounds[1] < math.inf:
            raise PluginError(f"MetricPlugin.bounds must be two finite numbers, rising. Received: {self.bounds}.")
