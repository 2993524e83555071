"""Compact letter displays: models that share a letter cannot be told apart."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

import numpy as np

#: The available letters. A display that needs more of them, or more for one model, is not compact and is not given.
_LETTERS = string.ascii_letters
_MOST_OF_A_MODEL = 12


def letters(count: int, different: Sequence[tuple[int, int]]) -> list[str]:
    """Return letters for models 0, 1, ...: two models share a letter exactly where they do not differ significantly.

    `different` are the pairs that differ significantly. The display is that of Piepho (2004), found as the edge
    clique cover of the other pairs, by the greedy heuristic of Gramm et al. (2008) in polynomial
    time; insert-and-absorb, Piepho's own algorithm, takes exponential time and needs as many letters. Where more
    than 52 letters are needed, or 12 for one model, every model has the empty string, and `caption` says so; this
    happens only where many pairs contradict the order of the models.

    >>> letters(3, [(0, 2)])
    ['a', 'ab', 'b']
    """
    alike = np.ones((count, count), dtype=bool)
    for i, j in different:
        alike[i, j] = alike[j, i] = False
    groups = _swept(_cliques(alike))
    most = max((sum(i in group for group in groups) for i in range(count)), default=0)
    if len(groups) > len(_LETTERS) or most > _MOST_OF_A_MODEL:
        return [""] * count
    groups.sort(key=sorted)
    return ["".join(_LETTERS[n] for n, g in enumerate(groups) if i in g) for i in range(count)]


def caption(marks: Iterable[str]) -> str:
    """Return the meaning of the letters of all models in a sentence."""
    if any(marks):
        return "Models that share a letter cannot be told apart."
    return "No letters are given, since too many would be needed. The table of pairs shows which models differ."


def _cliques(alike: np.ndarray) -> list[set[int]]:
    """Return cliques of the graph `alike`, bool (models, models), that cover all its edges and vertices."""
    uncovered = alike.copy()
    found = []
    for i, j in np.argwhere(np.triu(alike)):  # a vertex is the edge to itself
        if not uncovered[i, j]:
            continue
        members = [i] if i == j else [i, j]
        while (common := alike[members].all(axis=0) & ~np.isin(np.arange(len(alike)), members)).any():
            # Add the vertex that covers most of the edges that are not covered yet.
            members.append(int(np.where(common, uncovered[members].sum(axis=0), -1).argmax()))
        uncovered[np.ix_(members, members)] = False
        found.append({int(member) for member in members})
    return found


def _swept(groups: list[set[int]]) -> list[set[int]]:
    """Return the groups without those groups and members whose edges others cover (Piepho's sweeping)."""
    shared = np.zeros((1 + max(map(max, groups), default=0),) * 2, dtype=np.int64)
    for group in groups:
        shared[np.ix_(list(group), list(group))] += 1
    kept = []
    for group in sorted(groups, key=len):
        left = list(group)
        for member in sorted(group):
            # The member's edges, and the edge to itself, are in another group.
            if (shared[member, left] > 1).all():
                shared[member, left] -= 1
                shared[left, member] -= 1
                shared[member, member] += 1  # the line above counted it twice
                left.remove(member)
        if left:
            kept.append(set(left))
    return kept
