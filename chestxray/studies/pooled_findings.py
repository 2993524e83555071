"""Pools the folds of one model of findings into one folder with the format of a run's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.data import decoded
from chestxray.data.index import Index, row_keys
from chestxray.errors import InputError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.findings_evaluation import FindingsEvaluation, evaluate_findings
from chestxray.evaluation.paired import trainings
from chestxray.evaluation.predictions import Predictions, together
from chestxray.evaluation.shortcuts import controls
from chestxray.recipe import Recipe
from chestxray.report import findings_report
from chestxray.runs import finding_results, provenance, run_folder
from chestxray.runs.run_folder import Run
from chestxray.storage import cache as caches
from chestxray.storage.files import explained, replacing, write_json, write_text
from chestxray.studies import derived_run, ensembling


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
    found = evaluate_findings(predictions, replicates=recipe.replicates, seed=recipe.seed)
    with explained(folder):
        write_text(folder / run_folder.RECIPE, recipe.to_toml())
        write_json(folder / "audit.json", audit)
        with replacing(folder / run_folder.INDEX) as temporary:
            index.write(temporary)
        predictions.write(folder / run_folder.PREDICTIONS)
        write_json(folder / run_folder.METRICS, found.to_json())
        write_json(folder / run_folder.ENVIRONMENT, {**record, "finished": provenance.now()})
        shutil.rmtree(folder / finding_results.FOLDER, ignore_errors=True)
        seen = _controls(runs, index, predictions, found, cache)
        for name, place in finding_results.folders(folder, found.scored).items():
            place.mkdir(parents=True)
            view, table = index.of_finding(name), predictions.of_finding(name)
            derived_run.write(
                place,
                recipe,
                view.replace(view.rows),
                Predictions(table.rows.reset_index(drop=True), table.classes),
                positive=name,
                audit=audit,
                record=record,
                controls=partial(seen, name),
                report=False,  # written below, with those of the other findings
            )
        findings_report.write(folder)
    return Run(folder)


def _controls(
    runs: Mapping[str, Run],
    index: Index,
    predictions: FindingPredictions,
    found: FindingsEvaluation,
    cache: str | Path | None,
) -> Callable[[str, Mapping[str, Any]], dict[str, Any] | None]:
    """Return the function that makes ``controls.json`` of a finding from its name and its ``metrics.json``."""
    first = next(iter(runs.values()))
    recipe = first.recipe
    images = None
    if recipe.controls and recipe.image_size is not None:
        root = caches.root(cache)
        images = decoded.opened(first.index, recipe.image_size, recipe.fit, root, max_pixels=recipe.max_pixels)
    places = {key: i for i, key in enumerate(row_keys(index.rows))}
    splits = []
    for run in runs.values():
        split = np.full(len(index), "", dtype="U10")
        split[[places[key] for key in row_keys(run.index.rows)]] = run.index.rows["split"].to_numpy(dtype=str)
        splits.append(split)
    views = dict(finding_results.views(index, found.scored))

    def of(name: str, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
        if images is None:
            return None
        known = (views[name].rows["split"] != "").to_numpy()
        return controls.controls(
            views[name],
            images.pixels,
            predictions.of_finding(name),
            metrics,
            splits=[np.where(known, split, "") for split in splits],
            fit=recipe.fit,
            seed=recipe.seed,
            tasks=len(found.scored),
        )

    return of
