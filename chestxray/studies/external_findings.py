"""The figures of a run of findings on other data, and their differences from those of its own test."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from chestxray.data.index import Index
from chestxray.evaluation.clinical.prevalence_shift import label_shift
from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.evaluate import Evaluation
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.paired.finding_generalisation import Side, finding_generalisation
from chestxray.recipe import Recipe
from chestxray.report import published_model
from chestxray.report.finding_sentences import serious
from chestxray.report.limitations import TRAINING_RUN
from chestxray.runs import finding_results
from chestxray.runs.results import Refusals
from chestxray.runs.run_folder import Run
from chestxray.storage.files import write_json
from chestxray.studies.external_figures import compared, training_cautions

#: The file with the differences.
GAP = "generalisation_gap.json"


def assess(
    run: Run,
    test: FindingPredictions,
    index: Index,
    recipe: Recipe,
    decision: FindingDecision,
    folder: Path,
    refusals: Refusals | None,
) -> None:
    """Write the figures of `test`, those of each finding, and what they are beside those of the run's own test, which a
    ready model has not.
    """
    found = finding_results.assess_findings(test, index, recipe, decision, folder, refusals=refusals)
    if run.published:
        for place in (folder, *finding_results.folders(folder, found.scored).values()):
            content = {"name": run.published, "cautions": [dataclasses.asdict(published_model.caution(run))]}
            write_json(place / f"{TRAINING_RUN}.json", content)
        return
    options: dict[str, Any] = {"replicates": recipe.replicates, "seed": recipe.seed}
    own = run.finding_predictions
    # The same decision rule on both sides, also where it differs from the run's own.
    internal = Side.of(decision.applied(own.of("test")), **options)
    gaps = finding_generalisation(internal, Side(test, found), **options)
    sides = {"internal": (run.index.name, internal.evaluation), "external": (index.name, found)}
    names = {side: name for side, (name, _) in sides.items()}
    write_json(
        folder / GAP,
        {side: {"name": name, "rows": one.rows, **one.patients.to_json()} for side, (name, one) in sides.items()}
        | gaps,
    )
    weak = [dataclasses.asdict(caution) for caution in serious(run)]
    write_json(folder / f"{TRAINING_RUN}.json", {"name": run.folder.name, "cautions": weak})
    validation = decision.applied(own.of("validation"))
    for name, place in finding_results.folders(folder, found.scored).items():
        here = found.findings[name].evaluation
        assert here is not None, "a scored finding has an evaluation"
        write_json(place / GAP, _of_finding(name, internal, here, names, gaps))
        tables = test.of_finding(name), validation.of_finding(name)
        if (shift := label_shift(*tables, here, **options)) is not None:
            write_json(place / "prevalence.json", shift)
        if name in run.findings:
            write_json(place / f"{TRAINING_RUN}.json", training_cautions(run.folder.name, run.findings[name]))


def _of_finding(
    name: str, internal: Side, here: Evaluation, names: dict[str, str], gaps: dict[str, Any]
) -> dict[str, Any]:
    """Return ``generalisation_gap.json`` of one finding, with its p-value among those of the others."""
    one = internal.evaluation.findings[name]
    if one.evaluation is not None:
        item = gaps["findings"][name]
        tested = {"tests": len(gaps["findings"]), "p": item["p"], "p_holm": item["p_holm"]}
        return compared(one.evaluation, here, names) | {"corrected": tested}
    own = {"name": names["internal"], "rows": one.known.rows}
    there = {"name": names["external"], "rows": here.rows, **here.patients.to_json()}
    return {"internal": own, "external": there, "figures": {}, "reason": gaps["not_compared"][name]}
