"""Writes the report of a run of findings: one page of all findings, and the report of a run of two classes for each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.data.findings import WORDS
from chestxray.evaluation.figure_format import with_interval
from chestxray.evaluation.finding_predictions import FEWEST_PATIENTS
from chestxray.evaluation.findings_evaluation import ANY, FindingFigures
from chestxray.report import embedded_images, figures, html_report, map_checks_wording, model_card, probe_table
from chestxray.report.facts.findings import counts, uncertain, used_splits
from chestxray.report.facts.model import sampled
from chestxray.report.finding_sentences import finding_gaps, lower_here, summary, whole_cautions
from chestxray.report.formatting import plural
from chestxray.report.heatmap_wording import method_and_scale
from chestxray.report.limitations import NOTED, cautions
from chestxray.report.sections import data_facts
from chestxray.report.templating import render
from chestxray.runs import finding_results, run_folder
from chestxray.runs.run_folder import Run
from chestxray.storage.files import write_text

HEADINGS = {
    "findings": "Each finding",
    "generalisation_gap": "Generalisation gap to other data",
    "groups": "Is it better for some than for others?",
    "film": "The film as a whole",
    "together": "Findings that come together",
    "heatmaps": "Heat maps",
    "data": "Data",
    "training": "Training",
    "method": "Method",
}
#: The figures of each finding in the two tables, in order: of the probabilities, and at the threshold.
OF_PROBABILITIES = ("auroc", "auprc", "brier", "ece")
AT_THRESHOLD = ("sensitivity", "specificity", "precision", "f1")


def write(folder: Path, samples: Mapping[str, np.ndarray] | None = None) -> Path:
    """Write the reports of all findings that are scored, the model card and, last, ``report.html`` of all; return its
    path.

    `samples` maps image paths to pixels, uint8 (height, width), for any subset of the images.

    Raises:
        InputError: `folder` lacks a file that every evaluated run has, or is a run of classes.
        DataError: a file in the folder is damaged.
        OutputError: the folder cannot be written to.
    """
    run = run_folder.open_findings(folder)
    places = finding_results.complete(folder)
    for place in places.values():
        html_report.write(place, samples=samples)
    model_card.write(run)
    return _write_page(run, {name: Run(place) for name, place in places.items()})


def _write_page(run: Run, of_each: Mapping[str, Run]) -> Path:
    found, probe = run.findings_evaluation, probe_table.of(run)
    tiles = embedded_images.heatmap_tiles(run)
    some = {"groups": finding_gaps(run), "generalisation_gap": run.extras.get("generalisation_gap")}
    page = render(
        "findings.html.jinja",
        title=f"{run.recipe.model} on {run.data_name}: {plural(len(run.classes), 'finding')}",
        kind="report of a run of findings",
        headings={name: said for name, said in HEADINGS.items() if some.get(name, True)},
        verdict=summary(run),
        cautions=whole_cautions(run),
        run=run,
        found=found,
        of_probabilities=(*OF_PROBABILITIES, *found.published),
        at_threshold=AT_THRESHOLD,
        forest=_forest(run),
        gap=some["generalisation_gap"],
        gap_forest=_gap_forest(run),
        lower_here=lower_here(run),
        rows=[_row(name, one, run, of_each.get(name)) for name, one in found.findings.items()],
        any=_row(ANY, found.any_finding, run, None),
        groups=some["groups"],
        truth=found.co_occurrence.to_frame("truth"),
        answers=found.co_occurrence.to_frame("answers"),
        heatmaps=run.heatmaps,
        map_checks=map_checks_wording.shown(run),
        heatmap_drawn=method_and_scale(run.heatmaps),
        tiles=tiles,
        facts=data_facts(run),
        counts=counts(run),
        splits=used_splits(run),
        states=list(WORDS.values()),
        fewest=FEWEST_PATIENTS,
        uncertain=uncertain(run),
        sampled=sampled(run),
        probe=probe,
        probe_sentence=probe_table.sentence(probe) if probe else "",
        curves=None if run.history.empty else _curves(run),
        notes=run.notes,
    )
    path = run.folder / run_folder.REPORT
    write_text(path, page)
    return path


def _row(name: str, one: FindingFigures, run: Run, own: Run | None) -> dict[str, Any]:
    controls = own.controls if own is not None else {}
    rule = None if own is None or "decision" not in own.extras else own.decision
    serious = [] if own is None else [item.title for item in cautions(own) if item.weight == "serious"]
    return {
        "name": name,
        "known": one.known,
        "not_scored": one.not_scored,
        "test": one.test,
        "link": None if own is None else (own.report.relative_to(run.folder)).as_posix(),
        "controls": controls.get("finding", ""),
        "weakened": [title for title in dict.fromkeys(serious) if title != NOTED],
        # The folds of a cross-validation have a threshold each, and none together.
        "threshold": rule.threshold if rule else None,
        "unchosen": rule is not None and not rule.chosen,
    }


def _forest(run: Run) -> embedded_images.Picture | None:
    found = run.findings_evaluation
    if not found.scored:
        return None
    items = {f"mean of {len(found.scored)}": found.test["auroc"].to_json()}
    aurocs = {name: found.findings[name].test["auroc"].to_json() for name in found.scored}
    items |= dict(sorted(aurocs.items(), key=lambda item: -(item[1]["value"] or 0)))
    path = run.folder / "figures" / "auroc.png"
    figures.save(figures.forest(items, f"AUROC and {run.level} interval (no unit)"), path)
    listed = ", ".join(f"{name} {with_interval(item, 2)}" for name, item in items.items())
    return embedded_images.figure(path, f"Forest plot of the AUROC: {listed}.")


def _gap_forest(run: Run) -> embedded_images.Picture | None:
    found = run.extras.get("generalisation_gap")
    if not found or not found["findings"]:
        return None
    gaps = {name: item["gap"] for name, item in found["findings"].items()}
    items = {f"mean of {len(gaps)}": found["figures"]["auroc"]["gap"]}
    items |= dict(sorted(gaps.items(), key=lambda item: -(item[1]["value"] or 0)))
    path = run.folder / "figures" / "generalisation_gap.png"
    label = f"AUROC on the own test minus here, and {run.level} interval (no unit)"
    figures.save(figures.forest(items, label, reference=0.0), path)
    listed = ", ".join(f"{name} {with_interval(item, 2)}" for name, item in items.items())
    return embedded_images.figure(path, f"Forest plot of the difference in AUROC: {listed}.")


def _curves(run: Run) -> embedded_images.Picture:
    path = run.folder / "figures" / "training_curves.png"
    figures.save(figures.training_curves(run.history), path)
    return embedded_images.figure(path, "Measures of the training and validation images, in the order of the training.")
