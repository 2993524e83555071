"""The candidates of a comparison, from finished runs or a study: predictions, costs, and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from chestxray.data.index import Task
from chestxray.errors import InputError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.paired.comparison import compare
from chestxray.evaluation.paired.comparison_result import Comparison
from chestxray.evaluation.paired.finding_comparison import check_metric_of_findings, compare_findings
from chestxray.evaluation.paired.findings_comparison_result import FindingsComparison
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.published_metrics import of_name
from chestxray.evaluation.shortcuts.verdict import together
from chestxray.runs import run_folder
from chestxray.runs.run_folder import Run
from chestxray.studies import study
from chestxray.studies.ensembling import shared_positive
from chestxray.studies.study import Study

#: The tests of a model, of one task: a table of predictions for each repetition.
Tests = tuple[Predictions, ...] | tuple[FindingPredictions, ...]


@dataclass(frozen=True)
class Candidate:
    """A compared model: ``tests``, a table of predictions for each repetition, and ``runs``, a run for each training.

    ``parameters`` are those of one model; ``train_seconds`` of one training and ``images_per_second``
    of prediction are means over the trainings. None where a number is not known. ``controls`` is the result of the
    controls over all trainings, see `verdict.together`; of findings also over all of them, and ``findings`` has the
    same of each.
    """

    tests: Tests
    runs: tuple[Run, ...]
    parameters: int | None
    train_seconds: float | None
    images_per_second: float | None
    controls: Mapping[str, Any]
    findings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return costs, folders and controls as in ``comparison.json``."""
        of_each = {name: _untitled(controls) for name, controls in self.findings.items()}
        return {
            "parameters": self.parameters,
            "train_seconds": self.train_seconds,
            "images_per_second": self.images_per_second,
            "trainings": len(self.runs),
            "folders": [str(run.folder) for run in self.runs],
            "controls": _untitled(self.controls),
        } | ({"controls_of_findings": of_each} if of_each else {})


def of_runs(folders: Sequence[str | Path], *, task: Task | None = "classes") -> dict[str, Candidate]:
    """Return candidates by their folders' names, with as much of the path as makes them distinct.

    Raises:
        InputError: a folder that is named twice, or that has no evaluation, or one of another `task`; with None, runs
            of both tasks.
    """
    runs = opened(folders, task=task)
    _require_one_task(runs)
    return {name: _candidate((run,), cast(Tests, (study.test_of(run),))) for name, run in runs.items()}


def opened(folders: Sequence[str | Path], *, task: Task | None = "classes") -> dict[str, Run]:
    """Return evaluated runs by their folders' names as `of_runs` does; `task` None opens those of findings as well.

    Raises:
        InputError: a folder that is named twice, or that has no evaluation.
    """
    paths = [Path(folder).absolute().resolve() for folder in folders]
    if twice := [str(folder) for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1]:
        raise InputError(f"Each run may be named once. Named more often: {', '.join(twice)}.")
    runs = [run_folder.open_evaluated(folder, task=task) for folder in folders]
    return dict(zip(distinct_names(paths), runs, strict=True))


def of_study(study: Study) -> dict[str, Candidate]:
    """Return the candidates of a study by their names. Raises as `Study.tests`."""
    return {name: _candidate(study.runs(name), study.tests(name)) for name in study.recipes}


def positive_of(candidates: Mapping[str, Candidate]) -> str | None:
    """Return the positive class of all candidates. Raises `InputError` where they differ."""
    runs = {name: candidate.runs[0] for name, candidate in candidates.items()}
    return None if task_of(candidates) == "findings" else shared_positive(runs)


def task_of(candidates: Mapping[str, Candidate]) -> Task:
    """Return the task of all candidates."""
    return next(iter(candidates.values())).runs[0].task


def check_comparison(metric: str, task: Task, positive: str | None = None) -> None:
    """Raise `InputError` or `PluginError` for a metric, or a positive class, by which models of the task are not
    compared.
    """
    if task == "classes":
        of_name(metric)
        return
    check_metric_of_findings(metric)
    if positive:
        raise InputError(f"positive is for two classes; each finding is its own. Received: {positive!r}.")


def compare_tests(
    tests: Mapping[str, Tests],
    metric: str,
    *,
    positive: str | None,
    margin: float | None,
    replicates: int,
    seed: int = 0,
) -> Comparison | FindingsComparison:
    """Compare tests of either task; arguments and errors are those of `compare` and `compare_findings`."""
    of_findings = any(isinstance(table, FindingPredictions) for tables in tests.values() for table in tables)
    check_comparison(metric, "findings" if of_findings else "classes", positive)
    if of_findings:
        found = cast(Mapping[str, tuple[FindingPredictions, ...]], tests)
        return compare_findings(found, metric, margin=margin, replicates=replicates, seed=seed)
    own = cast(Mapping[str, tuple[Predictions, ...]], tests)
    return compare(own, metric, positive=positive, margin=margin, replicates=replicates, seed=seed)


def _require_one_task(runs: Mapping[str, Run]) -> None:
    of = {task: [name for name, run in runs.items() if run.task == task] for task in ("findings", "classes")}
    if of["findings"] and of["classes"]:
        raise InputError(
            f"{of['findings'][0]} is a run of findings and {of['classes'][0]} one of classes, so that they cannot be "
            "compared. One finding of a run is compared as the folder findings/NAME in it."
        )


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of different `paths`, as many as make each distinct.

    >>> distinct_names([Path("/a/x"), Path("/b/x"), Path("/b/y")])
    ['a/x', 'b/x', 'y']
    """
    names = []
    for path in paths:
        others = [other for other in paths if other != path]
        count = 1
        while any(other.parts[-count:] == path.parts[-count:] for other in others):
            count += 1
        names.append("/".join(part.strip("/\\") for part in path.parts[-count:]))
    return names


def _candidate(runs: tuple[Run, ...], tests: Tests) -> Candidate:
    findings = {name: [run.findings[name].controls for run in runs if name in run.findings] for name in _scored(runs)}
    facts = [run.environment.get("model", {}) for run in runs]
    return Candidate(
        tests=tests,
        runs=runs,
        parameters=facts[0].get("parameters"),
        train_seconds=_mean([run.environment.get("seconds", {}).get("train") for run in runs]),
        images_per_second=_mean([fact.get("images_per_second") for fact in facts]),
        controls=together([run.controls for run in runs] + [one for each in findings.values() for one in each]),
        findings={name: together(each) for name, each in findings.items()},
    )


def _scored(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.findings))


def _untitled(controls: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in controls.items() if name != "titles"}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
