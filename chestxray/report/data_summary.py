"""Counts and figures that describe a data set, for ``chestxray data show``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from chestxray.data.decoded import Decoded
from chestxray.data.index import Index, Patients

#: Number of rows, evenly spaced over the data set, that the histograms of grey values are computed from.
_SAMPLED = 2000


@dataclass(frozen=True)
class Summary:
    """``index`` includes the columns found by decoding; ``pixels`` is uint8 (rows, height, width)."""

    index: Index
    pixels: np.ndarray

    @property
    def readable(self) -> pd.DataFrame:
        """The rows whose image could be read."""
        return self.index.rows[self.index.rows["unreadable"] == ""]

    def counts(self) -> pd.DataFrame:
        """Return the number of images by class (rows) and split (columns); images of no split have their own column."""
        return self.index.counts_by_split()

    def sources(self) -> pd.DataFrame:
        """Return the number of images by class (rows) and source (columns)."""
        return self.index.counts_by_source()

    def patients(self) -> dict[str, int | None]:
        """Return the counts of `Patients`, and the largest number of images of one patient (None if none is known)."""
        rows = self.index.rows
        each = rows[rows["patient"] != ""].groupby(["source", "patient"]).size()
        return {**Patients.of(rows).to_json(), "most_images": int(each.max()) if len(each) else None}

    def to_json(self) -> dict[str, Any]:
        """Return the whole summary as plain values for JSON; widths and heights are in pixels."""
        rows, index = self.readable, self.index
        bad = index.rows[index.rows["unreadable"] != ""]
        return {
            "name": index.name,
            "images": len(index),
            "task": index.task,
            "classes": list(index.classes),
            "counts": _nested(self.counts()),
            "sources": _nested(self.sources()),
            **({"findings": self._states("split")} if index.task == "findings" else {}),
            **({"findings_by_source": self._states("source")} if index.task == "findings" else {}),
            "patients": self.patients(),
            "width": _spread(rows["width"]),
            "height": _spread(rows["height"]),
            "modes": _numbers(rows["mode"]),
            "formats": _numbers(rows["format"]),
            "unreadable": [{"path": p, "reason": r} for p, r in zip(bad["path"], bad["unreadable"], strict=True)],
            "exact_duplicates": int(rows["pixel_hash"].duplicated(keep=False).sum()),
            "licence": index.licence,
            "citation": index.citation,
            "notes": list(index.notes),
        }

    def _states(self, by: Literal["split", "source"]) -> dict[str, dict[str, dict[str, int]]]:
        """Return the number of images by finding, split or source, and state."""
        counts = self.index.finding_counts(by)
        return {
            name: {str(part): {str(state): int(n) for state, n in of_part.items()} for part, of_part in states.items()}
            for name, states in ((name, counts.loc[name]) for name in self.index.classes)
        }

    def write_figures(self, folder: Path) -> list[Path]:
        """Write PNG figures of class distribution, samples, sizes, grey values and sources; return their paths."""
        from chestxray.report import figures
        from chestxray.report.figures import data

        drawn = {
            "class_distribution": figures.class_distribution(self.counts()),
            "sample_grid": figures.sample_grid(self._samples()),
            "sizes": data.size_histogram(self.readable),
            "intensities": data.intensity_histogram(self._intensities()),
            "source_by_class": data.source_by_class(self.sources()),
        }
        paths = []
        for name, figure in drawn.items():
            figures.save(figure, folder / f"{name}.png")
            paths.append(folder / f"{name}.png")
        return paths

    def _samples(self, each: int = 6) -> dict[str, list[np.ndarray]]:
        rows = self.readable
        return {
            label: [self.pixels[i] for i in _spread_out(rows.index[self.index.members(label)[rows.index]], each)]
            for label in self.index.classes
        }

    def _intensities(self) -> dict[str, np.ndarray]:
        rows = self.readable
        each = max(1, _SAMPLED // len(self.index.classes))
        found = {}
        for label in self.index.classes:
            chosen = _spread_out(rows.index[self.index.members(label)[rows.index]], each)
            found[label] = sum((np.bincount(self.pixels[i].ravel(), minlength=256) for i in chosen), np.zeros(256, int))
        return found


def summarise(index: Index, decoded: Decoded) -> Summary:
    """Return the index joined with the columns found by decoding. Unreadable images are counted, not an error."""
    facts = decoded.facts
    rows = index.rows.drop(columns=[c for c in facts if c in index.rows]).join(facts)
    return Summary(index=index.replace(rows), pixels=decoded.pixels)


def _spread_out(places: pd.Index, most: int) -> list[int]:
    if len(places) <= most:
        return places.tolist()
    return places[np.linspace(0, len(places) - 1, most).round().astype(int)].tolist()


def _spread(values: pd.Series) -> dict[str, int] | None:
    if values.empty:
        return None
    return {"smallest": int(values.min()), "median": int(values.median()), "largest": int(values.max())}


def _numbers(values: pd.Series) -> dict[str, int]:
    return {str(name): int(number) for name, number in values.value_counts().items()}


def _nested(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {str(r): {str(c): int(table.loc[r, c]) for c in table.columns} for r in table.index}
