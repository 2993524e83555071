"""Drawing a proportion of the rows of a table, in whole groups, stratified by class or over findings."""

from __future__ import annotations

import numpy as np
import pandas as pd

from chestxray.data.iterative_stratification import assigned
from chestxray.errors import DataError


def stratified(labels: np.ndarray, codes: np.ndarray, share: float, seed: int, leave: int) -> np.ndarray:
    """Return the positions of about the proportion `share` of the rows, in whole groups, stratified by class.

    Groups are shuffled and taken until the proportion of their class is as close to `share` as whole
    groups allow. A group with several labels counts for the rarest, so that rare classes are drawn too.
    """
    table = pd.DataFrame({"label": labels, "group": codes})
    rarity = table["label"].value_counts(ascending=True)
    rank = {label: place for place, label in enumerate(rarity.index)}
    by_group = table.assign(rank=table["label"].map(rank)).groupby("group")["rank"].agg(["min", "size"])
    order = np.random.default_rng(seed).permutation(len(by_group))
    shuffled = by_group.iloc[order]
    taken: list[int] = []
    for label, place in rank.items():
        if table.loc[table["label"] == label, "group"].nunique() < 2:
            raise DataError(
                f"Class {label!r} has too few patients or distinct images to be split; at least 3 are needed."
            )
        sizes = shuffled.loc[shuffled["min"] == place, "size"]
        if len(sizes) < 2:
            continue  # nearly all of this class is in groups with a rarer one, which were assigned already
        # The smallest of equally close numbers; at least one group is taken and one is left.
        number = int(np.argmin(np.abs(sizes.cumsum().to_numpy() - share * sizes.sum()))) + 1
        taken += sizes.index[: min(number, len(sizes) - 1)].tolist()
    holds = pd.crosstab(table["group"], table["label"]).loc[shuffled.index] > 0
    chosen = holds.index.isin(taken)
    chosen = _with_every_class(chosen, holds.to_numpy(), leave, holds.to_numpy().sum(axis=1))
    return np.flatnonzero(np.isin(codes, holds.index[chosen]))


def _with_every_class(taken: np.ndarray, holds: np.ndarray, leave: int, cost: np.ndarray) -> np.ndarray:
    """Return `taken`, bool (groups,), with groups moved so that every class is on both sides, as far as possible.

    Groups with several labels count for one of them, so that all or none of another class may be taken.
    `holds`, bool (groups, classes), says which classes a group has; the group of the least `cost` (groups,) is moved.
    """
    taken = taken.copy()
    for side, fewest, fewest_there in ((True, 1, leave), (False, leave, 1)):
        for label in range(holds.shape[1]):
            while holds[taken == side, label].sum() < fewest:
                there = holds[taken != side].sum(axis=0)
                # Groups that the other side needs are not moved.
                spared = (~holds | (there > fewest_there)).all(axis=1)
                movable = np.flatnonzero((taken != side) & holds[:, label] & spared)
                if not len(movable):
                    break
                taken[movable[cost[movable].argmin()]] = side
    return taken


def stratified_over_findings(present: np.ndarray, codes: np.ndarray, share: float, seed: int, leave: int) -> np.ndarray:
    """Return the positions of about the proportion `share` of the rows, in whole groups, stratified over the columns
    of `present`, bool (rows, labels).

    The same groups as in `assigned`, but that at least `leave` groups with each label are left and, where there are
    more, at least one is taken, as far as groups with several labels allow.
    """
    _, group = np.unique(codes, return_inverse=True)
    taken = np.zeros(int(group.max()) + 1, dtype=bool)
    taken[group[assigned(present, codes, (share, 1 - share), seed) == 0]] = True
    holds = np.zeros((len(taken), present.shape[1]), dtype=bool)
    row, label = np.nonzero(present)
    holds[group[row], label] = True
    # A label of every group, so that neither side is empty.
    holds = np.concatenate([holds, np.ones((len(taken), 1), dtype=bool)], axis=1)
    # What too few groups have for both sides stays on the side that training is drawn from.
    taken &= ~holds[:, holds.sum(axis=0) <= leave].any(axis=1)
    return np.flatnonzero(_with_every_class(taken, holds, leave, np.bincount(group))[group])
