"""The heat maps of a run's test: what they are worth (``heatmaps/checks.json``), and the panel of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation import map_checks, panel
from chestxray.recipe import GRADCAM, Recipe
from chestxray.runs import run_folder
from chestxray.storage import result_files
from chestxray.storage.files import write_bytes, write_json


def asked(recipe: Recipe) -> bool:
    """Whether `recipe` asks for checks of heat maps; of those that it does not draw there are none."""
    return bool(recipe.heatmaps) and recipe.map_checks != "none"


def needs_shuffled(recipe: Recipe, layer: str | None, model: keras.Model | None = None) -> bool:
    """Whether the checks that `recipe` asks for, of maps at `layer`, need a model trained on shuffled labels; not where
    the method gives no maps of `model`, which without it the layer alone decides.
    """
    return asked(recipe) and recipe.map_checks == "all" and not map_checks.unable(recipe.explain, layer, model)


def check(
    folder: Path,
    model: keras.Model,
    layer: str | None,
    test: Predictions | FindingPredictions,
    validation: Predictions | FindingPredictions | None,
    images: Mapping[str, np.ndarray],
    rows: pd.DataFrame,
    recipe: Recipe,
    shuffled: keras.Model | None = None,
) -> None:
    """Check the maps of ``recipe.explain`` as far as ``recipe.map_checks`` says, and write what is found beside what
    is known of other methods.

    `folder` has the ``metrics.json`` of `test`; `images` of `test` and of `validation`, if any, are uint8 (height,
    width) by path; `rows` are those of the index; `shuffled` is the model that `needs_shuffled` asks for. Raises as
    `map_checks.judge`.
    """
    if not asked(recipe) or not images:
        return
    metrics = result_files.read(folder / run_folder.METRICS)
    judged = map_checks.judge(
        model, layer, recipe.explain, test, images, rows, Figure.from_json(metrics["test"]["auroc"]),
        validation=validation, shuffled=shuffled,
        fit=recipe.fit, thorough=recipe.map_checks == "all", seed=recipe.seed,
    )  # fmt: skip
    others = [one for one in _known(folder) if one["method"] != judged.method]
    write_json(folder / run_folder.MAP_CHECKS, {"methods": [*others, judged.to_json()]})


def draw(
    folder: Path,
    model: keras.Model,
    layer: str | None,
    reason: str,
    test: Predictions | FindingPredictions,
    images: Mapping[str, np.ndarray],
    recipe: Recipe,
) -> None:
    """Write the panel; the pictures of a method that failed its checks here say so. Without `images` it is empty, and
    the scale of Grad-CAM's maps stays the one that is known.
    """
    badges = {one["method"]: one["badge"] for one in _known(folder)}
    panel.write_panel(
        model, layer, reason, test, images, recipe.heatmaps, recipe.seed, folder / "heatmaps", recipe.explain,
        badges.get(recipe.explain, ""), run_folder.Run(folder).map_scale(GRADCAM),
    )  # fmt: skip


def stage(folder: Path, place: Path) -> None:
    """Copy to `place` what `check` and `draw` read of the run in `folder`, so that they can work in `place`."""
    for name in (run_folder.METRICS, run_folder.HEATMAPS, run_folder.MAP_CHECKS):
        if (folder / name).is_file():
            write_bytes(place / name, (folder / name).read_bytes())


def put(place: Path, folder: Path) -> None:
    """Put the heat maps that were drawn in `place` in the place of those of the run in `folder`."""
    made, kept = (where / Path(run_folder.HEATMAPS).parent for where in (place, folder))
    index = Path(run_folder.HEATMAPS).name
    names = {file.name for file in made.iterdir()}
    # The index last: every picture that it names is there.
    for name in sorted(names, key=lambda name: name == index):
        write_bytes(kept / name, (made / name).read_bytes())
    for picture in kept.glob("*.png"):
        if picture.name not in names:
            picture.unlink()


def _known(folder: Path) -> list[dict[str, Any]]:
    """Return what is known of each method."""
    found: list[dict[str, Any]] = result_files.read_if_any(folder / run_folder.MAP_CHECKS).get("methods", [])
    return found
