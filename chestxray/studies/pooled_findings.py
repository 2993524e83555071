"""Pools the folds of one model of findings into one folder with the format of a run's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chestxray.data.index import row_keys
from chestxray.errors import InputError
from chestxray.evaluation.paired import trainings
from chestxray.evaluation.predictions import together
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import Run
from chestxray.studies import derived_findings, ensembling


def pool(folder: Path, recipe: Recipe, runs: Mapping[str, Run], cache: str | Path | None) -> Run:
    """Evaluate folds that have tests of their own together, in `folder`, and return it.

    Every image is tested once, by the model that was not trained on it, and no single model exists. Controls are
    trained on the splits of the folds where the images are still decoded in `cache`.

    Raises:
        InputError: the folds have the same test, so that there is nothing to pool.
    """
    predictions = together(
        [
            trainings.marked(run.finding_predictions.of("test"), fold, int((run.index.rows["split"] == "train").sum()))
            for fold, run in enumerate(runs.values())
        ]
    )
    if predictions.rows["path"].duplicated().any():
        raise InputError(
            "The parts are tested on the same images and are not pooled: of findings, only folds with tests of their "
            f"own are. Each part has its own report: {', '.join(str(run.report) for run in runs.values())}."
        )
    first = next(iter(runs.values()))
    rows, tested = first.index.rows, set(row_keys(predictions.rows))
    index = first.index.replace(rows.assign(split=["test" if row in tested else "" for row in row_keys(rows)]))
    what = "sources" if recipe.split == "source" else "folds"
    note = (
        f"{len(runs)} {what}, each tested by a model trained on the others: every image was tested once. The figures "
        f"are of {len(runs)} models together; their intervals speak of these models on other patients."
    )
    audit = ensembling.audit(runs, [note])
    record = ensembling.record(runs) | {"model": first.environment["model"]}
    return derived_findings.write(
        folder,
        recipe,
        index,
        predictions,
        audit=audit,
        record=record,
        controls=derived_findings.controls_of(runs, index, predictions, cache, apart=True),
    )
