"""Testing a control: what could be learnt from what it sees, and how much of a model's gain it reaches.

*Could it be learnt?* The control is cross-fitted over all rows of the run: each fifth is predicted by
cheap models of the rest, so that a small test is not all there is to go by. Only pairs of rows of the
same fifth count, and of the same side (the test, or the rest), since another share of disease in the
test is nothing that a model could have learnt in training.

*How much of this score?* Trained and tested on the rows that the model was trained and tested on, the
control has a share of what the model gains over a coin toss. Its interval is paired: both are figures
of the same patients. That of a difference is put together from the two intervals and their correlation
(MOVER; Zou 2007), that of the share from the differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chestxray.evaluation.influence import Influence, auroc, correlation, mean
from chestxray.evaluation.intervals import LEVEL, Figure
from chestxray.evaluation.shortcuts import classifiers
from chestxray.evaluation.support import effective

FOLDS = 5
#: Shares that are looked at for the ends of an interval.
SHARES = np.round(np.arange(0, 3.005, 0.01), 2)


@dataclass(frozen=True)
class Rows:
    """The rows that controls are trained and tested on.

    ``splits``: for each training of the model (one, or one a fold), the split of each row, str (rows,)
    or ``""``. ``groups``: what must stay together in cross-fitting, ``clusters``: the patients, both
    codes, int (rows,).
    """

    splits: tuple[np.ndarray, ...]
    groups: np.ndarray
    clusters: np.ndarray

    def of(self, name: str) -> np.ndarray:
        """Which rows were in the split `name` in any training, bool (rows,)."""
        return np.any([split == name for split in self.splits], axis=0)

    @property
    def side(self) -> np.ndarray:
        """Which rows were tested in every training, and so are a set apart, int (rows,)."""
        return np.all([split == "test" for split in self.splits], axis=0).astype(np.int64)

    @property
    def part(self) -> np.ndarray:
        """The training that each row was tested in, int (rows,), 0 where none."""
        part = np.zeros(len(self.clusters), dtype=np.int64)
        for number, split in enumerate(self.splits):
            part[split == "test"] = number
        return part


@dataclass(frozen=True)
class Area:
    """An AUROC and the number of patients that it rests on."""

    influence: Influence
    support: float
    clusters: np.ndarray

    def figure(self, level: float = LEVEL) -> Figure:
        """The AUROC with its interval."""
        return self.influence.figure(self.clusters, self.support, level)


def cross_fitted(
    fit: classifiers.Fitter, features: np.ndarray, truth: np.ndarray, classes: int, rows: Rows, seed: int
) -> tuple[Area, ...]:
    """AUROC of each class against the rest, of two classes of the second alone.

    `features`: float (rows, features); `truth`: class codes, int (rows,).
    """
    fold = deal(truth, rows.groups, seed)
    given = np.zeros((len(truth), classes))
    for number in range(FOLDS):
        test, validation = fold == number, fold == (number + 1) % FOLDS
        given[test] = _fitted(fit, features, truth, ~(test | validation), validation, test, classes, seed)
    return areas(given, truth, 2 * fold + rows.side, rows.clusters)


def as_tested(
    fit: classifiers.Fitter, features: np.ndarray, truth: np.ndarray, classes: int, rows: Rows, seed: int
) -> np.ndarray:
    """Probabilities of the tested rows by models of the rows that the model was trained on, float (rows, classes).

    Rows that were not tested stay 0.
    """
    given = np.zeros((len(truth), classes))
    for split in rows.splits:
        train, validation, test = (split == name for name in ("train", "validation", "test"))
        given[test] = _fitted(fit, features, truth, train, validation, test, classes, seed)
    return given


def deal(truth: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each row, int (rows,): groups whole, those of each class dealt out in turn."""
    codes, first = np.unique(groups, return_index=True)
    shuffled = np.random.default_rng(seed).permutation(len(codes))
    order = shuffled[np.argsort(truth[first][shuffled], kind="stable")]
    fold = np.empty(len(codes), dtype=np.int64)
    fold[order] = np.arange(len(codes)) % FOLDS
    return fold[np.searchsorted(codes, groups)]


def areas(given: np.ndarray, truth: np.ndarray, strata: np.ndarray, clusters: np.ndarray) -> tuple[Area, ...]:
    """AUROC of each class against the rest, of two classes of the second alone, from float (rows, classes)."""
    found = []
    for k in range(given.shape[1]) if given.shape[1] > 2 else (1,):
        own = truth == k
        support = min(effective(clusters[own]), effective(clusters[~own]))
        found.append(Area(auroc(own, given[:, k], strata), support, clusters))
    return tuple(found)


def average(parts: Sequence[Area]) -> Area:
    """Mean of the AUROCs of several classes of the same rows; it rests on the patients of the rarest."""
    known = [part for part in parts if np.isfinite(part.influence.value)]
    return Area(
        mean([part.influence for part in parts]), min((p.support for p in known), default=0.0), parts[0].clusters
    )


def share(control: Area, model: Area, level: float = LEVEL) -> Figure:
    """How much of what `model` gains over a coin toss `control` has, both of the same rows.

    The value is None where the model gains nothing; ``low`` is 0 and ``high`` None where the rows cannot
    bound it.
    """
    c, m = control.figure(level), model.figure(level)
    if c.value is None or m.value is None:
        return Figure(None, None, None)
    gain = m.value - 0.5
    value = max(0.0, (c.value - 0.5) / gain) if gain > 0 else None
    if c.low is None or c.high is None or m.low is None or m.high is None:
        return Figure(value, 0.0, None)
    r = correlation(control.influence, model.influence, control.clusters)
    ahead = c.value - 0.5 - SHARES * gain
    below = _aside(c.value - c.low, SHARES * (m.high - m.value), r)
    above = _aside(c.high - c.value, SHARES * (m.value - m.low), r)
    reached = SHARES[ahead - below <= 0]
    possible = SHARES[ahead + above >= 0]
    low = float(reached[0]) if len(reached) else float(SHARES[-1])
    high = float(possible[-1]) if len(possible) else 0.0
    return Figure(value, low, None if high == SHARES[-1] else high)


def _aside(one: float, other: np.ndarray, r: float) -> np.ndarray:
    return np.sqrt(np.maximum(0.0, one**2 + other**2 - 2 * r * one * other))


def _fitted(
    fit: classifiers.Fitter,
    features: np.ndarray,
    truth: np.ndarray,
    train: np.ndarray,
    validation: np.ndarray,
    test: np.ndarray,
    classes: int,
    seed: int,
) -> np.ndarray:
    examples = classifiers.Examples(features[train], truth[train], features[validation], truth[validation])
    return classifiers.probabilities(fit, examples, features[test], classes, seed)
