"""Scores of a shortcut control: the AUROC learnable from its input, and its share of the model's gain.

*Learnable AUROC.* The control is cross-fitted over all rows of the run: each fifth is predicted by
classifiers fitted on the rest, which uses more rows than the test alone. Only pairs of rows in the same fifth
and on the same side (the test, or the other rows) count, since a model cannot have learnt in training that the
test has another prevalence.

*Share of the gain.* Trained and tested on the same rows as the model, the control reaches a share of what the
model gains over an AUROC of .5. The interval is paired, since both are figures of the same patients: that of
the difference combines the two intervals and their correlation (MOVER; Zou 2007), that of the share is found
from the differences.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chestxray.evaluation.influence import Influence, auroc, correlation, mean
from chestxray.evaluation.intervals import LEVEL, Figure
from chestxray.evaluation.shortcuts import classifiers
from chestxray.evaluation.support import effective

FOLDS = 5
#: Grid of shares for the ends of an interval.
SHARES = np.round(np.arange(0, 3.005, 0.01), 2)
#: Probabilities of controls that were fitted in this process: a control does not see the model, so that the models of
#: a comparison, trained one after the other on the same splits, share it. What goes beyond the bytes is fitted again.
_FITTED: dict[tuple[classifiers.Fitter, bytes], np.ndarray] = {}
_MOST_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Rows:
    """The rows that controls are trained and tested on.

    ``splits``: for each training of the model (one, or one a fold), the split of each row, str (rows,),
    ``""`` for none. ``groups``: rows that must stay in one fold of the cross-fitting; ``clusters``: the patients;
    both codes, int (rows,).
    """

    splits: tuple[np.ndarray, ...]
    groups: np.ndarray
    clusters: np.ndarray

    def of(self, name: str) -> np.ndarray:
        """Return which rows were in the split `name` in any training, bool (rows,)."""
        return np.any([split == name for split in self.splits], axis=0)

    @property
    def side(self) -> np.ndarray:
        """1 for rows that were tested in every training, a separate test set, else 0: int (rows,)."""
        return np.all([split == "test" for split in self.splits], axis=0).astype(np.int64)

    @property
    def part(self) -> np.ndarray:
        """Number of the training that each row was tested in, int (rows,), 0 for none."""
        part = np.zeros(len(self.clusters), dtype=np.int64)
        for number, split in enumerate(self.splits):
            part[split == "test"] = number
        return part


@dataclass(frozen=True)
class Area:
    """An AUROC with its effective number of patients and the patients' codes."""

    influence: Influence
    support: float
    clusters: np.ndarray

    def figure(self, level: float = LEVEL) -> Figure:
        """Return the AUROC with its interval."""
        return self.influence.figure(self.clusters, self.support, level)


def cross_fitted(
    fit: classifiers.Fitter, features: np.ndarray, truth: np.ndarray, classes: int, rows: Rows, seed: int
) -> tuple[Area, ...]:
    """Return the cross-fitted AUROC of each class against the rest; with two classes, of the second alone.

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
    """Return probabilities of the test rows by classifiers fitted on the model's training rows, float (rows, classes).

    Rows that were not tested are 0.
    """
    given = np.zeros((len(truth), classes))
    for split in rows.splits:
        train, validation, test = (split == name for name in ("train", "validation", "test"))
        given[test] = _fitted(fit, features, truth, train, validation, test, classes, seed)
    return given


def deal(truth: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold of each row, int (rows,): whole groups, those of each class dealt to the folds in turn."""
    codes, first = np.unique(groups, return_index=True)
    shuffled = np.random.default_rng(seed).permutation(len(codes))
    order = shuffled[np.argsort(truth[first][shuffled], kind="stable")]
    fold = np.empty(len(codes), dtype=np.int64)
    fold[order] = np.arange(len(codes)) % FOLDS
    return fold[np.searchsorted(codes, groups)]


def areas(given: np.ndarray, truth: np.ndarray, strata: np.ndarray, clusters: np.ndarray) -> tuple[Area, ...]:
    """Return the AUROC of each class against the rest from `given`, float (rows, classes); with two classes, of the
    second alone.
    """
    found = []
    for k in range(given.shape[1]) if given.shape[1] > 2 else (1,):
        own = truth == k
        support = min(effective(clusters[own]), effective(clusters[~own]))
        found.append(Area(auroc(own, given[:, k], strata), support, clusters))
    return tuple(found)


def average(parts: Sequence[Area]) -> Area:
    """Return the mean of the AUROCs of several classes of the same rows, with the support of the rarest."""
    known = [part for part in parts if np.isfinite(part.influence.value)]
    return Area(
        mean([part.influence for part in parts]), min((p.support for p in known), default=0.0), parts[0].clusters
    )


def share(control: Area, model: Area, level: float = LEVEL) -> Figure:
    """Return the share of `model`'s gain over an AUROC of .5 that `control` reaches on the same rows.

    The value is None where the model has no gain; ``low`` is 0 and ``high`` None where there is no bound.
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
    arrays = (features, truth, train, validation, test, np.array([classes, seed]))
    key = (fit, _digest(arrays))
    if key in _FITTED:
        return _FITTED[key]
    examples = classifiers.Examples(features[train], truth[train], features[validation], truth[validation])
    found = classifiers.probabilities(fit, examples, features[test], classes, seed)
    if sum(one.nbytes for one in _FITTED.values()) + found.nbytes <= _MOST_BYTES:
        _FITTED[key] = found
    return found


def _digest(arrays: Sequence[np.ndarray]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
