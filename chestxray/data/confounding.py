"""Does anything but the radiograph tell the classes apart: the source, the format, the size?

What goes with a class is learnt in place of the finding (Zech 2018, Maguolo and Nanni 2021). Each
property of the files is held against the class: by Cramer's V with Bergsma's (2013) correction of
its bias, numbers cut into parts of equal count, and by a test that permutes the classes. Images of
one patient, and copies of one image, are no independent witnesses: together they count as one, and
are permuted together.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from chestxray.data.grouping import dependent_groups
from chestxray.data.multiple_testing import holm

Severity = Literal["critical", "warning", "note"]
PERMUTATIONS = 999
SEED = 0
#: Family-wise error rate of all properties together (Holm 1979).
LEVEL = 0.05
#: A weaker association may be sure in a large set and yet be of no use to a model; Cohen (1988)
#: calls 0.1 small, 0.3 medium and 0.5 large.
LEAST, LARGE = 0.2, 0.5
#: Parts that numbers are cut into, where there are that many different ones.
_PARTS = 8
_CATEGORIES = {"source": "The source", "format": "The file format", "mode": "The colour mode"}
_NUMBERS = {
    "width": "The image width",
    "height": "The image height",
    "aspect": "The ratio of width to height",
    "brightness": "The mean brightness",
}


@dataclass(frozen=True)
class Confound:
    """How a property goes with the class.

    ``association``: bias-corrected Cramer's V, 0 to 1. ``p``: of the permutation test. ``p_holm``:
    corrected for all properties tested. ``right``: share of images, classes weighted alike, whose
    class is the likeliest of those with the same property; ``chance`` what guessing gets.
    """

    name: str
    association: float
    p: float
    p_holm: float
    flagged: bool
    right: float
    chance: float
    units: int
    sentence: str

    @property
    def severity(self) -> Severity:
        """``critical`` where the property alone would do, else ``warning``; ``note`` where not flagged.

        Brightness is never critical: a finding may well make a film brighter.
        """
        if not self.flagged:
            return "note"
        return "critical" if self.association >= LARGE and self.name != "brightness" else "warning"


def confounds(rows: pd.DataFrame, classes: tuple[str, ...]) -> tuple[Confound, ...]:
    """Every property of readable, decoded `rows` that can be tested, the strongest first.

    Only training rows count where there are some: it is there that a model learns a shortcut.
    Properties are those columns that are there: source, format, mode, width, height (and their
    ratio), brightness.
    """
    if (rows["split"] == "train").any():
        rows = rows[rows["split"] == "train"]
    rows = rows[rows["label"].isin(classes)]
    classes = tuple(label for label in classes if (rows["label"] == label).any())
    coded = dict(_properties(rows))
    if len(classes) < 2 or not coded:
        return ()
    unit = dependent_groups(rows)
    _, unit = np.unique(unit, return_inverse=True)
    labels = pd.Categorical(rows["label"], categories=list(classes)).codes
    size = np.bincount(unit).astype(float)
    of_class = _proportions(unit, labels, size)
    of_part = {name: _proportions(unit, codes, size) for name, codes in coded.items()}
    ps = _permuted(of_class, of_part)
    found = []
    for name, p_holm in zip(ps, holm(list(ps.values())), strict=True):
        assert p_holm is not None
        association = _cramers_v(of_class.T @ of_part[name], len(size))
        right = _right(of_class, of_part[name])
        flagged = p_holm <= LEVEL and association >= LEAST
        described = _sentence(name, of_class, of_part[name], classes, flagged)
        numbers = (round(association, 4), ps[name], round(p_holm, 4), bool(flagged), round(right, 4))
        found.append(Confound(name, *numbers, round(1 / len(classes), 4), len(size), described))
    return tuple(sorted(found, key=lambda item: -item.association))


def _properties(rows: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Name and codes (rows,), 0 and up, of each property; all 0 where it is the same everywhere."""
    for name in _CATEGORIES:
        if name in rows:
            yield name, pd.factorize(rows[name])[0]
    values = rows
    if {"width", "height"} <= set(rows):
        values = rows.assign(aspect=rows["width"] / rows["height"])
    for name in _NUMBERS:
        if name in values and values[name].notna().all():
            yield name, _cut(values[name].to_numpy(dtype=float))


