"""A folder of predictions of findings that no single model made, such as an ensemble's: as that of a run of findings,
but for what only a training leaves.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.data import decoded, findings
from chestxray.data.index import Index, row_keys
from chestxray.evaluation.decision import finding_selection
from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.decision.rule import FILE as DECISION
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.shortcuts import controls as shortcut_controls
from chestxray.recipe import Recipe
from chestxray.report import findings_report
from chestxray.runs import finding_results, provenance, run_folder
from chestxray.runs.run_folder import Run
from chestxray.storage import cache as caches
from chestxray.storage.files import explained, replacing, write_json, write_text
from chestxray.studies import shared_controls

#: Makes ``controls.json`` of a finding from its name, its ``metrics.json`` and the number of findings; None for none.
Controls = Callable[[str, Mapping[str, Any], int], Mapping[str, Any] | None]


def write(
    folder: Path,
    recipe: Recipe,
    index: Index,
    predictions: FindingPredictions,
    *,
    audit: Mapping[str, Any],
    record: Mapping[str, Any],
    controls: Controls,
    extra: Mapping[str, Any] | None = None,
) -> Run:
    """Write `folder` so that it is read as that of a run of findings, and return it.

    The arguments are those of `derived_run.write`: thresholds are chosen on the validation rows of `predictions`;
    without any there is no ``decision.json`` and what is predicted stays as it is.
    """
    plain = recipe.replace(calibrate=False, positive=None)
    validation: FindingPredictions | None = predictions.of("validation")
    assert validation is not None
    if len(validation.rows):
        _, decision = finding_selection.decide(validation, plain)
        predictions = decision.applied(predictions)
        validation = predictions.of("validation")
    else:
        validation, decision = None, _undecided(predictions.findings)
    with explained(folder):
        write_text(folder / run_folder.RECIPE, recipe.to_toml())
        write_json(folder / "audit.json", audit)
        with replacing(folder / run_folder.INDEX) as temporary:
            index.write(temporary)
        predictions.write(folder / run_folder.PREDICTIONS)
        test = predictions.of("test")
        found = finding_results.assess_findings(test, index, plain, decision, folder, validation=validation)
        places = finding_results.folders(folder, found.scored)
        for name, place in places.items():
            if (beside := controls(name, found.to_json()["findings"][name]["evaluation"], len(places))) is None:
                (place / shortcut_controls.FILE).unlink(missing_ok=True)
            else:
                shortcut_controls.write(place, beside)
        if validation is None:
            for place in (folder, *places.values()):
                for file in (DECISION, "operating_points.json"):
                    (place / file).unlink(missing_ok=True)
        for file, content in (extra or {}).items():
            write_json(folder / f"{file}.json", content)
        shutil.rmtree(folder / "heatmaps", ignore_errors=True)
        write_json(folder / run_folder.ENVIRONMENT, {**record, "finished": provenance.now()})
        findings_report.write(folder)
    return Run(folder)


def controls_of(
    runs: Mapping[str, Run],
    index: Index,
    predictions: FindingPredictions,
    cache: str | Path | None,
    *,
    apart: bool = False,
) -> Controls:
    """Return the function that makes the controls of each finding of `runs` together.

    Where the images of the first run are still decoded in `cache`, the controls are trained and tested anew on the
    splits of `index`; `apart`: on those of each run, which has a test of its own. Otherwise those of the runs are
    used, as by `shared_controls.of`; of runs `apart` there are none then.

    Args:
        runs: by their names, of the same images as `index`.
        index: the images in the order of the first run, each with its split for all runs together.
        predictions: of the test.
        cache: the cache folder.
        apart: see above.
    """
    first = next(iter(runs.values()))
    recipe = first.recipe
    wanted = any(run.recipe.controls for run in runs.values())
    images = None
    if wanted and recipe.image_size is not None and (apart or (index.rows["split"] == "train").any()):
        root = caches.root(cache)
        images = decoded.opened(
            first.index, recipe.image_size, recipe.fit, root, max_pixels=recipe.max_pixels, lungs=first.segmenter
        )
    splits = _splits(runs, index) if apart else None

    def of(name: str, metrics: Mapping[str, Any], tasks: int) -> Mapping[str, Any] | None:
        if images is None:
            members = {run: one.findings[name] for run, one in runs.items() if name in one.findings}
            return None if apart else shared_controls.inherited(members, metrics)
        ((_, view),) = finding_results.views(index, (name,))
        known = (view.rows["split"] != "").to_numpy()
        return shortcut_controls.controls(
            view,
            images.pixels,
            predictions.of_finding(name),
            metrics,
            splits=None if splits is None else [np.where(known, split, "") for split in splits],
            fit=recipe.fit,
            seed=recipe.seed,
            tasks=tasks,
        )

    return of


def _splits(runs: Mapping[str, Run], index: Index) -> Sequence[np.ndarray]:
    places = {key: i for i, key in enumerate(row_keys(index.rows))}
    splits = []
    for run in runs.values():
        split = np.full(len(index), "", dtype="U10")
        split[[places[key] for key in row_keys(run.index.rows)]] = run.index.rows["split"].to_numpy(dtype=str)
        splits.append(split)
    return splits


def _undecided(names: Sequence[str]) -> FindingDecision:
    return FindingDecision(
        {name: Decision((findings.absent(name), name), name, Calibration(), {}, "") for name in names}
    )
