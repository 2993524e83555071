"""What the audit looks for in data with findings: labels that contradict each other, and confounding by finding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data import confounding
from chestxray.data.confounding import Confound
from chestxray.data.findings import ABSENT, PRESENT, columns
from chestxray.data.index import Index


def contradictions(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the images whose own labels contradict each other (No Finding beside a finding): path and what."""
    if "contradiction" not in rows:
        return []
    found = rows[rows["contradiction"] != ""]
    return [{"path": path, "labels": what} for path, what in zip(found["path"], found["contradiction"], strict=True)]


def conflicting(
    rows: pd.DataFrame, classes: Sequence[str], groups: Sequence[tuple[str, Sequence[tuple[str, ...]]]]
) -> list[dict[str, Any]]:
    """Return the groups of copies of one image in which a finding is present in one and absent in another.

    What is uncertain or not known conflicts with nothing. `groups`: (kind, groups of paths). The labels of each path
    are the findings in conflict, with their states.
    """
    grouped = {path for _, several in groups for group in several for path in group}
    by_path: dict[str, list[int]] = {}
    for place in np.flatnonzero(rows["path"].isin(grouped)):
        by_path.setdefault(rows["path"].iloc[place], []).append(int(place))
    states = rows[columns(classes)].to_numpy()
    found = []
    for kind, several in groups:
        for group in several:
            of_group = [place for path in group for place in by_path[path]]
            both = (states[of_group] == PRESENT).any(axis=0) & (states[of_group] == ABSENT).any(axis=0)
            if both.any():
                of_path = {path: _in_words(states[by_path[path]], classes, np.flatnonzero(both)) for path in group}
                found.append({"kind": kind, "labels": of_path})
    return found


def _in_words(states: np.ndarray, classes: Sequence[str], which: np.ndarray) -> str:
    said = {PRESENT: "present", ABSENT: "absent"}
    # A file that is given twice has two rows.
    words = [(classes[i], " and ".join(dict.fromkeys(said[s] for s in states[:, i] if s in said))) for i in which]
    return ", ".join(f"{name} {word}" for name, word in words if word) or "not known"


def confounds(index: Index, rows: pd.DataFrame) -> tuple[Confound, ...]:
    """Return the association of each property of the files with each finding, the strongest first.

    One finding is a task of two classes on the rows of `rows` where it is known; Holm's correction is over the
    properties of each finding, and a finding that is always or never present has none.
    """
    found = []
    for name in index.classes:
        one = index.of_finding(name)
        own = one.rows.loc[one.rows.index.intersection(rows.index)]
        found += [
            dataclasses.replace(item, finding=name, sentence=f"{name}: {item.sentence}")
            for item in confounding.confounds(own, one.classes)
        ]
    return tuple(sorted(found, key=lambda item: -item.association))
