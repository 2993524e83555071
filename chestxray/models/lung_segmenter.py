"""The installed segmenter as what cuts images to their lungs, and as what a run remembers of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from chestxray import registry
from chestxray.data import lung_boxes, lung_masks
from chestxray.data.images.pixels import Box
from chestxray.errors import PluginError
from chestxray.models import startup
from chestxray.recipe import Recipe
from chestxray.storage import checksums

#: What a segmenter is called among the methods of a run.
KIND = registry.KIND[registry.SEGMENTERS]
#: Films whose lungs are found at once.
BATCH = 256
_lock = threading.Lock()


@dataclass(frozen=True)
class LungSegmenter:
    """A segmenter: the ``name`` of its plugin, the ``distribution`` and ``version`` that it comes from, and the
    checksum of its ``weights``, ``""`` where it names no file of them. It need not be installed.
    """

    name: str
    distribution: str
    version: str
    weights: str = ""

    @property
    def identity(self) -> str:
        """Name, version and checksum in one text."""
        return f"{self} {self.weights}"

    def __str__(self) -> str:
        return f"{self.distribution}:{self.name} {self.version}"

    def require(self) -> registry.InstalledPlugin:
        """Return the installed plugin.

        Raises:
            PluginError: none is installed, several, or another one.
        """
        entry = _only(f"pip install '{self.distribution}=={self.version}'")
        if (found := _described(entry)) != self:
            which = str(found) if str(found) != str(self) else f"{found} with other weights"
            raise PluginError(
                f"Images are cut to their lungs as this model was trained, by {self}, and another segmenter is "
                f"installed: {which}. Install its own: pip install '{self.distribution}=={self.version}'."
            )
        return entry

    def boxes(self, films: np.ndarray) -> list[Box | None]:
        """As `lung_boxes.LungFinder`. Raises `PluginError` as `require`, and where the plugin fails."""
        entry = self.require()
        startup.start()  # before the plugin imports Keras, so that TensorFlow is quiet and leaves memory to others
        found: list[Box | None] = []
        with _lock:  # a server asks from several threads, and a plugin need not allow that
            for start in range(0, len(films), BATCH):
                some = np.ascontiguousarray(films[start : start + BATCH])
                found += map(lung_boxes.box_of, lung_masks.lung_masks(entry, some))
        return found

    def record(self) -> dict[str, str]:
        """Return what ``environment.json`` says of it."""
        plugin = registry.load_entry(registry.SEGMENTERS, self.require())
        return {
            "kind": KIND,
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "weights": self.weights,
            "reference": plugin.reference,
            "licence": plugin.licence,
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> LungSegmenter:
        """Return the segmenter that `record` described."""
        return cls(record["name"], record["distribution"], record["version"], record.get("weights", ""))


def installed() -> LungSegmenter:
    """Return the segmenter that is installed.

    Raises:
        PluginError: none is installed, several, or a broken one.
    """
    return _described(_only("pip install chestxray-lungs"))


def of_recipe(recipe: Recipe) -> LungSegmenter | None:
    """Return the installed segmenter where a new run by `recipe` cuts images to their lungs. Raises as `installed`."""
    return installed() if recipe.crop == "lungs" else None


def _only(advice: str) -> registry.InstalledPlugin:
    entry = lung_masks.segmenter()
    if entry is None:
        raise PluginError(
            f"Cutting images to their lungs needs a plugin that finds them, and none is installed: {advice}."
        )
    return entry


def _described(entry: registry.InstalledPlugin) -> LungSegmenter:
    weights = registry.load_entry(registry.SEGMENTERS, entry).weights
    try:
        digest = "" if weights is None else checksums.of(weights)
    except OSError as error:
        raise PluginError(
            f"The segmenter plugin {entry.qualified} {entry.version} is broken: its weights {weights} cannot be read: "
            f"{error.strerror}."
        ) from error
    return LungSegmenter(entry.name, entry.distribution, entry.version, digest)
