"""Folds of a cross-validation, in which every row is held out once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from chestxray.data.findings import PRESENT
from chestxray.data.iterative_stratification import assigned, strata
from chestxray.errors import DataError


def fold_of(labels: pd.Series, groups: np.ndarray, folds: int, method: str, seed: int) -> np.ndarray:
    """Return the fold, 0 to ``folds - 1``, in which each row is held out: int64 (rows,).

    `method` is ``random`` (by row), ``stratified`` (by row, stratified by class) or ``grouped`` (by whole
    `groups`, stratified by class as closely as these allow). The folds are those of scikit-learn's
    KFold, StratifiedKFold and StratifiedGroupKFold.

    Raises:
        DataError: a class has fewer rows, or with ``grouped`` fewer groups, than there are folds.
    """
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

    counted = pd.Series(groups).groupby(labels.to_numpy()).nunique() if method == "grouped" else labels.value_counts()
    what = "patients or distinct images" if method == "grouped" else "images"
    for label, count in counted.items():
        if count < folds:
            raise DataError(f"Class {label!r} has {count} {what}, too few for {folds} folds.")
    kinds = {"random": KFold, "stratified": StratifiedKFold, "grouped": StratifiedGroupKFold}
    # Their generators are Mersenne twisters seeded with 32 bits, the same on any platform.
    splitter = kinds[method](n_splits=folds, shuffle=True, random_state=seed % 2**32)
    chosen = np.zeros(len(labels), dtype=np.int64)
    kept_together = groups if method == "grouped" else None  # the others warn about groups
    for number, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels.to_numpy(), kept_together)):
        chosen[held_out] = number
    return chosen


def folds_of_findings(
    states: np.ndarray, names: Sequence[str], sources: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> np.ndarray:
    """Return the fold, 0 to ``folds - 1``, in which each row is held out: int64 (rows,), by whole `groups`.

    The folds are stratified over findings (`chestxray.data.iterative_stratification`): `states` int (rows, findings),
    `names` of the findings, `sources` (rows,). A finding of fewer groups than folds is missing in some of them.

    Raises:
        DataError: fewer groups than folds; a finding that fewer than two groups have, so that none would be left to
            train on when its fold is held out.
    """
    if (count := len(np.unique(groups))) < folds:
        raise DataError(f"There are {count} patients or distinct images, too few for {folds} folds.")
    having = [np.unique(groups[states[:, number] == PRESENT]) for number in range(len(names))]
    if alone := [name for name, own in zip(names, having, strict=True) if len(own) < 2]:
        raise DataError(
            f"Fewer than 2 patients or distinct images have {', '.join(alone)}: in a cross-validation none would be "
            f"left to train on. Allowed: leave it out ({' '.join(f'--drop {name!r}' for name in alone)})."
        )
    chosen = assigned(strata(states, sources), groups, [1 / folds] * folds, seed)
    having = [np.isin(groups, own) for own in having]
    for own in having:
        if _in_one(chosen, own):
            _moved(chosen, own, groups, having, folds)
    return chosen


def _in_one(chosen: np.ndarray, rows: np.ndarray) -> bool:
    held = chosen[rows]
    return bool((held == held[0]).all())


def _moved(chosen: np.ndarray, own: np.ndarray, groups: np.ndarray, having: list[np.ndarray], folds: int) -> None:
    """Move a group of the rows `own`, which are in one fold, to the smallest other one, in place.

    The groups of a rare finding may be in one fold for the sake of others that they have. None is moved where some
    finding, `having` (rows,) each, that is in two folds would be in one.
    """
    before = [_in_one(chosen, rows) for rows in having]
    for fold in np.bincount(chosen, minlength=folds).argsort(kind="stable"):
        for group in np.unique(groups[own]):
            moved = np.where(groups == group, fold, chosen)
            if all(was or not _in_one(moved, rows) for was, rows in zip(before, having, strict=True)) and not _in_one(
                moved, own
            ):
                chosen[:] = moved
                return
