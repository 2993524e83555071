"""The predictions of a model as a table: one row an image, with the probability of each class."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from chestxray.data.grouping import patient_codes
from chestxray.errors import DataError, first_line
from chestxray.storage.files import replacing

if TYPE_CHECKING:
    from chestxray.evaluation.finding_predictions import FindingPredictions

PREFIX = "probability_"
COLUMNS = ("path", "patient", "split", "source", "label", "predicted")
#: Further columns of a table to which a decision rule was applied, as `chestxray predict` writes them.
ANSWERS = ("decision", "abstained", "refused")
#: The splits of a row, ``""`` where it is in none.
SPLITS = ("train", "validation", "test", "")


@dataclass(frozen=True)
class Predictions:
    """One row an image: path, patient, split, source, label, predicted, a column
    ``probability_<class>`` for each of ``classes``, in their order, and once a `Decision` was applied
    the columns `ANSWERS`.
    """

    rows: pd.DataFrame
    classes: tuple[str, ...]

    @property
    def probabilities(self) -> np.ndarray:
        """Probability of each class, float64 (rows, classes)."""
        return self.rows[[PREFIX + name for name in self.classes]].to_numpy(dtype=np.float64)

    @property
    def truth(self) -> np.ndarray:
        """Index of the true class of each row, int64 (rows,)."""
        return pd.Categorical(self.rows["label"], categories=list(self.classes)).codes.astype(np.int64)

    @property
    def predicted(self) -> np.ndarray:
        """Index of the predicted class of each row, int64 (rows,)."""
        return pd.Categorical(self.rows["predicted"], categories=list(self.classes)).codes.astype(np.int64)

    @property
    def clusters(self) -> np.ndarray:
        """Codes of the patients, int64 (rows,); an image of unknown patient is one of its own."""
        return patient_codes(self.rows)

    def of(self, split: str) -> Predictions:
        """Return the rows of one split."""
        return Predictions(self.rows[self.rows["split"] == split].reset_index(drop=True), self.classes)

    @classmethod
    def from_probabilities(cls, rows: pd.DataFrame, classes: tuple[str, ...], probabilities: np.ndarray) -> Predictions:
        """Join index rows and probabilities (rows, classes); until a `Decision` is applied, the most
        probable class is predicted.
        """
        table = rows[[c for c in COLUMNS if c != "predicted"]].reset_index(drop=True).copy()
        table["predicted"] = [classes[i] for i in probabilities.argmax(axis=1)]
        for i, name in enumerate(classes):
            table[PREFIX + name] = probabilities[:, i].astype(np.float64)
        return cls(table, classes)

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read a ``predictions.csv``.

        Raises:
            DataError: the file cannot be read, lacks a column, or has unknown classes or impossible probabilities.
        """
        rows = read_table(path, (*COLUMNS, *ANSWERS))
        classes = tuple(name.removeprefix(PREFIX) for name in rows.columns if name.startswith(PREFIX))
        require_columns(path, rows, [*COLUMNS, *[PREFIX + "..."] * (2 - len(classes))])
        found = cls(rows, classes)
        found._require_agreement(path)
        return found

    def _require_agreement(self, path: Path) -> None:
        """Raise `DataError` for values that `from_probabilities` never writes."""
        rows, columns = self.rows, [PREFIX + name for name in self.classes]
        require_among(path, rows, {"label": self.classes, "predicted": self.classes, "split": SPLITS})
        require_numbers(path, rows, columns)
        probabilities = rows[columns].to_numpy(dtype=np.float64)
        # Float32 softmax may end a hair above 1, and tables are rounded.
        good = ((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)).all(axis=1)
        good &= np.abs(probabilities.sum(axis=1) - 1) < 0.01
        if not good.all() or rows[list(COLUMNS)].isna().any(axis=None):
            line = int(np.argmin(good)) + 2
            raise DataError(f"{path} is damaged: line {line} has no probabilities from 0 to 1 that add up to 1.")

    def write(self, path: Path) -> None:
        """Write the table as CSV, whole or not at all."""
        write_table(self.rows, (*COLUMNS, *ANSWERS), path)


_Table = TypeVar("_Table", "Predictions", "FindingPredictions")


def together(parts: Sequence[_Table]) -> _Table:
    """Return the rows of several tables of the same classes, or findings, as one table, sorted by path."""
    rows = pd.concat([part.rows for part in parts], ignore_index=True)
    return dataclasses.replace(parts[0], rows=rows.sort_values("path", kind="stable").reset_index(drop=True))


def read_table(path: Path, text: Iterable[str], **options: Any) -> pd.DataFrame:
    """Return the rows of a CSV file, the columns `text` as text, in which an empty field is ``""``; other `options` are
    those of `pandas.read_csv`. Raises `DataError` if it cannot be read.
    """
    try:
        given = dict.fromkeys(text, str)
        return pd.read_csv(path, dtype=given, keep_default_na=False, low_memory=False, **options)
    except (OSError, ValueError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as a table: {first_line(error)}.") from error


def require_columns(path: Path, rows: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise `DataError` if a column is missing."""
    if missing := [name for name in names if name not in rows]:
        raise DataError(f"{path} is not a table of predictions: {', '.join(missing)} is missing.")


def require_among(path: Path, rows: pd.DataFrame, texts: Mapping[str, Collection[str]]) -> None:
    """Raise `DataError` if one of the columns `texts` has a text that is not allowed there."""
    for name, allowed in texts.items():
        if stray := set(rows[name].fillna("")) - set(allowed):
            raise DataError(
                f"{path} is damaged: the column {name} must have only {', '.join(filter(None, allowed))}. "
                f"Received: {min(stray)[:200]!r}."
            )


def require_numbers(path: Path, rows: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise `DataError` if one of `columns` has something that is no number."""
    given = rows[columns]
    if not all(kind.kind in "fi" for kind in given.dtypes) and len(rows):
        odd = next(name for name, kind in given.dtypes.items() if kind.kind not in "fi")
        raise DataError(f"{path} is damaged: the column {odd} must have only numbers.")


def write_table(rows: pd.DataFrame, first: Iterable[str], path: Path) -> None:
    """Write `rows` as CSV, whole or not at all, beginning with those columns of `first` that there are."""
    leading = [name for name in first if name in rows]
    with replacing(path) as temporary:
        rows[[*leading, *rows.columns.difference(leading, sort=False)]].to_csv(temporary, index=False)
