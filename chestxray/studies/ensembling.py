"""Ensemble of several runs with the same test: the mean of their probabilities."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from chestxray.data.audit import SEVERITIES
from chestxray.data.index import SPLITS, Index, Task, row_keys
from chestxray.errors import DataError, InputError, OutputError
from chestxray.evaluation.finding_predictions import COLUMNS as FINDING_COLUMNS
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.paired.comparison import align
from chestxray.evaluation.paired.finding_comparison import align_findings
from chestxray.evaluation.predictions import Predictions, together
from chestxray.recipe import Recipe
from chestxray.runs import members, output_folder, provenance
from chestxray.runs.run_folder import Run
from chestxray.studies import derived_findings, derived_run, shared_controls

#: Name of an ensemble as a model, and of the file that lists its members.
ENSEMBLE = "ensemble"
MeanT = TypeVar("MeanT", Predictions, FindingPredictions)


def default_folder(runs: Mapping[str, Run]) -> Path:
    """Return ``runs/<time>-ensemble-<data>`` below the working directory."""
    return output_folder.default_folder(ENSEMBLE, next(iter(runs.values())).recipe.data[0])


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` unless `folder` is empty or missing, or holds an ensemble that may be overwritten."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"The output {folder} is a file; it must be a folder.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / f"{ENSEMBLE}.json").is_file():
        raise OutputError(f"The output folder {folder} exists and is not an ensemble; choose another with --output.")
    if not overwrite:
        raise OutputError(
            f"The output folder {folder} exists. Allowed: another --output, or --overwrite to replace it."
        )


def write(runs: Mapping[str, Run], folder: Path, cache: str | Path | None = None, *, notes: Sequence[str] = ()) -> Run:
    """Average the probabilities of `runs`, two or more by their names, and evaluate the mean in `folder`.

    Where all runs have the same validation images, their predictions are averaged too and thresholds are chosen on
    them. ``ensemble.json`` lists the members (`members.listing`). Controls are computed where images are still
    decoded in `cache`, else taken from the members.

    Of runs of findings each probability is calibrated; the mean is not calibrated again.

    Raises:
        InputError: fewer than two runs; runs of classes and of findings; runs with different positive classes, or
            whose images are cut differently.
        DataError: tests with different images, labels, classes or findings.
        OutputError: `folder` cannot be written to.
    """
    if len(runs) < 2:
        raise InputError(f"An ensemble needs two runs or more. Received: {len(runs)}.")
    _check_cut(runs)
    if _shared_task(runs) == "findings":
        return _of_findings(runs, folder, cache, notes)
    positive = shared_positive(runs)
    mean, predictions, said = _averaged(
        runs, lambda split: _mean(align({name: run.predictions.of(split) for name, run in runs.items()})), notes
    )
    index = _index(runs, predictions)
    return derived_run.write(
        folder,
        _recipe(runs),
        index,
        predictions,
        positive=positive,
        audit=audit(runs, said),
        record=record(runs),
        controls=lambda metrics: shared_controls.of(runs, index, mean, metrics, cache),
        extra={ENSEMBLE: members.listing(runs, folder)},
    )


def _of_findings(runs: Mapping[str, Run], folder: Path, cache: str | Path | None, notes: Sequence[str]) -> Run:
    mean, predictions, said = _averaged(
        runs, lambda split: _mean_of_findings({n: run.finding_predictions.of(split) for n, run in runs.items()}), notes
    )
    index = _index(runs, predictions)
    return derived_findings.write(
        folder,
        _recipe(runs),
        index,
        predictions,
        audit=audit(runs, said),
        record=record(runs),
        controls=derived_findings.controls_of(runs, index, mean, cache),
        extra={ENSEMBLE: members.listing(runs, folder)},
    )


def _averaged(
    runs: Mapping[str, Run], mean_of: Callable[[str], MeanT], notes: Sequence[str]
) -> tuple[MeanT, MeanT, list[str]]:
    """Return the mean of the test, the same with that of validation where the members share it, and what is said."""
    mean = mean_of("test")
    averaged = [mean]
    said = [f"An ensemble: the mean of the probabilities of {', '.join(runs)}.", *notes]
    try:
        averaged.append(mean_of("validation"))
    except DataError:
        said.append("The members have no validation images in common, so that no threshold was chosen.")
    return mean, mean if len(averaged) == 1 else together(averaged), said


def _shared_task(runs: Mapping[str, Run]) -> Task:
    """Return the task of all `runs`. Raises `InputError` where they differ."""
    of_findings = [name for name, run in runs.items() if run.task == "findings"]
    others = [name for name in runs if name not in of_findings]
    if of_findings and others:
        raise InputError(
            f"{of_findings[0]} is a run of findings and {others[0]} one of classes: an ensemble is of one kind."
        )
    return "findings" if of_findings else "classes"


def _recipe(runs: Mapping[str, Run]) -> Recipe:
    return next(iter(runs.values())).recipe.replace(model=ENSEMBLE, data=_all_data(runs), weights="none")


def _check_cut(runs: Mapping[str, Run]) -> None:
    """Raise `InputError` where images of some `runs` are cut to their lungs and those of others are not, or otherwise:
    the ensemble could not predict an image.
    """
    cut = {name: str(run.segmenter or "not cut") for name, run in runs.items()}
    if len({run.segmenter for run in runs.values()}) > 1:
        listed = ", ".join(f"{name} {by}" for name, by in cut.items())
        raise InputError(f"The members of an ensemble must cut images to their lungs alike. Received: {listed}.")


def shared_positive(runs: Mapping[str, Run]) -> str | None:
    """Return the positive class of all `runs`. Raises `InputError` where they differ."""
    spoken = {name: run.metrics["positive"] for name, run in runs.items()}
    if len(set(spoken.values())) > 1:
        listed = ", ".join(f"{name} of {positive}" for name, positive in spoken.items())
        raise InputError(f"The runs have different positive classes: {listed}. Choose one with --positive.")
    return next(iter(spoken.values()))


def audit(runs: Mapping[str, Run], notes: Sequence[str]) -> dict[str, Any]:
    """Return ``audit.json`` of `runs` together: all leaks of any of them, with `notes` before their own."""
    found = [run.audit for run in runs.values()]
    # A note on the split of one part does not hold for all.
    shared = [note for note in found[0]["notes"] if all(note in one["notes"] for one in found)]
    near = [one.get("near_duplicates", {}) for one in found]
    # A member that kept leaks is part of the mean.
    kept = any(one.get("on_leak") == "ignore" and _leaks(one) for one in found)
    reasons = [item.get("reason") or "A member of the ensemble was not searched." for item in near]
    unsearched = [why for item, why in zip(near, reasons, strict=True) if not item.get("searched")]
    findings: dict[str, dict[str, Any]] = {}
    for finding in (finding for one in found for finding in one.get("findings", [])):
        findings[finding["kind"]] = max(finding, findings.get(finding["kind"], finding), key=lambda f: f["count"])
    gravest = sorted(findings.values(), key=lambda finding: SEVERITIES.index(finding["severity"]))
    return {
        **found[0],
        "severity": gravest[0]["severity"] if gravest else None,
        "findings": gravest,
        "exact_duplicates": _groups_of([one["exact_duplicates"] for one in found]),
        "near_duplicates": {
            **near[0],
            **_groups_of(near),
            "correlations": [],
            "look_alikes": _distinct([pair for item in near for pair in item.get("look_alikes", [])]),
            "searched": not unsearched,
            "reason": " ".join(_distinct(unsearched)),
        },
        "patients": {"across_splits": _distinct([item for one in found for item in one["patients"]["across_splits"]])},
        "dropped": _distinct([item for one in found for item in one.get("dropped", [])]),
        "on_leak": "ignore" if kept else found[0].get("on_leak", ""),
        "notes": [*notes, *shared],
    }


def _groups_of(kinds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Copies that any of several audits has found."""
    return {
        name: _distinct([group for kind in kinds for group in kind.get(name, [])])
        for name in ("groups", "across_splits")
    }


