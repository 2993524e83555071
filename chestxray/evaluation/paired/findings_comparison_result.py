"""The result of a comparison of models on findings: that of their means, and that of each finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from chestxray.evaluation.paired.comparison_result import Comparison


@dataclass(frozen=True)
class FindingsComparison:
    """``mean`` compares the means over the findings that are scored; ``findings`` has the comparison of each, whose
    ``p_holm`` are corrected over all pairs of all findings. ``not_scored`` says why of the others.
    """

    metric: str
    mean: Comparison
    findings: Mapping[str, Comparison]
    not_scored: Mapping[str, str]

    @property
    def tests(self) -> int:
        """Number of the tests of findings, over which their p-values are corrected."""
        return sum(len(one.pairs) for one in self.findings.values())

    def to_json(self) -> dict[str, Any]:
        """Return the whole comparison, ready for JSON."""
        return {
            "task": "findings",
            "metric": self.metric,
            "mean": self.mean.to_json(),
            "findings": {name: one.to_json() for name, one in self.findings.items()},
            "tests_of_findings": self.tests,
            "not_scored": dict(self.not_scored),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the models by their mean, the best first, with the columns model, value, low, high, letters."""
        return self.mean.to_frame()

    def findings_to_frame(self) -> pd.DataFrame:
        """Return the models of each finding, as `to_frame`, with the column finding first."""
        return _stacked({name: one.to_frame() for name, one in self.findings.items()})

    def pairs_to_frame(self) -> pd.DataFrame:
        """Return the pairs, those of the mean first, as `Comparison.pairs_to_frame`, with the column finding first; it
        is ``""`` for the mean.
        """
        return _stacked({"": self.mean.pairs_to_frame()} | {n: c.pairs_to_frame() for n, c in self.findings.items()})

    def _repr_html_(self) -> str:
        """Tables for a notebook: the comparison of the means, and the pairs by finding."""
        pairs = _stacked({name: one.pairs_to_frame() for name, one in self.findings.items()})
        return self.mean._repr_html_() + pairs.round(3).to_html(index=False, na_rep="")


def _stacked(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat([table.assign(finding=name) for name, table in tables.items()], ignore_index=True)
    return table[["finding", *table.columns.drop("finding")]]
