"""A comparison of models together with their costs, as tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from chestxray.evaluation.paired.comparison_result import Comparison
from chestxray.evaluation.paired.findings_comparison_result import FindingsComparison
from chestxray.evaluation.shortcuts.verdict import together
from chestxray.studies.candidates import Candidate
from chestxray.studies.map_agreement import MapAgreement


@dataclass(frozen=True)
class Compared:
    """A comparison with the costs of the compared models; ``data`` names the data of the test, ``maps`` is what was
    found of the models' heat maps, None where these were not compared.
    """

    comparison: Comparison
    candidates: Mapping[str, Candidate]
    data: str
    maps: MapAgreement | None = None

    @property
    def models(self) -> list[dict[str, Any]]:
        """The models, the best first: figures and cost, as in ``comparison.json``."""
        return [item | self.candidates[item["model"]].to_json() for item in self.comparison.to_json()["models"]]

    def to_frame(self) -> pd.DataFrame:
        """Return a row a model, the best first: costs, and every figure with its interval, the compared one first."""
        return pd.DataFrame([_flat(item, self.comparison.metric) for item in self.models])


@dataclass(frozen=True)
class FindingsCompared:
    """A comparison on findings with the costs of the compared models; ``data`` and ``maps`` as of `Compared`."""

    comparison: FindingsComparison
    candidates: Mapping[str, Candidate]
    data: str
    maps: MapAgreement | None = None

    @property
    def mean(self) -> Compared:
        """The comparison of the means over findings."""
        return Compared(self.comparison.mean, self.candidates, self.data, self.maps)

    def findings_to_frame(self) -> pd.DataFrame:
        """Return a row a finding and model: the compared figure with its interval and letters, and the controls."""
        table = self.comparison.findings_to_frame()
        found = [
            self.controls_of(str(name), str(model))
            for name, model in table[["finding", "model"]].itertuples(index=False)
        ]
        return table.assign(
            controls=[one["finding"] for one in found], controls_fire=[" ".join(one["fires"]) for one in found]
        )

    def controls_of(self, finding: str, model: str) -> Mapping[str, Any]:
        """The result of the controls of one finding over all trainings of a model, see `verdict.together`."""
        return self.candidates[model].findings.get(finding) or together([])


def spread(repeats: Sequence[float | None]) -> float | None:
    """Return the standard deviation of the figure over trainings; None with fewer than two."""
    known = [value for value in repeats if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def repeats_text(repeats: Sequence[float | None]) -> str:
    """Return the range of the trainings and their standard deviation as text, ``-`` with fewer than two."""
    deviation = spread(repeats)
    known = [value for value in repeats if value is not None]
    return "-" if deviation is None else f"{min(known):.3f} to {max(known):.3f}, SD {deviation:.3f}"


def _flat(item: Mapping[str, Any], metric: str) -> dict[str, Any]:
    names = ("model", "letters", "trainings", "parameters", "train_seconds", "images_per_second")
    row = {name: item[name] for name in names}
    row |= {"controls": item["controls"]["finding"], "controls_fire": " ".join(item["controls"]["fires"])}
    for name in (metric, *(other for other in item["test"] if other != metric)):
        figure_of = item["test"][name]
        row |= {name: figure_of["value"], f"{name}_low": figure_of["low"], f"{name}_high": figure_of["high"]}
        if name == metric:
            row[f"{name}_sd"] = spread(item["repeats"])
    return row