def _leaks(audit: Mapping[str, Any]) -> bool:
    kinds = ("exact_duplicates", "near_duplicates", "patients")
    return any(audit.get(kind, {}).get("across_splits") for kind in kinds)


def record(runs: Mapping[str, Run]) -> dict[str, Any]:
    """``environment.json`` of several runs taken together: parameters and times add up."""
    environments = [run.environment for run in runs.values()]
    models = [one.get("model", {}) for one in environments]
    rates = [model.get("images_per_second") for model in models]
    facts: dict[str, Any] = {
        name: sum(model[name] for model in models)
        for name in ("parameters", "trained_parameters")
        if all(name in model for model in models)
    }
    if all(rates):
        facts["images_per_second"] = 1 / sum(1 / rate for rate in rates)
    sizes = [model.get("image_size") for model in models]
    if sizes[0] and all(size == sizes[0] for size in sizes):
        facts["image_size"] = sizes[0]
    steps = dict.fromkeys(step for one in environments for step in one.get("seconds", {}))
    seconds = {step: round(sum(one.get("seconds", {}).get(step, 0) for one in environments), 3) for step in steps}
    shared = {
        name: environments[0][name]
        for name in ("chestxray", "python", "platform", "packages", "devices", "plugin", "methods")
        if all(name in one and one[name] == environments[0].get(name) for one in environments)
    }
    data = environments[0].get("data", {})
    return {**shared, "data": data, "model": facts, "started": provenance.now(), "seconds": seconds}


def _distinct(items: Sequence[Any]) -> list[Any]:
    return list({json.dumps(item, sort_keys=True): item for item in items}.values())


def _mean(tables: Mapping[str, Predictions]) -> Predictions:
    first = next(iter(tables.values()))
    probabilities = np.mean([table.probabilities for table in tables.values()], axis=0)
    return Predictions.from_probabilities(first.rows, first.classes, probabilities)


def _mean_of_findings(tables: Mapping[str, FindingPredictions]) -> FindingPredictions:
    """Return the mean of tables of the same rows and findings, in the order of the first.

    Raises:
        DataError: tables of other images or findings, or in which other things are known; no rows.
    """
    aligned = [table for (table,) in align_findings({name: [table] for name, table in tables.items()}).values()]
    first = aligned[0]
    if first.rows.empty:
        raise DataError("The predictions have no rows.")
    mean = np.mean([table.probabilities for table in aligned], axis=0)
    return FindingPredictions.joined(first.rows[list(FINDING_COLUMNS)], first.findings, first.truth, mean)


def _index(runs: Mapping[str, Run], predictions: Predictions | FindingPredictions) -> Index:
    """Return the images of the first run; those that any member was trained or chosen on have the split ``train``."""
    first = next(iter(runs.values())).index
    split_of = dict(zip(row_keys(predictions.rows), predictions.rows["split"], strict=True))
    tables = [run.index.rows for run in runs.values()]
    used = {path for rows in tables for path in rows.loc[rows["split"].isin(SPLITS[:2]), "path"]}
    splits = [split_of.get(key, "train" if key[1] in used else "") for key in row_keys(first.rows)]
    return first.replace(first.rows.assign(split=splits))


def _all_data(runs: Mapping[str, Run]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for run in runs.values() for text in run.recipe.data))
