"""The result of a comparison of models: their ranking, and the test of every pair."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from chestxray.data.index import Patients
from chestxray.evaluation.intervals import Figure, Interval
from chestxray.evaluation.paired.p_value_function import ALPHA
from chestxray.evaluation.paired.trainings import SCOPES, Design


@dataclass(frozen=True)
class Standing:
    """One model of a comparison.

    ``figure`` is the compared figure; models that share one of the ``letters`` do not differ significantly.
    ``figures`` holds all of `HEADLINE`. ``repeats`` is the compared figure of each training, of which the figures
    are the means; None where it cannot be computed.
    """

    model: str
    figure: Figure
    letters: str
    figures: Mapping[str, Figure]
    repeats: tuple[float | None, ...]


@dataclass(frozen=True)
class Margin:
    """Non-inferiority tests of both models of a pair, with a margin.

    One-sided p-values of the hypotheses that the first, or the second, model is worse by the margin or more, and the
    same corrected for two tests of every pair (Holm 1979). A model is not inferior where the corrected p is below
    half of `ALPHA`, so that the uncorrected 95% interval is on the right side of the margin (ICH E9); two models of
    which neither is inferior are equivalent (Schuirmann 1987).
    """

    first_p: float | None
    second_p: float | None
    first_p_holm: float | None
    second_p_holm: float | None

    @property
    def first_not_inferior(self) -> bool:
        """Whether the first model is shown not to be worse by the margin."""
        return self.first_p_holm is not None and self.first_p_holm < ALPHA / 2

    @property
    def second_not_inferior(self) -> bool:
        """Whether the second model is shown not to be worse by the margin."""
        return self.second_p_holm is not None and self.second_p_holm < ALPHA / 2

    @property
    def finding(self) -> str:
        """``equivalent``, ``first not inferior``, ``second not inferior`` or ``undecided``."""
        if self.first_not_inferior and self.second_not_inferior:
            return "equivalent"
        if self.first_not_inferior:
            return "first not inferior"
        return "second not inferior" if self.second_not_inferior else "undecided"

    def to_json(self) -> dict[str, Any]:
        """Return the p-values and the finding, ready for JSON."""
        return dataclasses.asdict(self) | {"finding": self.finding}


@dataclass(frozen=True)
class Pair:
    """Two models on the same rows.

    ``difference`` is first minus second; its interval and ``p`` are those of ``test``, ``p_holm`` is p
    corrected for the number of pairs (Holm 1979). ``margin`` is None where no margin was given.
    """

    first: str
    second: str
    difference: Figure
    test: str
    p: float | None
    p_holm: float | None
    margin: Margin | None = None

    @property
    def apart(self) -> bool:
        """Whether the two differ significantly after Holm's correction."""
        return self.p_holm is not None and self.p_holm < ALPHA


@dataclass(frozen=True)
class Comparison:
    """Models ranked by one figure, and the test of every pair of them.

    ``metric`` is the compared figure and ``positive`` the positive class, None for a mean over classes; ``standings``
    has the best model first; ``rows`` and ``patients`` count the test; ``interval`` is the method of the intervals;
    ``design`` says how trainings are drawn; ``margin`` is the non-inferiority margin, None where none was given.
    """

    metric: str
    positive: str | None
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    rows: int
    patients: Patients
    interval: Interval
    design: Design = "one"
    margin: float | None = None

    @property
    def scope(self) -> str:
        """The population that p-values and intervals refer to, in a sentence."""
        return SCOPES[self.design]

    def to_json(self) -> dict[str, Any]:
        """Return the whole comparison, ready for JSON."""
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
                    "margin": None if pair.margin is None else pair.margin.to_json(),
                }
                for pair in self.pairs
            ],
            "rows": self.rows,
            **self.patients.to_json(),
            "alpha": ALPHA,
            "margin": self.margin,
            "design": self.design,
            "scope": self.scope,
            "interval": {
                "level": self.interval.level,
                "method": self.interval.method,
                "replicates": self.interval.replicates,
            },
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the models, the best first, with the columns model, value, low, high, letters."""
        return pd.DataFrame(self.to_json()["models"], columns=["model", "value", "low", "high", "letters"])

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: the models, every pair, and the population that the p-values refer to."""
        tables = (table.round(3).to_html(index=False, na_rep="") for table in (self.to_frame(), self.pairs_to_frame()))
        of = f"{html.escape(self.metric)} on {self.rows:,} images, {self.patients}. {html.escape(self.scope)}"
        return f"<p>{of}</p>" + "".join(tables)

    def pairs_to_frame(self) -> pd.DataFrame:
        """Return the pairs: first, second, difference, low, high, test, p, p_holm; with a margin, its finding too."""
        records = []
        for p in self.pairs:
            record = {"first": p.first, "second": p.second, "difference": p.difference.value}
            record |= {"low": p.difference.low, "high": p.difference.high, "test": p.test, "p": p.p}
            record |= {"p_holm": p.p_holm}
            if p.margin is not None:
                record |= {f"margin_{name}": value for name, value in p.margin.to_json().items()}
            records.append(record)
        return pd.DataFrame(records)
