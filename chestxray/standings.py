"""What a comparison of models found: their order, and every pair of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from chestxray.index import Patients
from chestxray.intervals import Figure, Interval
from chestxray.paired import ALPHA


@dataclass(frozen=True)
class Standing:
    """One model: its figure, and letters that it shares with the models it cannot be told from.

    ``figures`` are all of `HEADLINE`. ``repeats`` is the compared figure of each repeated training (of
    each seed, say), of which the figures are the means; None where it cannot be had.
    """

    model: str
    figure: Figure
    letters: str
    figures: Mapping[str, Figure]
    repeats: tuple[float | None, ...]


@dataclass(frozen=True)
class Pair:
    """Two models on the same rows.

    ``difference`` is first minus second, with the interval of the paired bootstrap. ``p`` is that of
    ``test``, ``p_holm`` the same corrected for the number of pairs.
    """

    first: str
    second: str
    difference: Figure
    test: str
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class Comparison:
    """Models by one figure, the best first, and every pair of them."""

    metric: str
    positive: str | None
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    rows: int
    patients: Patients
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """The whole comparison, ready for JSON."""
        return {
            "metric": self.metric,
            "positive": self.positive,
            "models": [
                {
                    "model": s.model,
                    **s.figure.to_json(),
                    "letters": s.letters,
                    "repeats": list(s.repeats),
                    "test": {name: figure.to_json() for name, figure in s.figures.items()},
                }
                for s in self.standings
            ],
            "pairs": [
                {
                    "first": pair.first,
                    "second": pair.second,
                    "difference": pair.difference.to_json(),
                    "test": pair.test,
                    "p": pair.p,
                    "p_holm": pair.p_holm,
                }
                for pair in self.pairs
            ],
            "rows": self.rows,
            **self.patients.to_json(),
            "alpha": ALPHA,
            "interval": {
                "level": self.interval.level,
                "method": self.interval.method,
                "replicates": self.interval.replicates,
            },
        }

    def to_frame(self) -> pd.DataFrame:
        """The models, the best first: model, value, low, high, letters."""
        return pd.DataFrame(self.to_json()["models"], columns=["model", "value", "low", "high", "letters"])

    def pairs_to_frame(self) -> pd.DataFrame:
        """The pairs: first, second, difference, low, high, test, p, p_holm."""
        records = [
            (p.first, p.second, p.difference.value, p.difference.low, p.difference.high, p.test, p.p, p.p_holm)
            for p in self.pairs
        ]
        columns = ["first", "second", "difference", "low", "high", "test", "p", "p_holm"]
        return pd.DataFrame.from_records(records, columns=columns)
