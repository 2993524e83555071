"""Heat maps of several models for the same test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from chestxray.explanation.panel_choice import RANDOM
from chestxray.report.embedded_images import Picture, Tile, picture_of
from chestxray.report.run_figures import heatmap_files
from chestxray.runs.run_folder import Run
from chestxray.studies.candidates import Candidate


@dataclass(frozen=True)
class SameImage:
    """A test image of the class or finding ``group``, and of each model by name its heat map with its answer."""

    group: str
    label: str
    radiograph: Picture
    maps: Mapping[str, Tile]


def side_by_side(candidates: Mapping[str, Candidate]) -> list[SameImage]:
    """Return the images that were drawn at random for the panels of all models that have heat maps; [] where fewer than
    two have some. Of several trainings of a model the first counts.
    """
    panels = {name: _drawn(candidate.runs[0]) for name, candidate in candidates.items() if candidate.runs}
    panels = {name: panel for name, panel in panels.items() if panel}
    if len(panels) < 2:
        return []
    first, *others = panels.values()
    found = []
    for key, (label, radiograph, _) in first.items():
        if all(key in other for other in others):
            maps = {name: panel[key][2] for name, panel in panels.items()}
            found.append(SameImage(key[0], label, radiograph, maps))
    return found


def _drawn(run: Run) -> dict[tuple[str, str], tuple[str, Picture, Tile]]:
    """Return the true label, the radiograph and the map of each random image of a run's panel, by group and path."""
    found = {}
    for file, item in heatmap_files(run):
        if RANDOM not in item["kinds"]:
            continue
        with Image.open(file) as image:
            radiograph, overlay = np.split(np.asarray(image.convert("RGB")), 2, axis=1)
        said, name = item["predicted"], run.short(item["path"])
        alt = f"Heat map of a test image of {item['label']}, answered {said}."
        tile = Tile(picture_of(overlay, alt), item["label"], name, said, item["probability"])
        found[item["group"], item["path"]] = (
            item["label"], picture_of(radiograph, f"Test image of {item['label']}."), tile
        )  # fmt: skip
    return found
