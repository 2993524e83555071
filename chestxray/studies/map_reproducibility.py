"""Whether the heat maps of finished runs agree: between seeds of one architecture, and between architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from chestxray.data.decoded import decode
from chestxray.errors import DataError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.paired.comparison import align
from chestxray.evaluation.paired.finding_comparison import align_findings
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation.map_check import Explain, MapCheck
from chestxray.explanation.sanity.model_checks import IMAGES
from chestxray.explanation.sanity.reproducibility import repeatability, reproducibility
from chestxray.runs.run_folder import Run
from chestxray.studies import study


def map_reproducibility(
    runs: Mapping[str, Sequence[Run]],
    explain_of: Callable[[Run], Explain],
    cache: Path,
    *,
    images: int = IMAGES,
    seed: int = 0,
) -> list[MapCheck]:
    """Return a check ``repeatability`` for each model with several runs, and where there are several models the check
    ``reproducibility`` between their first runs.

    Args:
        runs: the runs by name of the model, as ``Candidate.runs``; all with the same test images.
        explain_of: returns the method of explanation for the model of a run.
        cache: where images are decoded.
        images: test images whose maps are compared; one map an image and run.
        seed: of the images, the pairs and the bootstrap.

    What is explained in an image is what the first run decided on, with findings its most probable one.

    Raises:
        InputError: a run without a model of its own.
        DataError: runs with other test images, classes or findings; a test image that cannot be read any more.
    """
    every = [run for of_model in runs.values() for run in of_model]
    table = _shared_test(every)
    rows = np.sort(np.random.default_rng(seed).permutation(len(table.rows))[:images])
    most = table.probabilities.argmax(axis=1) if isinstance(table, FindingPredictions) else table.predicted
    classes = most[rows]
    names, paths = [table.classes[number] for number in classes], table.rows["path"].iloc[rows]
    maps = {run.folder: _maps(run, explain_of(run), paths.tolist(), names, cache) for run in every}
    patients = table.clusters[rows]
    found = [
        repeatability([maps[run.folder] for run in of_model], classes, of=name, patients=patients, seed=seed)
        for name, of_model in runs.items()
        if len(of_model) > 1
    ]
    if len(runs) > 1:
        first = [maps[of_model[0].folder] for of_model in runs.values()]
        found.append(reproducibility(first, classes, of=", ".join(runs), patients=patients, seed=seed))
    return found


def _shared_test(runs: Sequence[Run]) -> Predictions | FindingPredictions:
    """Return the test of the first run. Raises `DataError` where that of another is of other images or outputs."""
    tests = {str(run.folder): study.test_of(run) for run in runs}
    of_classes = {name: table for name, table in tests.items() if isinstance(table, Predictions)}
    if of_classes:
        return next(iter(align(of_classes).values()))
    of_findings = {name: (table,) for name, table in tests.items() if isinstance(table, FindingPredictions)}
    return next(iter(align_findings(of_findings).values()))[0]


def _maps(run: Run, explain: Explain, paths: Sequence[str], names: Sequence[str], cache: Path) -> np.ndarray:
    """Return the maps (rows, height, width) of the test images at `paths`, each for the output of its name."""
    recipe = run.recipe
    assert recipe.image_size is not None, "the recipe of a run has the size"
    rows = run.index.rows
    chosen = rows[rows["split"] == "test"].set_index("path", drop=False).loc[list(paths)].reset_index(drop=True)
    index, most = run.index.replace(chosen), recipe.max_pixels
    decoded = decode(index, recipe.image_size, recipe.fit, cache, max_pixels=most, lungs=run.segmenter)
    if (unread := decoded.facts["unreadable"] != "").any():
        path, why = chosen.loc[unread, "path"].iloc[0], decoded.facts.loc[unread, "unreadable"].iloc[0]
        raise DataError(f"{int(unread.sum())} of {len(chosen)} test images cannot be read any more: {path}: {why}")
    numbers = np.array([run.classes.index(name) for name in names])
    return explain(run.model, np.asarray(decoded.pixels)[..., np.newaxis], numbers)
