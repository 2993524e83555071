"""Tests whether properties of the files other than the radiograph predict the class: source, format, size.

A model may learn a property that is associated with a class instead of the finding (Zech 2018,
Maguolo and Nanni 2021). The association of each property with the class is measured by Cramer's V
with Bergsma's (2013) bias correction, numbers being cut into bins of equal count, and tested by
permuting the classes. Images of one patient and copies of one image are not independent: together
they count as one unit, and are permuted together.

Of findings each is tested as the two classes present and absent, on the images where it is known.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from chestxray.data import lung_boxes
from chestxray.data.grouping import dependent_groups
from chestxray.data.index import Index
from chestxray.data.multiple_testing import holm

Severity = Literal["critical", "warning", "note"]
PERMUTATIONS = 999
#: Of a finding: with 14 findings and 7 properties, the smallest p-value must be below .05 / 98. Where the association
#: is too weak to be flagged, fewer do.
PERMUTATIONS_OF_FINDING, FEWER = 9_999, 199
#: A p-value is large enough to stop at when permuted classes have reached the association so often (Besag and
#: Clifford 1991).
ENOUGH = 20
SEED = 0
#: Family-wise error rate of all properties, and of all findings, together (Holm 1979).
LEVEL = 0.05
#: A weaker association may be significant in a large set and yet be of no use to a model; Cohen
#: (1988) calls 0.1 small, 0.3 medium and 0.5 large.
LEAST, LARGE = 0.2, 0.5
#: Number of bins that numbers are cut into, if there are that many different ones.
_PARTS = 8
_CATEGORIES = {
    "source": "The source",
    "format": "The file format",
    "mode": "The colour mode",
    "lungs_found": "Whether its lungs were found, to which an image is cut,",
}
_NUMBERS = {
    "width": "The image width",
    "height": "The image height",
    "aspect": "The ratio of width to height",
    "brightness": "The mean brightness",
}


@dataclass(frozen=True)
class Confound:
    """The association of a property with the class.

    ``association``: bias-corrected Cramer's V, 0 to 1. ``p``: p-value of the permutation test.
    ``p_holm``: the same corrected for all properties tested. ``right``: accuracy (0 to 1, classes
    weighted equally) of predicting the most likely class given the property; ``chance``: that of
    guessing. ``units``: number of independent units, see the module. ``finding``: the finding
    that is tested, ``""`` where it is the class.
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
    finding: str = ""

    @property
    def severity(self) -> Severity:
        """``critical`` if the association is large, else ``warning``; ``note`` if not flagged.

        Brightness is never critical: a finding may itself make a film brighter.
        """
        if not self.flagged:
            return "note"
        return "critical" if self.association >= LARGE and self.name != "brightness" else "warning"


def of_index(index: Index) -> tuple[Confound, ...]:
    """Return the association of each property of readable, decoded rows with the class, or with each finding."""
    if index.task == "classes":
        return confounds(index.rows, index.classes)
    return _of_findings(index)


def confounds(rows: pd.DataFrame, classes: tuple[str, ...]) -> tuple[Confound, ...]:
    """Return the association of each property of readable, decoded `rows` with the class, the strongest first.

    Only training rows are used if there are any, since a model learns a shortcut from those. The
    properties are those of these columns that `rows` has: source, format, mode, width, height (and
    their ratio), brightness; where images are cut to their lungs, also whether these were found.
    """
    if (rows["split"] == "train").any():
        rows = rows[rows["split"] == "train"]
    rows = rows[rows["label"].isin(classes)]
    classes = tuple(label for label in classes if (rows["label"] == label).any())
    tables = _Tables.of(rows, classes, dependent_groups(rows)) if len(classes) > 1 else None
    if tables is None:
        return ()
    ps = _permuted(tables.of_class, tables.of_part)
    corrected = holm(list(ps.values()))
    return _strongest_first(tables.confound(name, ps[name], p) for name, p in zip(ps, corrected, strict=True))


def _of_findings(index: Index) -> tuple[Confound, ...]:
    """Return the association of each property with each finding; p-values are corrected over all of them together."""
    if (index.rows["split"] == "train").any():
        index = index.replace(index.rows[index.rows["split"] == "train"])
    index = index.replace(index.rows)  # numbered from 0, as the groups are
    groups = dependent_groups(index.rows)
    rng = np.random.default_rng(SEED)
    tested: list[tuple[str, _Tables, str, float]] = []
    for name in index.classes:
        alone = index.of_finding(name)
        if alone.rows["label"].nunique() < 2:
            continue
        if tables := _Tables.of(alone.rows, alone.classes, groups[alone.rows.index]):
            tested += [(name, tables, what, p) for what, p in _of_two(tables, rng).items()]
    corrected = holm([p for *_, p in tested])
    return _strongest_first(
        tables.confound(what, p, p_holm, name)
        for (name, tables, what, p), p_holm in zip(tested, corrected, strict=True)
    )


def _strongest_first(found: Iterable[Confound]) -> tuple[Confound, ...]:
    return tuple(sorted(found, key=lambda item: -item.association))


