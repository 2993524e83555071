"""Differences of a model's figures between subgroups, with intervals and corrected p-values.

A gap is the figure of a group minus that of all other rows, with its interval and p by one method: the two
intervals combined with their correlation (MOVER; Zou 2007), p being the level at which that interval would
end at 0. The interaction test is a single test of whether the figure differs between any groups of a column.
Both are corrected (Holm 1979) over all columns, groups and figures: of twenty equal groups, one is expected to differ
significantly by chance.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

from chestxray.data.multiple_testing import holm
from chestxray.evaluation import influence
from chestxray.evaluation.influence import Influence
from chestxray.evaluation.intervals import LEVEL, Figure, around, satterthwaite
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.support import effective

METHOD = "MOVER of logit-t intervals clustered by patient"
INTERACTION = "Wald test on the logit scale with Welch's F, clustered by patient"
#: A column with more values than this is left out.
MOST_GROUPS = 50
#: Figures that are compared, with two classes and with more.
OF_TWO = ("auroc", "sensitivity", "specificity")
OF_MORE = ("auroc", "accuracy")


@dataclass(frozen=True)
class Part:
    """A figure of some rows: the influence of each row, and the effective number of patients."""

    influence: Influence
    support: float
    clusters: np.ndarray

    @property
    def value(self) -> float:
        """The figure, NaN where it cannot be computed."""
        return self.influence.value

    @functools.cached_property
    def error(self) -> float:
        """Its standard error over patients, NaN with one patient."""
        own = math.sqrt(max(0.0, influence.covariance(self.influence, self.influence, self.clusters)))
        return own * math.sqrt(self.support / (self.support - 1)) if self.support > 1 else math.nan

    def figure(self, level: float = LEVEL) -> Figure:
        """Return the figure with its interval."""
        return around(self.value, self.error, self.support, level=level)


def gap(one: Part, other: Part) -> tuple[Figure, float | None]:
    """Return the figure of one part minus that of another of the same table, with its interval, and p."""
    value = one.value - other.value
    if math.isnan(value):
        return Figure(None, None, None), None
    if any(part.figure().low is None for part in (one, other)):
        return Figure(value, None, None), None
    r = influence.correlation(one.influence, other.influence, one.clusters)

    def reach(level: float, side: int) -> float:
        first, second = (part.figure(level) for part in (one, other))
        ends = (first.low, second.high) if side < 0 else (first.high, second.low)
        own, far = (abs(part.value - _known(end)) for part, end in zip((one, other), ends, strict=True))
        return math.sqrt(max(0.0, own**2 + far**2 - 2 * r * own * far))

    return Figure(value, value - reach(LEVEL, -1), value + reach(LEVEL, 1)), p_of(value, reach)


def p_of(value: float, reach: Callable[[float, int], float]) -> float:
    """Return the two-sided p of a difference: the least 1 - level at which its interval does not contain 0.

    `reach` gives the distance from `value` to the end of the interval of a level, below it (-1) or above it (1).
    """
    side, least, most = (-1 if value > 0 else 1), 1e-9, 1 - 1e-12
    if reach(least, side) >= abs(value):
        return 1.0
    if reach(most, side) <= abs(value):
        return 1 - most
    return 1 - float(optimize.brentq(lambda level: reach(level, side) - abs(value), least, most, xtol=1e-13))


def interaction(parts: Sequence[Part]) -> float | None:
    """Return the p-value of no difference between any `parts`, None with fewer than two that are defined.

    Cochran's Q of the logits with their covariance over patients, referred to Welch's F (1951), which allows
    for the number of patients of each group. Half an event is added to each figure (Haldane 1956; Anscombe 1956).
    """
    known = [part for part in parts if not math.isnan(part.value) and part.support > 1]
    count = len(known)
    if count < 2:
        return None
    logits, slopes, errors = np.empty(count), np.empty(count), np.empty(count)
    for i, part in enumerate(known):
        share = (part.value * part.support + 0.5) / (part.support + 1)
        slopes[i] = 1 / (share * (1 - share))
        logits[i] = math.log(share / (1 - share))
        # A figure that no row influences gets the binomial standard error.
        errors[i] = part.error if part.error > 1e-12 else math.sqrt(share * (1 - share) / part.support)
    errors *= slopes
    related = [[influence.correlation(a.influence, b.influence, a.clusters) for b in known] for a in known]
    correlation = np.array(related)
    np.fill_diagonal(correlation, 1.0)
    precise = np.linalg.pinv(correlation * np.outer(errors, errors))
    weights = precise.sum(axis=0)
    middle = float(weights @ logits / weights.sum())
    q = float((logits - middle) @ precise @ (logits - middle))
    welch_weights = (1 / errors**2) / float((1 / errors**2).sum())
    freedoms = np.array([part.support - 1 for part in known])
    uneven = float(((1 - welch_weights) ** 2 / freedoms).sum())
    statistic = q / (count - 1) / (1 + 2 * (count - 2) / (count**2 - 1) * uneven)
    return float(stats.f.sf(statistic, count - 1, (count**2 - 1) / (3 * uneven)))


def gaps(table: Predictions, columns: Mapping[str, np.ndarray], positive: int | None) -> dict[str, Any] | None:
    """Return the differences between the groups of all `columns`, ready for JSON; None where no column has two groups.

    ``left_out`` names columns of more than `MOST_GROUPS`.

    Args:
        table: the rows of a test.
        columns: the group of each row by each column, str (rows,), ``""`` where it is not known.
        positive: number of the positive class, None with more than two.
    """
    found, tests, left_out = untested(table, columns, positive)
    correct(tests, found)
    if not found and not left_out:
        return None
    content = {"method": METHOD, "interaction": INTERACTION, "tests": len(tests), "columns": found}
    return content | {"left_out": left_out}


#: For each column and figure the gap of each group and the interaction test, as ``gaps.json`` has them.
Columns = dict[str, dict[str, dict[str, Any]]]


def untested(
    table: Predictions, columns: Mapping[str, np.ndarray], positive: int | None
) -> tuple[Columns, list[dict[str, Any]], list[str]]:
    """Return the gaps without corrected p-values, the tests in them that `correct` completes, and the columns left out;
    arguments as of `gaps`.
    """
    found: Columns = {}
    tests: list[dict[str, Any]] = []
    left_out = []
    for column, groups in columns.items():
        names = sorted({str(name) for name in groups} - {""})
        if len(names) > MOST_GROUPS:
            left_out.append(column)
        if not 2 <= len(names) <= MOST_GROUPS:
            continue
        found[column] = {}
        for name, figure in _figures(table, positive).items():
            entry, asked = _column(figure, np.asarray(groups, dtype=str), names)
            found[column][name] = entry
            tests += asked
    return found, tests, left_out


def correct(tests: Sequence[dict[str, Any]], *of: Columns) -> None:
    """Add to each of `tests`, which are those in the columns `of`, its p-value corrected over all of them (Holm)."""
    for test, corrected in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = corrected
    for entry in (entry for columns in of for figures in columns.values() for entry in figures.values()):
        # With two groups, gap and interaction are the same test.
        only = next(iter(entry["groups"].values()))
        entry.setdefault("interaction", {name: only[name] for name in ("p", "p_holm")})


def _column(
    figure: Callable[[np.ndarray], Part], groups: np.ndarray, names: Sequence[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the gaps of one figure by one column, and the tests to be corrected."""
    parts = [figure(groups == name) for name in names]
    everyone = groups != ""
    listed: dict[str, dict[str, Any]] = {}
    # With two groups, the second gap is the first with the sign changed.
    for name, part in list(zip(names, parts, strict=True))[: len(names) if len(names) > 2 else 1]:
        rest = figure(everyone & (groups != name))
        figure_of, p = gap(part, rest)
        listed[name] = figure_of.to_json() | {"p": p}
    if len(names) == 2:
        (only,) = listed.values()
        return {"against": names[1], "groups": listed}, [only]
    whole = {"p": interaction(parts)}
    return {"against": "all others", "interaction": whole, "groups": listed}, [whole, *listed.values()]


