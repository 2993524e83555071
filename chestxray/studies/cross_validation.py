"""Pools the folds of one model into one folder with the format of a run's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from chestxray.data.index import row_keys
from chestxray.errors import InputError
from chestxray.evaluation.figure_format import number, span
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired.candidate_figures import cross_validated
from chestxray.evaluation.paired.comparison import METHODS
from chestxray.evaluation.predictions import Predictions
from chestxray.runs.run_folder import Run
from chestxray.studies import derived_run, ensembling, pooled_findings, shared_controls
from chestxray.studies.study import Study

#: Name, without extension, of the file with figures that are means over folds.
FOLDS = "folds"


def pool(study: Study, cache: str | Path | None = None) -> Run:
    """Evaluate the parts of a study of one model and one seed together, in the study's folder.

    The shortcut controls use the splits of the parts, and images decoded in `cache`.

    Where each part has its own test, every image is tested once, by the model that was not trained on it, and no
    single model exists. Where the test is the same for all parts, their ensemble is evaluated.

    Raises:
        InputError: several models, or several seeds.
        DataError: tests that overlap without being the same.
    """
    (name, *others) = study.recipes
    runs = {part.name: run for part, run in zip(study.parts, study.runs(name), strict=False)}
    if others or len({run.recipe.seed for run in runs.values()}) > 1:
        raise InputError("Only the folds of one model and one seed can be pooled.")
    if next(iter(runs.values())).task == "findings":
        return pooled_findings.pool(study.folder, study.recipes[name], runs, cache)
    tables = cast(tuple[Predictions, ...], study.tests(name))
    recipe, count = study.recipes[name], len(runs)
    if len(tables) > 1:
        note = f"{count} models, each validated on another part of the training images, tested on the same images."
        return ensembling.write(runs, study.folder, cache, notes=[note])
    first = next(iter(runs.values()))
    tested = set(row_keys(tables[0].rows))
    rows = first.index.rows
    index = first.index.replace(rows.assign(split=["test" if row in tested else "" for row in row_keys(rows)]))
    positive = ensembling.shared_positive(runs)
    over_folds = cross_validated(tables[0], positive, recipe.metric)
    what = "sources" if recipe.split == "source" else "folds"
    note = (
        f"{count} {what}, each tested by a model trained on the others: every image was tested once. The figures "
        f"are of {count} models together; their intervals speak of these models on other patients. {_said(over_folds)}"
    )
    return derived_run.write(
        study.folder,
        recipe,
        index,
        tables[0],
        positive=positive,
        audit=ensembling.audit(runs, [note]),
        # The models are alternatives, not members of an ensemble: the size is that of one.
        record=ensembling.record(runs) | {"model": first.environment["model"]},
        controls=lambda metrics: shared_controls.of(runs, index, tables[0], metrics, cache, apart=True),
        extra={
            FOLDS: {
                "folds": count,
                "method": METHODS["folds"],
                "test": {name: figure.to_json() for name, figure in over_folds.items()},
            }
        },
    )


def _said(over_folds: Mapping[str, Figure]) -> str:
    """Return a sentence with the mean AUROC over folds; its interval includes the sampling of training images."""
    summary = over_folds["auroc"].to_json()
    if summary["value"] is None:
        return ""
    between = span(summary)
    return (
        f"The mean AUROC over the {FOLDS} is {number(summary['value'])}"
        + (f" (95% interval {between}, which speaks of models trained anew on other images)" if between else "")
        + f"; {FOLDS}.json has the other figures."
    )
