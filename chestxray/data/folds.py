"""Folds of a cross-validation, in which every row is held out once."""

from __future__ import annotations

import numpy as np
import pandas as pd

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