def _cut(numbers: np.ndarray) -> np.ndarray:
    """Codes of parts of about equal count. Numbers that are equal stay in one part."""
    distinct = np.unique(numbers)
    if len(distinct) <= _PARTS:
        return np.searchsorted(distinct, numbers)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _PARTS + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, numbers, side="right"), return_inverse=True)[1]


def _proportions(unit: np.ndarray, codes: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(units, codes): the share of each unit's images that have each code."""
    table = np.zeros((len(size), int(codes.max()) + 1))
    np.add.at(table, (unit, codes), 1)
    return table / size[:, None]


def _permuted(of_class: np.ndarray, of_part: dict[str, np.ndarray]) -> dict[str, float]:
    """The p of each property: how often classes dealt anew to the units go with it as much."""
    rng = np.random.default_rng(SEED)
    together = np.concatenate(list(of_part.values()), axis=1)
    ends = np.cumsum([part.shape[1] for part in of_part.values()])[:-1]

    def statistics(labels: np.ndarray) -> np.ndarray:
        return np.array([_chi_square(table) for table in np.split(labels.T @ together, ends, axis=1)])

    own = statistics(of_class)
    reached = np.zeros(len(own))
    for _ in range(PERMUTATIONS):
        # The margin is for rounding: a table that is the same must count as reached.
        reached += statistics(rng.permutation(of_class)) >= own * (1 - 1e-9) - 1e-9
    values = (reached + 1) / (PERMUTATIONS + 1)
    return {name: float(value) for name, value in zip(of_part, values, strict=True)}


def _chi_square(table: np.ndarray) -> float:
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return float(((table - expected) ** 2 / np.maximum(expected, 1e-12)).sum())


def _cramers_v(table: np.ndarray, units: int) -> float:
    """Bergsma's estimate: without his correction, chance alone gives a V well above 0."""
    r, c = table.shape
    if min(r, c) < 2 or units < 2:
        return 0.0
    phi = max(0.0, _chi_square(table) / units - (r - 1) * (c - 1) / (units - 1))
    rows, columns = r - (r - 1) ** 2 / (units - 1), c - (c - 1) ** 2 / (units - 1)
    smaller = min(rows, columns) - 1
    return float(min(1.0, np.sqrt(phi / smaller))) if smaller > 0 else 0.0


def _right(of_class: np.ndarray, of_part: np.ndarray) -> float:
    """Share of units, classes weighted alike, that are of the likeliest class of their part."""
    proportions = (of_class.T @ of_part) / of_class.sum(axis=0)[:, None]
    return float(proportions.max(axis=0).sum() / len(proportions))


def _sentence(name: str, of_class: np.ndarray, of_part: np.ndarray, classes: tuple[str, ...], flagged: bool) -> str:
    what = (_CATEGORIES | _NUMBERS)[name]
    if of_part.shape[1] < 2:
        return f"{what} is the same for all images."
    if not flagged:
        return f"{what} does not clearly go with the class."
    proportions = (of_class.T @ of_part) / of_class.sum(axis=0)[:, None]
    apart = {
        (a, b): np.abs(proportions[a] - proportions[b]).sum() for a, b in itertools.combinations(range(len(classes)), 2)
    }
    first, second = max(apart, key=lambda pair: apart[pair])
    pair = f"{classes[first]} from {classes[second]}"
    which = pair if len(classes) == 2 else f"{len(classes)} classes apart ({pair} best)"
    right, chance = round(100 * _right(of_class, of_part)), round(100 / len(classes))
    return f"{what} alone tells {which}: it is right for {right} of 100 images, where guessing is right for {chance}."


def to_json(found: Confound) -> dict:
    """Plain values, with the severity."""
    return dataclasses.asdict(found) | {"severity": found.severity}