@dataclass(frozen=True)
class _Tables:
    """The proportions of each unit's images: of each class (units, classes), and of each value of each property."""

    classes: tuple[str, ...]
    of_class: np.ndarray
    of_part: dict[str, np.ndarray]

    @classmethod
    def of(cls, rows: pd.DataFrame, classes: tuple[str, ...], groups: np.ndarray) -> _Tables | None:
        """Return the tables of `rows`, whose `groups` (rows,) are the units; None if there is no property."""
        coded = dict(_properties(rows))
        if not coded:
            return None
        _, unit = np.unique(groups, return_inverse=True)
        labels = pd.Categorical(rows["label"], categories=list(classes)).codes
        size = np.bincount(unit).astype(float)
        parts = {name: _proportions(unit, codes, size) for name, codes in coded.items()}
        return cls(classes, _proportions(unit, labels, size), parts)

    def association(self, name: str) -> float:
        return _cramers_v(self.of_class.T @ self.of_part[name], len(self.of_class))

    def confound(self, name: str, p: float, p_holm: float | None, finding: str = "") -> Confound:
        assert p_holm is not None
        association, right = self.association(name), _right(self.of_class, self.of_part[name])
        flagged = p_holm <= LEVEL and association >= LEAST
        described = _sentence(name, self.of_class, self.of_part[name], self.classes, flagged, finding)
        numbers = (round(association, 4), round(p, 5), round(p_holm, 4), bool(flagged), round(right, 4))
        return Confound(name, *numbers, round(1 / len(self.classes), 4), len(self.of_class), described, finding)


def _of_two(tables: _Tables, rng: np.random.Generator) -> dict[str, float]:
    """Return the p-value of each property for two classes: as `_permuted`, by many permutations of few units.

    Only the units that have the rarer class matter, wherever they are put. The number of permutations is decided
    by the association in the data and by the permutations before, which keeps the test valid.
    """
    rarer = tables.of_class[:, tables.of_class.sum(axis=0).argmin()]
    having = rarer[rarer > 0]
    ps = {}
    for name, part in tables.of_part.items():
        total = part.sum(axis=0)
        expected = total * rarer.mean()
        # The chi-square of both classes, whose deviations are equal and opposite.
        weight = 1 / np.maximum(expected, 1e-12) + 1 / np.maximum(total - expected, 1e-12)
        own = (((rarer @ part) - expected) ** 2 @ weight) * (1 - 1e-9) - 1e-9
        most = PERMUTATIONS_OF_FINDING if tables.association(name) >= LEAST else FEWER
        reached = done = 0
        while done < most and reached < ENOUGH:
            places = rng.choice(len(rarer), len(having), replace=False)
            reached += bool(((having @ part[places]) - expected) ** 2 @ weight >= own)
            done += 1
        ps[name] = reached / done if reached == ENOUGH else (reached + 1) / (done + 1)
    return ps


def _properties(rows: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the codes (rows,), from 0, of each property; all codes are 0 if it is constant."""
    if lung_boxes.COLUMN in rows:
        rows = rows.assign(lungs_found=rows[lung_boxes.COLUMN] != "")
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
    """Return the bin of each number, from 0, with bins of about equal count. Equal numbers stay in one bin."""
    distinct = np.unique(numbers)
    if len(distinct) <= _PARTS:
        return np.searchsorted(distinct, numbers)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _PARTS + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, numbers, side="right"), return_inverse=True)[1]


def _proportions(unit: np.ndarray, codes: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the proportion of each unit's images that have each code: float (units, codes)."""
    width = int(codes.max()) + 1
    # A value that is missing, -1, counts as the last one.
    counts = np.bincount(unit * width + codes % width, minlength=len(size) * width)
    return counts.reshape(len(size), width) / size[:, None]


def _permuted(of_class: np.ndarray, of_part: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the p-value of each property: how often permuted classes are associated with it at least as much."""
    rng = np.random.default_rng(SEED)
    together = np.concatenate(list(of_part.values()), axis=1)
    ends = np.cumsum([part.shape[1] for part in of_part.values()])[:-1]

    def statistics(labels: np.ndarray) -> np.ndarray:
        return np.array([_chi_square(table) for table in np.split(labels.T @ together, ends, axis=1)])

    own = statistics(of_class)
    reached = np.zeros(len(own))
    for _ in range(PERMUTATIONS):
        # The margin is for rounding errors: an identical table must count as reached.
        reached += statistics(rng.permutation(of_class)) >= own * (1 - 1e-9) - 1e-9
    values = (reached + 1) / (PERMUTATIONS + 1)
    return {name: float(value) for name, value in zip(of_part, values, strict=True)}


def _chi_square(table: np.ndarray) -> float:
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return float(((table - expected) ** 2 / np.maximum(expected, 1e-12)).sum())


def _cramers_v(table: np.ndarray, units: int) -> float:
    """Return Cramer's V with Bergsma's bias correction, without which chance alone gives values well above 0."""
    r, c = table.shape
    if min(r, c) < 2 or units < 2:
        return 0.0
    phi = max(0.0, _chi_square(table) / units - (r - 1) * (c - 1) / (units - 1))
    rows, columns = r - (r - 1) ** 2 / (units - 1), c - (c - 1) ** 2 / (units - 1)
    smaller = min(rows, columns) - 1
    return float(min(1.0, np.sqrt(phi / smaller))) if smaller > 0 else 0.0


def _right(of_class: np.ndarray, of_part: np.ndarray) -> float:
    """Return the proportion of units, classes weighted equally, that have the most likely class of their bin."""
    proportions = (of_class.T @ of_part) / of_class.sum(axis=0)[:, None]
    return float(proportions.max(axis=0).sum() / len(proportions))


def _sentence(
    name: str, of_class: np.ndarray, of_part: np.ndarray, classes: tuple[str, ...], flagged: bool, finding: str
) -> str:
    what = (_CATEGORIES | _NUMBERS)[name]
    if of_part.shape[1] < 2:
        return f"{what} is the same for all images."
    if not flagged:
        return f"{what} does not clearly go with {finding or 'the class'}."
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
    """Return the fields and the severity as a dictionary for JSON."""
    return dataclasses.asdict(found) | {"severity": found.severity}
