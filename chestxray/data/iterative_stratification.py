"""Iterative stratification: dividing images with several findings into subsets of equal make-up, in whole groups.

Sechidis, Tsoumakas and Vlahavas (2011, ECML PKDD) assign the examples of the rarest remaining label first, each to
the subset that still lacks most of that label. Here the examples are groups of images that must stay together, such
as those of one patient, and a group counts with all its images. A few patients may have many of the images of a rare
finding; therefore groups are moved afterwards as long as that brings the subsets nearer to what they are to have.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from chestxray.data.findings import PRESENT

#: Groups are moved until every subset has the images of each label that it is to have, but for this proportion or
#: this number, and at most so many.
_NEAR, _NEAR_IMAGES, _MOST_MOVES = 0.05, 2, 200
#: Weight of a deviation in the number of groups, beside one in the number of images.
_GROUPS = 0.5


def assigned(present: np.ndarray, groups: np.ndarray, proportions: Sequence[float], seed: int) -> np.ndarray:
    """Return the subset of each image, 0 to ``len(proportions) - 1``: int64 (images,).

    `present`: whether each image has each label, bool (images, labels). `groups`: codes (images,) of what stays
    together. `proportions`: the share of the images, and of those with each label, that each subset is to have; they
    sum to 1. The result depends on the arguments alone.

    Groups are taken in random order, not the largest first: the subset that lacks most gets those, so that a small
    subset would have few groups with many images.
    """
    _, group = np.unique(groups, return_inverse=True)
    labels, counts = _by_group(present, group)
    size = np.bincount(group).tolist()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(size))
    # Ties are resolved by one number for each group, drawn beforehand: faster than a draw at each tie.
    chances = rng.random(len(size)).tolist()
    left = present.sum(axis=0).tolist()
    wanted = [[share * count for share in proportions] for count in left]
    wanted_images = [share * len(group) for share in proportions]
    chosen = [-1] * len(size)

    def give(member: int, wishes: Sequence[float]) -> None:
        subset = _neediest(wishes, wanted_images, chances[member])
        chosen[member] = subset
        wanted_images[subset] -= size[member]
        for label, count in zip(labels[member], counts[member], strict=True):
            wanted[label][subset] -= count
            left[label] -= count

    having: list[list[int]] = [[] for _ in left]
    for member in order.tolist():
        for label in labels[member]:
            having[label].append(member)
    while rarest := min(((count, label) for label, count in enumerate(left) if count), default=None):
        label = rarest[1]
        for member in having[label]:
            if chosen[member] < 0:
                give(member, wanted[label])
    for member in order.tolist():
        if chosen[member] < 0:
            give(member, wanted_images)
    return _refined(np.array(chosen, dtype=np.int64), present, group, proportions)[group]


def _refined(chosen: np.ndarray, present: np.ndarray, group: np.ndarray, proportions: Sequence[float]) -> np.ndarray:
    """Return the subset of each group, (groups,), after moves of single groups from `chosen`, the best one first.

    What is brought near to the proportions, by least squares, are the images, those with each label, the groups and
    those with each label: the precision of figures depends on the number of patients more than on that of images.
    """
    labels = np.concatenate([present, np.ones((len(group), 1), dtype=bool)], axis=1)
    labels = labels[:, labels.any(axis=0)]
    share, total = np.array(proportions)[:, None], labels.sum(axis=0)
    near = np.maximum(_NEAR * share * total, _NEAR_IMAGES)
    has = np.stack([labels[chosen[group] == subset].sum(axis=0) for subset in range(len(share))])
    if (np.abs(has - share * total) <= near).all():
        return chosen
    images = np.zeros((len(chosen), labels.shape[1]))
    np.add.at(images, group, labels)
    mean = images.mean(axis=0)
    groups = images > 0
    # Scaled to a mean of 1, so that rounding makes ties of what differs by the order of a sum only.
    amounts = np.concatenate([images / mean, _GROUPS * groups / groups.mean(axis=0)], axis=1)
    weight = np.where(np.arange(amounts.shape[1]) < len(mean), 1, _GROUPS)
    excess = np.stack([amounts[chosen == subset].sum(axis=0) for subset in range(len(share))])
    excess -= share * weight * len(chosen)
    pull, square = amounts @ excess.T, (amounts**2).sum(axis=1)
    rows, chosen = np.arange(len(chosen)), chosen.copy()
    for _ in range(_MOST_MOVES):
        if (np.abs(excess[:, : len(mean)]) <= near / mean).all():
            break
        gain = pull + (square - pull[rows, chosen])[:, None]
        gain[rows, chosen] = 0
        moved, after = np.unravel_index(np.round(gain, 6, out=gain).argmin(), gain.shape)
        if gain[moved, after] >= 0:
            break
        product = amounts @ amounts[moved]
        for subset, sign in ((chosen[moved], -1), (after, 1)):
            excess[subset] += sign * amounts[moved]
            pull[:, subset] += sign * product
        chosen[moved] = after
    return chosen


def _by_group(present: np.ndarray, group: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
    """Return the labels that each group has, and in how many of its images each of them is present."""
    from scipy.sparse import coo_matrix

    image, label = np.nonzero(present)
    shape = (int(group.max()) + 1, present.shape[1])
    table = coo_matrix((np.ones(len(image), dtype=np.int64), (group[image], label)), shape=shape).tocsr()
    bounds = table.indptr.tolist()
    labels, counts = table.indices.tolist(), table.data.tolist()
    spans = list(itertools.pairwise(bounds))
    return [labels[a:b] for a, b in spans], [counts[a:b] for a, b in spans]


def _neediest(wishes: Sequence[float], wanted_images: Sequence[float], chance: float) -> int:
    """Return the subset that lacks most of a label, of several such the one that lacks most images, else any."""
    most = max(wishes)
    tied = [subset for subset, wish in enumerate(wishes) if wish == most]
    if len(tied) > 1:
        most = max(wanted_images[subset] for subset in tied)
        tied = [subset for subset in tied if wanted_images[subset] == most]
    return tied[int(chance * len(tied))]


def strata(states: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Return what images are stratified by: bool (images, labels).

    These are the findings that are present in `states`, int (images, findings), and of several `sources` (images,)
    each: what a source does not label is not known there, so that a finding is known in equal shares if its sources
    are in equal shares. Uncertain findings count for nothing, whatever the run does with them: the same split serves
    all choices.
    """
    names = np.unique(sources)
    from_source = sources[:, None] == names[None, :] if len(names) > 1 else np.zeros((len(sources), 0), dtype=bool)
    return np.concatenate([states == PRESENT, from_source], axis=1)
