"""The candidates of a comparison, from finished runs or a study: predictions, and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.data.index import Task
from chestxray.errors import InputError
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.shortcuts.verdict import together
from chestxray.runs import run_folder
from chestxray.runs.run_folder import Run
from chestxray.studies.ensembling import shared_positive
from chestxray.studies.study import Study


@dataclass(frozen=True)
class Candidate:
    """A compared model: ``tests``, a table of predictions for each repetition, and ``runs``, a run for each training.

    ``parameters`` are those of one model; ``train_seconds`` of one training and ``images_per_second``
    of prediction are means over the trainings. None where a number is not known. ``controls`` is the result of the
    controls over all trainings, see `verdict.together`.
    """

    tests: tuple[Predictions, ...]
    runs: tuple[Run, ...]
    parameters: int | None
    train_seconds: float | None
    images_per_second: float | None
    controls: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return costs, folders and controls as in ``comparison.json``."""
        return {
            "parameters": self.parameters,
            "train_seconds": self.train_seconds,
            "images_per_second": self.images_per_second,
            "trainings": len(self.runs),
            "folders": [str(run.folder) for run in self.runs],
            "controls": {name: value for name, value in self.controls.items() if name != "titles"},
        }


def of_runs(folders: Sequence[str | Path]) -> dict[str, Candidate]:
    """Return candidates by their folders' names, with as much of the path as makes them distinct.

    Raises:
        InputError: a folder that is named twice, or that has no evaluation.
    """
    runs = opened(folders)
    return {name: _candidate((run,), (run.predictions.of("test"),)) for name, run in runs.items()}


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
    return shared_positive(runs)


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


def _candidate(runs: tuple[Run, ...], tests: tuple[Predictions, ...]) -> Candidate:
    facts = [run.environment.get("model", {}) for run in runs]
    return Candidate(
        tests=tests,
        runs=runs,
        parameters=facts[0].get("parameters"),
        train_seconds=_mean([run.environment.get("seconds", {}).get("train") for run in runs]),
        images_per_second=_mean([fact.get("images_per_second") for fact in facts]),
        controls=together([run.controls for run in runs]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
