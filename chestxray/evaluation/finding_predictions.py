"""The table of predictions of findings: of each row and finding a probability, the truth and the decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data import findings as states
from chestxray.data.grouping import patient_codes
from chestxray.data.index import Index
from chestxray.errors import DataError
from chestxray.evaluation.predictions import (
    PREFIX,
    SPLITS,
    Predictions,
    read_table,
    require_among,
    require_columns,
    require_numbers,
    write_table,
)

#: The columns of an image; ``label`` names the findings that are present, for people.
COLUMNS = ("path", "patient", "split", "source", "label")
#: What else a table says of an image once a decision was applied to it.
ANSWERS = ("decision", "refused")
TRUTH, PREDICTED, ABSTAINED = "truth_", "predicted_", "abstained_"

#: Least number of patients with a finding, and without, for its figures to mean anything: with fewer, even a perfect
#: answer for each is no better than a coin at the 95% level (0.5 ** 5 > 0.025 > 0.5 ** 6).
FEWEST_PATIENTS = 6


@dataclass(frozen=True)
class Known:
    """Of a finding, the number of ``rows`` where it is known, those that are ``positive``, and their ``patients``."""

    rows: int
    positive: int
    patients: int
    patients_with: int
    patients_without: int

    @classmethod
    def of(cls, table: Predictions, finding: str) -> Known:
        """Count the rows of `FindingPredictions.of_finding`."""
        present, clusters = (table.rows["label"] == finding).to_numpy(), table.clusters
        patients, with_it, without = (
            len(np.unique(part)) for part in (clusters, clusters[present], clusters[~present])
        )
        return cls(len(present), int(present.sum()), patients, with_it, without)

    @property
    def prevalence(self) -> float | None:
        """Share of the rows that are positive, None without rows."""
        return self.positive / self.rows if self.rows else None

    @property
    def too_few(self) -> str:
        """Says that there are too few patients with or without the finding, ``""`` where there are enough."""
        if min(self.patients_with, self.patients_without) >= FEWEST_PATIENTS:
            return ""
        if not self.rows:
            return "no image in which it is known"
        patients = f"{self.patients_with:,} patient{'' if self.patients_with == 1 else 's'}"
        return f"{patients} with it and {self.patients_without:,} without; {FEWEST_PATIENTS} of each are needed"


@dataclass(frozen=True)
class FindingPredictions:
    """One row an image: the columns `COLUMNS` and, of each of ``findings``, ``probability_<finding>``,
    ``truth_<finding>`` (1 present, 0 absent, NaN not known) and ``predicted_<finding>`` (1, 0).

    Once a `FindingDecision` was applied it has the columns `ANSWERS`, and ``abstained_<finding>`` for findings that
    the model may abstain from.
    """

    rows: pd.DataFrame
    findings: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The findings, by the name that the outputs of any task have."""
        return self.findings

    @property
    def probabilities(self) -> np.ndarray:
        """Probability that each finding is present, float64 (rows, findings)."""
        return self.rows[[PREFIX + name for name in self.findings]].to_numpy(dtype=np.float64)

    @property
    def truth(self) -> np.ndarray:
        """1 present, 0 absent, NaN not known: float64 (rows, findings)."""
        return self.rows[[TRUTH + name for name in self.findings]].to_numpy(dtype=np.float64)

    @property
    def predicted(self) -> np.ndarray:
        """Whether each finding is decided to be present, bool (rows, findings)."""
        return self.rows[[PREDICTED + name for name in self.findings]].to_numpy(dtype=np.float64) == 1

    @property
    def clusters(self) -> np.ndarray:
        """Codes of the patients, int64 (rows,); an image of unknown patient is one of its own."""
        return patient_codes(self.rows)

    def of(self, split: str) -> FindingPredictions:
        """The rows of one split."""
        return FindingPredictions(self.rows[self.rows["split"] == split].reset_index(drop=True), self.findings)

    def of_finding(self, name: str) -> Predictions:
        """One finding as a task of two classes, absent and present, on the rows where it is known.

        The index of the rows is kept, so that they can be found in this table and in arrays beside it.
        """
        table = self.of_finding_everywhere(name)
        return Predictions(table.rows[self.rows[TRUTH + name].notna().to_numpy()], table.classes)

    def of_finding_everywhere(self, name: str) -> Predictions:
        """One finding as a task of two classes on all rows; the label is ``""`` where it is not known."""
        classes = (states.absent(name), name)
        truth, present = self.rows[TRUTH + name].to_numpy(), self.rows[PREFIX + name].to_numpy(dtype=np.float64)
        names = np.asarray(classes, dtype=object)
        columns: dict[str, Any] = {
            "label": np.where(np.isnan(truth), "", names[(truth == 1).astype(int)]),
            "predicted": names[(self.rows[PREDICTED + name].to_numpy() == 1).astype(int)],
            PREFIX + classes[0]: 1 - present,
            PREFIX + name: present,
        }
        if "refused" in self.rows:
            silent = self.rows["refused"] == "true"
            columns["refused"] = self.rows["refused"]
            columns["abstained"] = self.rows.get(ABSTAINED + name, "")
            silent = silent | (columns["abstained"] == "true")
            columns["decision"] = np.where(silent, "", columns["predicted"])
        own = [prefix + other for other in self.findings for prefix in (PREFIX, TRUTH, PREDICTED, ABSTAINED)]
        # Further columns, such as the fold of a cross-validation, are those of the image.
        image = self.rows.drop(columns=[name for name in ("label", *ANSWERS, *own) if name in self.rows])
        return Predictions(image.assign(**columns), classes)

    def with_probabilities(self, probabilities: np.ndarray) -> FindingPredictions:
        """Return the table with other probabilities, float (rows, findings); what is predicted is unchanged."""
        changed = {
            PREFIX + name: column.astype(np.float64)
            for name, column in zip(self.findings, probabilities.T, strict=True)
        }
        return FindingPredictions(self.rows.assign(**changed), self.findings)

    @classmethod
    def from_probabilities(
        cls, index: Index, probabilities: np.ndarray, places: np.ndarray | None = None
    ) -> FindingPredictions:
        """Join rows of an index of findings and probabilities, float (rows, findings).

        Until a `FindingDecision` is applied, a finding is predicted from a probability of 0.5 on. `places` are the
        numbers of the rows, int (rows,); default: all.
        """
        taken = np.arange(len(index)) if places is None else places
        table = index.rows.iloc[taken][list(COLUMNS)].reset_index(drop=True)
        return cls.joined(table, index.classes, index.truth[taken], probabilities)

    @classmethod
    def joined(
        cls, rows: pd.DataFrame, findings: tuple[str, ...], truth: np.ndarray, probabilities: np.ndarray
    ) -> FindingPredictions:
        """Join `rows` with the columns `COLUMNS`, truth and probabilities, each float (rows, findings)."""
        columns: dict[str, np.ndarray] = {}
        for i, name in enumerate(findings):
            columns[PREFIX + name] = probabilities[:, i].astype(np.float64)
            columns[TRUTH + name] = truth[:, i].astype(np.float32)
            columns[PREDICTED + name] = (probabilities[:, i] >= 0.5).astype(np.int8)
        return cls(pd.concat([rows, pd.DataFrame(columns, index=rows.index)], axis=1), findings)

    @classmethod
    def read(cls, path: Path) -> FindingPredictions:
        """Read a ``predictions.csv`` of findings.

        Raises:
            DataError: it cannot be read; a column is missing; a truth or prediction that is neither 1 nor 0, or a
                probability that is none.
        """
        header = read_table(path, (), nrows=0)
        findings = tuple(name.removeprefix(PREFIX) for name in header.columns if name.startswith(PREFIX))
        own = [prefix + name for name in findings for prefix in (PREFIX, TRUTH, PREDICTED)]
        require_columns(path, header, [*COLUMNS, *(own or [PREFIX + "..."])])
        text = (*COLUMNS, *ANSWERS, *(ABSTAINED + name for name in findings))
        rows = read_table(path, text, na_values={TRUTH + name: [""] for name in findings})
        found = cls(rows, findings)
        found._require_agreement(path)
        whole = dict.fromkeys([PREDICTED + name for name in findings], np.int8)
        return cls(rows.astype({TRUTH + name: np.float32 for name in findings} | whole), findings)

    def _require_agreement(self, path: Path) -> None:
        """Refuse a table in which something is that `from_probabilities` never writes. Raises `DataError`."""
        rows = self.rows
        require_among(path, rows, {"split": SPLITS})
        for name in self.findings:
            require_numbers(path, rows, [prefix + name for prefix in (PREFIX, TRUTH, PREDICTED)])
            given = {prefix: rows[prefix + name].to_numpy(dtype=np.float64) for prefix in (PREFIX, TRUTH, PREDICTED)}
            whole, allowed = np.isin(given[TRUTH], (0, 1)) | np.isnan(given[TRUTH]), "1, 0 or nothing"
            good = {TRUTH: (whole, allowed), PREDICTED: (np.isin(given[PREDICTED], (0, 1)), "1 or 0")}
            # Float32 sigmoid and rounded tables may end a hair outside.
            inside = (given[PREFIX] >= -1e-6) & (given[PREFIX] <= 1 + 1e-6)
            for prefix, (fine, allowed) in {**good, PREFIX: (inside, "a probability from 0 to 1")}.items():
                if not fine.all():
                    line = int(np.argmin(fine))
                    raise DataError(
                        f"{path} is damaged: the column {prefix}{name} must have {allowed} alone. "
                        f"Received: {given[prefix][line]:g} in line {line + 2}."
                    )

    def write(self, path: Path) -> None:
        """Write the table as CSV, at once; a truth that is not known is empty."""
        whole = dict.fromkeys([TRUTH + name for name in self.findings], "Int8")
        write_table(self.rows.astype(whole), (*COLUMNS, *ANSWERS), path)


def require_same_findings(first: Sequence[str], second: Sequence[str], what: str) -> None:
    """Raise `DataError` unless both name the same findings, in any order; `what` says what they are of."""
    if set(first) != set(second):
        raise DataError(f"{what} are of different findings: {', '.join(first)} and {', '.join(second)}.")
