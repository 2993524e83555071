"""Giving the findings of several sets common names, picking and joining findings, and what is left of the rows.

The rules are those of classes (`chestxray.data.label_mapping`), with two differences: a finding that nobody asked for
is left out of what is learnt and needs no word, its images staying; and a finding without a common name keeps its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from chestxray.data import findings
from chestxray.data.boxes import renamed
from chestxray.data.findings import ABSENT, PRESENT, UNCERTAIN, UNKNOWN, Uncertain
from chestxray.data.index import Index, key
from chestxray.data.label_mapping import Naming
from chestxray.errors import DataError, InputError


def harmonise_findings(index: Index, rules: Naming) -> Index:
    """Return the index with the findings that `rules` name, joined where several have one name.

    A joined finding is present if any of its parts is, else uncertain if any is, else not known if any is not.

    Raises:
        DataError: no finding is left.
    """
    names = {finding: finding_name(finding, rules) for finding in index.classes}
    kept = [name for name in dict.fromkeys(names.values()) if name]
    if rules.wanted:
        kept = [name for name in rules.wanted.values() if name in kept]
    # Several spellings may mean one requested finding.
    kept = list(dict.fromkeys(kept))
    if not kept:
        raise DataError(
            f"No finding of {index.name} is left. Its findings: {', '.join(index.classes)}."
            + (f" Asked for: {', '.join(rules.wanted.values())}." if rules.wanted else "")
        )
    states = index.states
    parts = {name: [i for i, old in enumerate(index.classes) if names[old] == name] for name in kept}
    made = {name: joined(states[:, columns]) for name, columns in parts.items()}
    rows = index.rows
    if "boxes" in rows:
        rows = rows.assign(boxes=renamed(rows["boxes"], {old: name or "" for old, name in names.items()}))
    shown = dict(zip(index.classes, (states == PRESENT).sum(axis=0), strict=True))
    left_out = [f"{finding} {int(shown[finding]):,}" for finding, name in names.items() if not name]
    notes = [*index.notes]
    if left_out:
        what = "finding that is" if len(left_out) == 1 else "findings that are"
        notes.append(
            f"{index.name} has {len(left_out)} {what} not asked for, left out here with the number of images that show "
            f"each: {', '.join(left_out)}."
        )
    return with_states(index, rows, made, notes)


def finding_name(finding: str, rules: Naming) -> str | None:
    """Return the name that `rules` give to a finding, its own if they have none, ``""`` or None if it is left out."""
    name = rules.name(finding)
    return finding if name is None and not rules.wanted else name


def asked_by_common_names(rules: Naming) -> Naming:
    """Return the rules with the requested findings known by their common names, too.

    A set that calls Effusion what is asked for as Pleural Effusion has it.
    """
    common = {key(rules.aliases.get(own, name)): name for own, name in rules.wanted.items()}
    return dataclasses.replace(rules, wanted=common | dict(rules.wanted))


def joined(states: np.ndarray) -> np.ndarray:
    """Return the state of a finding of several parts, int8 (rows,). `states`: int8 (rows, parts).

    >>> joined(np.array([[1, -2], [0, -1], [0, -2], [0, 0]], dtype=np.int8)).tolist()
    [1, -1, -2, 0]
    """
    found = np.full(len(states), ABSENT, dtype=np.int8)
    for state in (UNKNOWN, UNCERTAIN, PRESENT):
        found[(states == state).any(axis=1)] = state
    return found


def merged_rows(frames: Sequence[pd.DataFrame], names: Sequence[str]) -> pd.DataFrame:
    """Return the rows of several sets together; what a set does not label of `names` is not known there."""
    columns = findings.columns(names)
    whole = [
        frame.assign(**{column: np.int8(UNKNOWN) for column in columns if column not in frame}) for frame in frames
    ]
    rows = pd.concat(whole, ignore_index=True)
    others = [column for column in rows.columns if column not in columns]
    return rows[[*others, *columns]]


def with_states(index: Index, rows: pd.DataFrame, states: Mapping[str, np.ndarray], notes: Iterable[str]) -> Index:
    """Return the index with these findings in place of its own: name -> states, int8 (rows,)."""
    others = rows.drop(columns=findings.columns(index.classes))
    columns = pd.DataFrame({findings.FINDING + name: column for name, column in states.items()}, index=rows.index)
    label = findings.labels(columns.to_numpy(), list(states))
    own = {name: choice for name, choice in (index.uncertain.own or {}).items() if name in states}
    return dataclasses.replace(
        index,
        rows=pd.concat([others.assign(label=label), columns], axis=1),
        classes=tuple(states),
        notes=tuple(notes),
        uncertain=Uncertain(index.uncertain.general, own),
    )


def with_findings(index: Index, names: Sequence[str]) -> Index:
    """Return the index of findings with exactly the findings `names`, of which those that it lacks are not known.

    Raises:
        DataError: it has none of them.
    """
    if not set(names) & set(index.classes):
        raise DataError(
            f"{index.name} has none of the findings {', '.join(names)}. Found: {', '.join(index.classes)}; "
            "give them the same names (--map FROM=TO)."
        )
    place = {name: number for number, name in enumerate(index.classes)}
    unknown = np.full(len(index), UNKNOWN, dtype=np.int8)
    states = index.states
    made = {name: states[:, place[name]] if name in place else unknown for name in names}
    notes = [*index.notes]
    if stray := [name for name in index.classes if name not in names]:
        notes.append(f"Findings of {index.name} that are not trained: {', '.join(stray)}.")
    if lacking := [name for name in names if name not in place]:
        notes.append(f"Findings that {index.name} does not label: {', '.join(lacking)}.")
    return with_states(index, index.rows, made, notes)


def without_unlabelled(index: Index) -> Index:
    """Return the index without the rows of which no finding is known or uncertain; a note counts them.

    Raises:
        DataError: no row is left.
    """
    known = (index.states != UNKNOWN).any(axis=1)
    if known.all():
        return index
    if not known.any():
        raise DataError(f"Of no image of {index.name} any finding is known.")
    note = (
        f"{int((~known).sum()):,} of {len(index):,} images of {index.name} were left out because none of the findings "
        "is known of them."
    )
    return dataclasses.replace(index.replace(index.rows[known]), notes=(*index.notes, note))


def with_uncertain(index: Index, items: Iterable[str], lacking: Sequence[str] = ()) -> Index:
    """Return the index with the recipe's choices for uncertain findings; a note says how many there are.

    Choices for findings of `lacking` that the index does not have are passed over.

    Raises:
        InputError: no findings but classes; as `Uncertain.parse`.
    """
    items = tuple(items)
    if index.task != "findings":
        if items:
            raise InputError(
                f"uncertain is for data with findings, and {index.name} has one class an image. Of one finding in a "
                "column of 1, 0 and -1 say --data-option uncertain=positive, negative or drop."
            )
        return index
    names = {key(name): name for name in index.classes}
    other = set(map(key, lacking)) - names.keys()
    spelled = [item.rpartition("=") for item in items]
    exact = [f"{names.get(key(name), name)}{sign}{choice}" for name, sign, choice in spelled if key(name) not in other]
    rule = Uncertain.parse(exact, index.classes)
    counts = (index.states == UNCERTAIN).sum(axis=0)
    found = [
        f"{name} {int(count):,} ({rule.of(name)})" for name, count in zip(index.classes, counts, strict=True) if count
    ]
    notes = [*index.notes, *([f"Uncertain labels, and what is done with them: {', '.join(found)}."] if found else [])]
    return dataclasses.replace(index, uncertain=rule, notes=tuple(notes))
