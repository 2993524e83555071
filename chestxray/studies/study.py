"""A study: several trainings in one folder, by model, seed, fold or held-out source.

Each part is an ordinary run in ``<folder>/parts/``; all parts of the same data have the same splits. Finished
parts are not made again and interrupted ones are resumed, so that repeating the call, or the command, continues
a study that was stopped::

    recipes = [Recipe(model=name, data=("folder:xrays",), folds=5) for name in ("vgg16", "resnet18")]
    study.run(recipes, seeds=3).tests("vgg16")  # one table of predictions a seed
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import pandas as pd

from chestxray import workflow
from chestxray.data import sources
from chestxray.errors import DataError, InputError, OutputError, TrainingError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.paired import trainings
from chestxray.evaluation.predictions import Predictions
from chestxray.execution.executor import Executor
from chestxray.recipe import Recipe
from chestxray.runs import output_folder, run_folder
from chestxray.runs.run_folder import Run
from chestxray.storage import cache as caches
from chestxray.storage.files import write_json
from chestxray.studies import making
from chestxray.studies.making import PARTS, STUDY

log = logging.getLogger(__name__)

_Table = TypeVar("_Table", Predictions, FindingPredictions)


@dataclass(frozen=True)
class Part:
    """One training. ``recipe`` is that of a single run; ``label`` names it for people."""

    candidate: str
    name: str
    label: str
    recipe: Recipe


@dataclass(frozen=True)
class Study:
    """A finished study. ``recipes`` are the given ones, by the name of the candidate."""

    folder: Path
    recipes: Mapping[str, Recipe]
    parts: tuple[Part, ...]

    def runs(self, candidate: str) -> tuple[Run, ...]:
        """Return the runs of one candidate, ordered by seed, then by fold."""
        return tuple(Run(self.folder / PARTS / part.name) for part in self.parts if part.candidate == candidate)

    def tests(self, candidate: str) -> tuple[Predictions, ...] | tuple[FindingPredictions, ...]:
        """Return the test predictions of one candidate, a table for each repetition, of classes or of findings.

        Where each fold has its own test, the folds of a seed make one table with every image once, predicted by
        the model that was not trained on it. Where all folds have the same test, each fold's model is a
        repetition. The tables of a cross-validation have the fold in a column, see `trainings`.

        Raises:
            DataError: tests that overlap without being the same.
        """
        by_seed: dict[int, list[Any]] = {}
        for run in self.runs(candidate):
            folds, test = by_seed.setdefault(run.recipe.seed, []), cast(Any, test_of(run))
            if self.recipes[candidate].parts:
                test = trainings.marked(test, len(folds), int((run.index.rows["split"] == "train").sum()))
            folds.append(test)
        return tuple(table for folds in by_seed.values() for table in _pooled(candidate, folds))


def run(
    recipes: Sequence[Recipe] | Mapping[str, Recipe],
    folder: str | Path | None = None,
    cache: str | Path | None = None,
    *,
    seeds: int = 1,
    overwrite: bool = False,
    below: str = "comparisons",
    executor: Executor | None = None,
) -> Study:
    """Train every part of the study that is not finished.

    Args:
        recipes: one for each candidate, with a name for each or named by their models. A recipe with
            folds and no fold, or that leaves each source out, is of several parts.
        folder: default: a name below the folder `below` made of models, data and a hash of the
            recipes, so that the same recipes come back to the same folder.
        cache: the cache folder.
        seeds: trainings of each part, with the recipe's seed and those that follow. They differ in
            initial weights, shuffles and augmentation, and have the same splits.
        overwrite: make finished parts anew.
        below: folder of the default folder.
        executor: where parts are trained, several at a time, each in a process of its own; default: one after the
            other in this process, or in a process each where a training uses several devices.

    Raises:
        DataError: the data have changed since the first part was begun.
        InputError: seeds below 1; two candidates, or sources to hold out, of one name.
        OutputError: `folder` has other content, or a study with other settings.
        TrainingError: some parts failed, or their workers died; the others are finished and kept.
        WorkerError: a Ray cluster that cannot be reached.
        ChestXrayError: as `workflow.run`; the parts made until then are kept.
    """
    resolved = {name: workflow.resolve(recipe)[0] for name, recipe in _named(recipes).items()}
    parts = plan(resolved, seeds, caches.root(cache))
    path = Path(folder) if folder else default_folder(resolved, below)
    _check_folder(path, parts, overwrite=overwrite)
    listed = [{"candidate": p.candidate, "name": p.name, "label": p.label} for p in parts]
    write_json(path / STUDY, {"parts": listed})
    try:
        failed = making.make(parts, path, cache, executor)
    except BaseException:
        if not _nothing_made(path):
            done = sum(Run(path / PARTS / p.name).finished for p in parts)
            log.warning("%d of %d parts are finished and kept in %s.", done, len(parts), path)
        raise
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(parts)} parts failed, the others are kept in {path}. "
            + " ".join(f"{label}: {error}" for label, error in failed.items())
        )
    return Study(path, resolved, parts)


def test_of(run: Run) -> Predictions | FindingPredictions:
    """Return the predictions of the test of a run of either task."""
    return (run.finding_predictions if run.task == "findings" else run.predictions).of("test")


def plan(recipes: Mapping[str, Recipe], seeds: int, cache: Path) -> tuple[Part, ...]:
    """Return the parts of a study of resolved `recipes`, without training any. Arguments and errors as of `run`."""
    if seeds < 1:
        raise InputError(f"seeds must be at least 1. Received: {seeds}.")
    parts = tuple(
        Part(
            candidate=name,
            name=_slug(name) + (f"-seed{seed}" if seed != recipe.seed else "") + suffix,
            label=name + (f", seed {seed}" if seeds > 1 else "") + words,
            recipe=recipe.replace(seed=seed, split_seed=recipe.splits_by, **changes),
        )
        for name, recipe in recipes.items()
        for seed in range(recipe.seed, recipe.seed + seeds)
        for suffix, words, changes in _held_out(recipe, cache)
    )
    names = [part.name for part in parts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"Names of models and sources must differ as folders do. Alike: {', '.join(twice)}.")
    return parts


def default_folder(recipes: Mapping[str, Recipe], below: str) -> Path:
    """Return ``<below>/<models>-<data>-<hash>``, the same for the same resolved recipes."""
    content = json.dumps({name: recipe.to_toml() for name, recipe in recipes.items()}, sort_keys=True)
    models = "-".join(dict.fromkeys(recipe.model for recipe in recipes.values()))
    data = output_folder.slug(*next(iter(recipes.values())).data)
    digest = hashlib.blake2b(content.encode(), digest_size=4).hexdigest()
    return Path(below) / f"{_slug(models)[:60]}-{data[:40]}-{digest}"


def _named(recipes: Sequence[Recipe] | Mapping[str, Recipe]) -> dict[str, Recipe]:
    if isinstance(recipes, Mapping):
        named = dict(recipes)
    else:
        named = {recipe.model: recipe for recipe in recipes}
        if len(named) < len(recipes):
            models = [recipe.model for recipe in recipes]
            twice = sorted({model for model in models if models.count(model) > 1})
            raise InputError(f"Each model may be named once. Named more often: {', '.join(twice)}.")
    if not named:
        raise InputError("A study needs a model or more.")
    return named


def _held_out(recipe: Recipe, cache: Path) -> list[tuple[str, str, dict[str, int | str]]]:
    """Return for each part of a recipe the suffix of its name, of its label, and the fields to change."""
    if not recipe.parts:
        return [("", "", {})]
    if recipe.folds:
        return [(f"-fold{i + 1}", f", fold {i + 1} of {recipe.folds}", {"fold": i}) for i in range(recipe.folds)]
    names = sorted(sources.load_index(recipe, cache).rows["source"].unique())
    return [(f"-without-{_slug(name)}", f", without {name}", {"held_out": name}) for name in names]


def _check_folder(folder: Path, parts: Sequence[Part], *, overwrite: bool) -> None:
    """Raise `OutputError` for a folder with other content; with `overwrite`, delete the parts of its study."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"The output {folder} is a file; it must be a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STUDY).is_file():
        raise OutputError(f"The output folder {folder} exists and is not a study; choose another with --output.")
    if overwrite:
        shutil.rmtree(folder / PARTS, ignore_errors=True)
    for part in parts:
        there = folder / PARTS / part.name / run_folder.RECIPE
        if there.is_file() and (changed := _differences(Recipe.read(there), part.recipe)):
            raise OutputError(
                f"The output folder {folder} holds a study with other settings ({part.name}: {changed}). "
                "Allowed: another --output, or --overwrite to train its parts anew."
            )


def _nothing_made(folder: Path) -> bool:
    """Return whether no part of the study was begun; its folder is then removed."""
    begun = [part for part in (folder / PARTS).glob("*") if part.is_dir() and any(part.iterdir())]
    if not begun and {item.name for item in folder.iterdir()} <= {STUDY, PARTS}:
        shutil.rmtree(folder)
    return not begun


def _differences(old: Recipe, new: Recipe) -> str:
    fields = [f.name for f in dataclasses.fields(Recipe) if getattr(old, f.name) != getattr(new, f.name)]
    return ", ".join(f"{name} {getattr(old, name)!r}, now {getattr(new, name)!r}" for name in fields[:3])


def _pooled(candidate: str, folds: Sequence[_Table]) -> list[_Table]:
    paths = [frozenset(table.rows["path"]) for table in folds]
    if len(set(paths)) == 1:
        return list(folds)
    if sum(map(len, paths)) > len(frozenset().union(*paths)):
        raise DataError(f"The tests of the parts of {candidate} overlap, so they can be neither pooled nor compared.")
    rows = pd.concat([table.rows[folds[0].rows.columns] for table in folds], ignore_index=True)
    return [dataclasses.replace(folds[0], rows=rows)]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")