def _figures(table: Predictions, positive: int | None) -> dict[str, Callable[[np.ndarray], Part]]:
    """Return the compared figures by name, each a function of rows, bool (rows,)."""
    truth, right, clusters = table.truth, table.predicted == table.truth, table.clusters
    probabilities, flat = table.probabilities, np.zeros(len(table.truth), dtype=np.int64)

    def share(of: np.ndarray) -> Part:
        return Part(_placed(influence.accuracy(right[of]), of), effective(clusters[of]), clusters)

    def area(of: np.ndarray, label: int) -> Part:
        found = influence.auroc(truth[of] == label, probabilities[of, label], flat[of])
        own, rest = of & (truth == label), of & (truth != label)
        return Part(_placed(found, of), min(effective(clusters[own]), effective(clusters[rest])), clusters)

    def areas(of: np.ndarray) -> Part:
        each = [area(of, label) for label in range(len(table.classes)) if (truth == label).any()]
        if any(math.isnan(part.value) for part in each):
            # A mean over fewer classes does not compare with that of the other groups.
            return Part(Influence(math.nan, np.zeros(len(truth))), 0.0, clusters)
        varying = [influence.covariance(part.influence, part.influence, clusters) for part in each]
        # Where no class varies, as with perfect scores, the support is that of the rarest class.
        fewest = min((part.support for part in each), default=0.0)
        freedom = satterthwaite(varying, [part.support - 1 for part in each])
        support = freedom + 1 if any(variance > 0 for variance in varying) else fewest
        return Part(influence.mean([part.influence for part in each]), support, clusters)

    if positive is None:
        return dict(zip(OF_MORE, (areas, share), strict=True))
    sick = truth == positive
    of_two = (lambda of: area(of, positive), lambda of: share(of & sick), lambda of: share(of & ~sick))
    return dict(zip(OF_TWO, of_two, strict=True))


def _placed(found: Influence, of: np.ndarray) -> Influence:
    """Return an influence on the rows `of`, bool (rows,), as one on all rows."""
    rows = np.zeros(len(of))
    rows[of] = found.rows
    return Influence(found.value, rows)


def _known(end: float | None) -> float:
    return math.nan if end is None else end
