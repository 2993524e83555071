"""What the audit looks for in data with findings: labels that contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data.findings import ABSENT, PRESENT, columns


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
    rows = rows[rows["path"].isin({path for _, several in groups for group in several for path in group})]
    places = pd.Series(np.arange(len(rows)), index=rows["path"].to_numpy())
    by_path = places.groupby(level=0).agg(list).to_dict()
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
