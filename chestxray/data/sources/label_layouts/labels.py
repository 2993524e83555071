"""What a layout reads from a table of labels, and the states of findings that cells of text stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from chestxray.data.findings import ABSENT, NO_FINDING, PRESENT, UNCERTAIN, UNKNOWN
from chestxray.data.index import key
from chestxray.data.sources.folder import first_few
from chestxray.errors import DataError, InputError

#: Keys of the labels that say that there is no finding.
NONE = frozenset(map(key, (NO_FINDING, "No findings", "Normal", "None", "No abnormality")))
#: Keys of what a film without findings may show all the same: CheXpert's labeller calls it No Finding with devices.
DEVICES = frozenset({key("Support Devices")})
#: Text of a cell, without ``.0`` -> state.
_STATES = {"1": PRESENT, "0": ABSENT, "-1": UNCERTAIN, "": UNKNOWN}


@dataclass(frozen=True)
class Given:
    """A table as it was read: ``table``, its ``file``, the ``options`` of the source, and ``notes``, which a layout
    adds to.
    """

    table: pd.DataFrame
    file: Path
    options: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Labels:
    """The labels of a table, with a row an image.

    ``table``: the table's own columns, str, and those that a layout made. ``states``: int8, a column a finding, with
    the rows of ``table``. ``headings``: column of the index -> its heading in ``table``, ``""`` if it has none; the
    others are found by their usual headings. ``boxes``: JSON text by row, ``""`` for none, or None. ``contradiction``:
    what contradicts itself in a row's labels, ``""`` for nothing.
    """

    table: pd.DataFrame
    states: pd.DataFrame
    headings: Mapping[str, str] = field(default_factory=dict)
    boxes: pd.Series | None = None
    contradiction: pd.Series | None = None


Reader = Callable[[Given], Labels]


def column(given: Given, *usual: str, option: str = "") -> str:
    """Return the heading of the table that is one of `usual`. Raises `DataError` if there is none."""
    spelled = {key(heading): heading for heading in reversed(list(given.table.columns))}
    for name in usual:
        if key(name) in spelled:
            return spelled[key(name)]
    named = f", or name it with --data-option {option}=HEADING" if option else ""
    raise DataError(
        f"{given.file} is not of this layout: it has no column {' or '.join(usual)}{named}. "
        f"Its headings: {first_few(list(given.table.columns), 50)}."
    )


def states_of_columns(given: Given, headings: Sequence[str]) -> pd.DataFrame:
    """Return the states (rows, headings) of columns of 1, 0, -1 and empty cells, int8.

    Raises:
        DataError: another value; the message names the column.
    """
    found = {}
    for heading in headings:
        codes, texts = pd.factorize(given.table[heading])
        known = [_STATES.get(text.strip().removesuffix(".0")) for text in texts]
        if None in known:
            raise DataError(
                f"The column {heading} of {given.file} is none of a finding: allowed are 1 (present), 0 (absent), -1 "
                f"(uncertain) and empty cells. Received: {texts[known.index(None)]!r}."
            )
        found[heading] = np.array([*known, 0], dtype=np.int8)[codes]
    return pd.DataFrame(found, index=given.table.index)


def states_of_lists(
    lists: pd.Series, parts: Callable[[str], Iterable[str]], always: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.Series]:
    """Return the states (rows, findings) of cells that list the findings that are present, and what contradicts itself.

    Findings are those that any cell lists and `always`, sorted; what a cell does not list is absent, and an empty one
    says nothing of any. `parts` splits a cell. A label of `NONE` is no finding: a cell with one and with a finding
    contradicts itself, and the finding counts. Each text is looked at once, however many rows have it.
    """
    codes, texts = pd.factorize(lists)
    split = [[part.strip() for part in parts(text) if part.strip()] for text in texts]
    spelled = {key(name): name for name in always}
    for name in (part for listed in split for part in listed):
        spelled.setdefault(key(name), name)
    names = sorted(name for own, name in spelled.items() if own not in NONE)
    place = {key(name): number for number, name in enumerate(names)}
    states = np.full((len(texts), len(names)), ABSENT, dtype=np.int8)
    contradiction = np.full(len(texts), "", dtype=object)
    for row, listed in enumerate(split):
        present = [part for part in listed if key(part) not in NONE]
        states[row, [place[key(part)] for part in present]] = PRESENT
        if not listed:
            states[row] = UNKNOWN
        if present and len(present) < len(listed):
            contradiction[row] = contradicting(present)
    frame = pd.DataFrame(states[codes], columns=names, index=lists.index)
    return frame, pd.Series(contradiction[codes], index=lists.index, dtype=object)


def contradicting(present: Sequence[str]) -> str:
    """Return the words for a row labelled as without findings and with those that are `present`."""
    return f"{NO_FINDING} and {', '.join(present)}"


def without_none(states: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Return the states without a column of `NONE`, and what contradicts itself.

    Where that column says that there is no finding, those of which a row says nothing are absent, except `DEVICES`.
    One that is present there all the same contradicts it, and counts.
    """
    none = [name for name in states if key(name) in NONE]
    if not none:
        return states, pd.Series("", index=states.index, dtype=object)
    free = (states[none] == PRESENT).any(axis=1)
    found = states.drop(columns=none)
    own = [name for name in found if key(name) not in DEVICES]
    found[own] = found[own].mask((found[own] == UNKNOWN) & free.to_numpy()[:, None], ABSENT).astype(np.int8)
    present = (found[own] == PRESENT).to_numpy()
    both = free.to_numpy() & present.any(axis=1)
    words = np.full(len(states), "", dtype=object)
    # Each set of findings is put into words once, however many rows have it.
    sets, which = np.unique(present[both], axis=0, return_inverse=True)
    each = [contradicting([name for name, one in zip(own, row, strict=True) if one]) for row in sets]
    words[both] = np.array(each, dtype=object)[which.ravel()] if each else ""
    return found, pd.Series(words, index=states.index, dtype=object)


def blank(states: pd.DataFrame, given: Given) -> pd.DataFrame:
    """Return the states with empty cells as the option ``blank`` says: unknown, the default, or absent.

    Raises:
        InputError: another value.
    """
    asked = given.options.get("blank", "unknown")
    if asked not in ("unknown", "absent"):
        raise InputError(f"blank must be unknown or absent. Received: {asked!r}.")
    if asked == "unknown":
        return states
    count = int((states == UNKNOWN).to_numpy().sum())
    given.notes.append(f"{count:,} empty cells of {given.file.name} count as absent (blank=absent).")
    return states.replace(UNKNOWN, ABSENT)
