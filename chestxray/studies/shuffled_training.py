"""The model trained on shuffled labels of a finished run, by which its heat maps are checked."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from chestxray import workflow
from chestxray.data.decoded import decode
from chestxray.errors import InputError, PluginError, WeightsError
from chestxray.models import interrupts
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import Run

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

_NOT = "Heat maps are not checked against a model trained on shuffled labels."


def again(run: Run, recipe: Recipe, cache: Path) -> keras.Model | None:
    """Return a model trained as that of `run` was, but on shuffled labels, where `recipe`, the run's with other choices
    for heat maps, asks for checks that need it; its files are removed.

    None where none is asked for; and, as the log says, where the run was not trained here, its architecture or weights
    are no longer at hand, or the training has no finite end. The images are decoded in `cache`.
    """
    from chestxray.runs import heat_maps
    from chestxray.training import shuffled_labels

    if not heat_maps.needs_shuffled(recipe, run.cam_layer[0]):
        return None
    if run.calibrated_from:
        log.warning("%s The model was calibrated here, not trained.", _NOT)
        return None
    try:
        recipe, plugin, _ = workflow.resolve(recipe)
        assert recipe.image_size is not None, "the recipe of a run has the size"
        size, most = recipe.image_size, recipe.max_pixels
        decoded = decode(run.index, size, recipe.fit, cache, max_pixels=most, lungs=run.segmenter)
        prepared = workflow.Prepared(run.index, decoded.pixels, None, decoded.films)
        strategy = workflow.strategy_of(recipe)
        log.info("%s ...", shuffled_labels.DOING)
        with tempfile.TemporaryDirectory(dir=cache) as folder, interrupts.deferred():
            return shuffled_labels.train(
                lambda: workflow.build(recipe, plugin, prepared),
                decoded.pixels, run.index, recipe, Path(folder), strategy, cache,
            )  # fmt: skip
    except (InputError, PluginError, WeightsError) as error:
        log.warning("%s %s", _NOT, error)
        return None
