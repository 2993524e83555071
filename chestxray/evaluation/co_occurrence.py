"""Which findings come together: in the truth, in the answers, and where one is taken for another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chestxray.evaluation.finding_predictions import FindingPredictions

Counts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class CoOccurrence:
    """Numbers of images for each pair of ``findings``, (findings, findings); on the diagonal of one alone.

    ``known``: both are known. ``truth``: both are known to be present. ``answers``: both are called present, whether
    known or not. ``confused``: the finding of the row is present, and that of the column is called present and
    known to be absent.
    """

    findings: tuple[str, ...]
    known: Counts
    truth: Counts
    answers: Counts
    confused: Counts

    @classmethod
    def of(cls, predictions: FindingPredictions) -> CoOccurrence:
        """Count the images of a table."""
        truth, called = predictions.truth, predictions.predicted.astype(np.float64)
        known, present, absent = ((part).astype(np.float64) for part in (~np.isnan(truth), truth == 1, truth == 0))
        pairs = (known.T @ known, present.T @ present, called.T @ called, present.T @ (absent * called))
        return cls(predictions.findings, *(_counts(table) for table in pairs))

    def to_frame(self, what: str) -> pd.DataFrame:
        """Return one of the tables, ``known``, ``truth``, ``answers`` or ``confused``."""
        names = list(self.findings)
        return pd.DataFrame(getattr(self, what), index=pd.Index(names), columns=pd.Index(names))

    def to_json(self) -> dict[str, Any]:
        """The fields by their names."""
        tables = {name: getattr(self, name) for name in ("known", "truth", "answers", "confused")}
        return {"findings": list(self.findings)} | {name: [list(row) for row in t] for name, t in tables.items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> CoOccurrence:
        """Return the object from what `to_json` gave."""
        tables = (fields[name] for name in ("known", "truth", "answers", "confused"))
        return cls(tuple(fields["findings"]), *(tuple(tuple(int(n) for n in row) for row in table) for table in tables))


def _counts(table: np.ndarray) -> Counts:
    return tuple(tuple(row) for row in table.astype(np.int64).tolist())
