"""Writing the results of a run of findings: those of all findings, and a folder for each.

``metrics.json`` has the figures of every finding and their means, ``decision.json`` the rule of each and
``finding_gaps.json`` the differences between groups of people. In
``findings/NAME/`` each finding that is scored is written as a run of two classes, absent and present, on the images in
which it is known: with its own predictions, index, figures, thresholds and controls, so that whatever reads a run reads
a finding of one.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.data.index import Index
from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.findings_evaluation import FindingsEvaluation, evaluate_findings
from chestxray.evaluation.paired.finding_gaps import finding_gaps
from chestxray.evaluation.predictions import Predictions, together
from chestxray.evaluation.shortcuts.lungs import Masked
from chestxray.recipe import Recipe
from chestxray.runs import run_folder
from chestxray.runs.output_folder import slug
from chestxray.runs.results import Refusals, Scorer, assess, group_columns, refusal
from chestxray.runs.run_folder import Run
from chestxray.storage.files import replacing, write_json, write_text

log = logging.getLogger(__name__)

FOLDER, GAPS = "findings", "finding_gaps.json"


def assess_findings(
    test: FindingPredictions,
    index: Index,
    recipe: Recipe,
    decision: FindingDecision,
    folder: Path,
    *,
    validation: FindingPredictions | None = None,
    refusals: Refusals | None = None,
) -> FindingsEvaluation:
    """Write the files of this module to `folder`, and return the evaluation in ``metrics.json``.

    `test` and `validation` have calibrated probabilities and the decisions of `decision`; without `validation` (an
    external test) the files describe the test only. What a finding's folder has beside them, such as its controls, is
    kept.

    Raises:
        InputError: ``recipe.by`` names no column of the data.
    """
    found = evaluate_findings(test, replicates=recipe.replicates, seed=recipe.seed, metrics=recipe.metric)
    gaps = finding_gaps(test, group_columns(test, index, recipe.by))
    places = folders(folder, found.scored)
    for stale in set((folder / FOLDER).glob("*")) - set(places.values()):
        shutil.rmtree(stale, ignore_errors=True)
    for name, place in places.items():
        place.mkdir(parents=True, exist_ok=True)
        own = recipe.replace(positive=name)
        view = index.of_finding(name)
        tables = [_numbered(part.of_finding(name)) for part in (test, validation) if part is not None]
        write_text(place / run_folder.RECIPE, own.to_toml())
        with replacing(place / run_folder.INDEX) as temporary:
            view.replace(view.rows).write(temporary)
        together(tables).write(place / run_folder.PREDICTIONS)
        of_validation = tables[1] if validation is not None else None
        # The groups are those of all images, the same for every finding.
        assess(
            tables[0], index, own, decision.findings[name], place,
            validation=of_validation, corrected_gaps=_gaps_of(name, gaps),
        )  # fmt: skip
    if gaps is None:
        (folder / GAPS).unlink(missing_ok=True)
    else:
        write_json(folder / GAPS, gaps)
    write_json(folder / "decision.json", decision.to_json())
    if refusals is not None:
        write_json(folder / "refusal.json", refusal(refusals, test.clusters, Scorer(recipe, None)))
    write_json(folder / run_folder.METRICS, found.to_json())
    return found


def _gaps_of(name: str, gaps: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the contents of a finding's ``gaps.json``, with p-values corrected over all findings; empty without."""
    if gaps is None or not (gaps["findings"][name] or gaps["left_out"]):
        return {}
    shared = {key: gaps[key] for key in ("method", "interaction", "tests", "left_out")}
    return shared | {"columns": gaps["findings"][name]}


def write_controls(
    folder: Path,
    index: Index,
    pixels: np.ndarray,
    test: FindingPredictions,
    found: FindingsEvaluation,
    recipe: Recipe,
    masked: Masked | None = None,
) -> None:
    """Train the controls of each scored finding and write them to its folder.

    `pixels`, uint8 (rows, height, width), has one image per row of `index`; `masked` as for
    `chestxray.evaluation.shortcuts.controls.controls`, of all findings.
    """
    from chestxray.evaluation.shortcuts import controls

    places = folders(folder, found.scored)
    for name, view in views(index, found.scored):
        log.info("Controls of %s ...", name)
        evaluation = found.findings[name].evaluation
        assert evaluation is not None, "a scored finding has an evaluation"
        made = controls.controls(
            view, pixels, test.of_finding(name), evaluation.to_json(),
            fit=recipe.fit, seed=recipe.seed, tasks=len(found.scored),
            masked=None if masked is None else masked.of_finding(test.classes.index(name)),
        )  # fmt: skip
        controls.write(places[name], made)


def folders(folder: Path, findings: tuple[str, ...]) -> dict[str, Path]:
    """Return the folder of each finding in that of a run; two names that would share one are numbered."""
    taken: dict[str, str] = {}
    for name in findings:
        plain = slug(name) or "finding"
        numbered = (plain, *(f"{plain}-{number}" for number in range(2, len(findings) + 2)))
        # Folders that differ only in case are one on some systems.
        used = {one.casefold() for one in taken.values()}
        taken[name] = next(one for one in numbered if one.casefold() not in used)
    return {name: folder / FOLDER / place for name, place in taken.items()}


def views(index: Index, findings: tuple[str, ...]) -> Iterator[tuple[str, Index]]:
    """Yield each finding and the index of all rows in which those where it is not known are in no split.

    Rows and their order are those of `index`, so that arrays beside it can be used as they are.
    """
    for name in findings:
        alone = index.of_finding(name)
        label = alone.rows["label"].reindex(index.rows.index, fill_value=alone.classes[0])
        split = alone.rows["split"].reindex(index.rows.index, fill_value="")
        rows = index.rows.assign(label=label, split=split)
        yield name, dataclasses.replace(alone, rows=rows)


def complete(folder: Path) -> dict[str, Path]:
    """Write to the folder of each scored finding what is the same for all of a run, and return the folders by finding.

    That is the audit, the history of the training and the environment, in which the data are named after the finding.
    """
    run = Run(folder)
    places = folders(folder, run.findings_evaluation.scored)
    for name, place in places.items():
        data = run.environment.get("data", {})
        environment = run.environment | {"data": data | {"name": f"{name} in {run.data_name}"}, "finding": name}
        write_json(place / run_folder.ENVIRONMENT, environment)
        for file in ("audit.json", "refusal.json", run_folder.HISTORY):
            if (folder / file).is_file():
                shutil.copy2(folder / file, place / file)
    return places


def _numbered(table: Predictions) -> Predictions:
    return Predictions(table.rows.reset_index(drop=True), table.classes)
