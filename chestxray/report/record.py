"""A run's folder as its report reads it: every finished part, and None or nothing for the others."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from chestxray.data.index import SPLITS, Index, Patients
from chestxray.errors import DataError, InputError
from chestxray.evaluation.predictions import Predictions
from chestxray.recipe import Recipe
from chestxray.storage import schema
from chestxray.storage.result_files import SomeMetrics, read, read_if_any
from chestxray.storage.result_files import history as read_history

_NEEDED = ("recipe.toml", "index.parquet", "predictions.csv", "metrics.json")
_OWN = {"environment", "audit", "metrics", "checksums"}


@dataclass(frozen=True)
class Record:
    """What a run wrote, see docs/run-folder.md.

    ``history`` is empty where none was kept. ``extras`` holds every further JSON file at the top
    of the folder by its stem, for sections that only some runs have.
    """

    folder: Path
    recipe: Recipe
    environment: Mapping[str, Any]
    audit: Mapping[str, Any]
    index: Index
    history: pd.DataFrame
    predictions: Predictions
    metrics: Mapping[str, Any]
    heatmaps: Mapping[str, Any]
    extras: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Read a run's folder.

        Raises:
            InputError: `folder` lacks what every evaluated run has, named.
            DataError: a file in it is damaged.
        """
        if missing := [name for name in _NEEDED if not (folder / name).is_file()]:
            raise InputError(
                f"{folder} is not the folder of a finished run: {', '.join(missing)} is missing. "
                f"Allowed: a folder that `chestxray run` has filled."
            )
        history = folder / "history.csv"
        found = cls(
            folder=folder,
            recipe=Recipe.read(folder / "recipe.toml"),
            environment=read_if_any(folder / "environment.json"),
            audit=read_if_any(folder / "audit.json"),
            index=Index.read(folder / "index.parquet"),
            history=read_history(history) if history.is_file() else pd.DataFrame(),
            predictions=Predictions.read(folder / "predictions.csv"),
            metrics=read_if_any(folder / "metrics.json"),
            heatmaps=read_if_any(folder / "heatmaps" / "index.json"),
            extras={p.stem: read(p) for p in sorted(folder.glob("*.json")) if p.stem not in _OWN},
        )
        of = {"predictions.csv": found.classes, "metrics.json": found.metrics["confusion"]["classes"]}
        for name, classes in of.items():
            if set(classes) != set(found.index.classes):
                raise DataError(
                    f"{folder} is damaged: its files are of different classes. index.parquet: "
                    f"{', '.join(found.index.classes)}. {name}: {', '.join(classes)}."
                )
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the model's outputs."""
        return self.predictions.classes

    @property
    def positive(self) -> str | None:
        """Of two classes, the one that sensitivity speaks of."""
        return self.metrics.get("positive")

    @property
    def level(self) -> str:
        """How sure the intervals are, ``95%``."""
        return f"{100 * self.metrics.get('interval', {}).get('level', 0.95):g}%"

    @property
    def data_name(self) -> str:
        """What the data set is called."""
        return self.environment.get("data", {}).get("name") or self.index.name

    @property
    def notes(self) -> list[str]:
        """What the run noted on its data, in sentences."""
        return list(self.audit.get("notes", []))

    @property
    def split_note(self) -> str:
        """The sentence among the notes that says how a split was drawn, ``""`` where none was."""
        return next((note for note in self.notes if note.startswith("Split ")), "")

    @functools.cached_property
    def external(self) -> Mapping[str, Any]:
        """``metrics.json`` of each evaluation on other data below ``external/``, by its name."""
        found = sorted(self.folder.glob("external/*/metrics.json"))
        return {path.parent.name: schema.read(path, SomeMetrics) for path in found}

    @functools.cached_property
    def external_audits(self) -> Mapping[str, Any]:
        """``audit.json`` of the same evaluations."""
        return {path.parent.name: read(path) for path in sorted(self.folder.glob("external/*/audit.json"))}

    @property
    def drawn(self) -> int:
        """Number of images that a program drew."""
        return int(self.index.drawn.sum())

    @functools.cached_property
    def used(self) -> pd.DataFrame:
        """The rows of the index that were in a split."""
        return self.index.rows[self.index.rows["split"].isin(SPLITS)]

    @functools.cached_property
    def counts(self) -> pd.DataFrame:
        """Images by class (rows) and split (columns)."""
        table = pd.crosstab(self.used["label"], self.used["split"])
        return table.reindex(index=list(self.index.classes), columns=list(SPLITS), fill_value=0)

    def patients(self, **wanted: str) -> Patients:
        """The patients of the rows used, of ``label=`` or ``split=``."""
        rows = self.used
        for column, value in wanted.items():
            rows = rows[rows[column] == value]
        return Patients.of(rows)

    @functools.cached_property
    def _root(self) -> str:
        try:
            return os.path.commonpath([str(PurePath(path).parent) for path in self.index.rows["path"]])
        except ValueError:  # paths on two drives, or a relative one among absolute ones
            return ""

    def short(self, path: str) -> str:
        """A path below the data's common folder: names no home folder, and is read at a glance."""
        below = PurePath(path).is_relative_to(self._root) if self._root else False
        return PurePath(path).relative_to(self._root).as_posix() if below else path

    def shorten_in(self, text: str) -> str:
        """A sentence in which the data's common folder is left out of the paths."""
        return text.replace(self._root.rstrip(os.sep) + os.sep, "") if self._root.strip(os.sep) else text
