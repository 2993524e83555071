"""Findings in columns of their own: 1 where one is present, 0 where it is absent, -1 where it is uncertain.

So CheXpert, MIMIC-CXR and tables made from NIH's have them, an empty cell standing for a finding that
nobody mentioned. One image has several of them at once, while one class an image is trained here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from chestxray.data.sources.folder import first_few
from chestxray.errors import InputError

_PRESENT, _ABSENT, _UNCERTAIN = 1.0, 0.0, -1.0


def columns(table: pd.DataFrame) -> list[str]:
    """The headings of `table` whose columns hold nothing but 1, 0, -1 and empty cells."""
    return [heading for heading in table if _numbers(table[heading].str.strip()) is not None]


def choose(file: Path, headings: Sequence[str]) -> str:
    """What to say of a table with findings in columns and no column of the class."""
    return (
        f"{file} has no column of the class but {len(headings)} of findings that are present (1), absent (0) or "
        f"uncertain (-1): {first_few(headings, 20)}. One class an image is trained: choose one finding with "
        "--data-option label_column=HEADING, or add a column with one class a row."
    )


def labels(column: pd.Series, finding: str | None, table: str, uncertain: str | None) -> tuple[pd.Series, list[str]]:
    """The classes of a column without empty cells, ``""`` where a row is to be left out, and notes.

    A column of 1 and 0 has the classes FINDING and ``no FINDING``; without the name of a `finding` its
    cells stay as they are. `uncertain` says what -1 means, positive, negative or drop. Any other column
    stays as it is.

    Raises:
        InputError: -1 beside the others and no `uncertain`; an `uncertain` that means nothing here.
    """
    if uncertain not in (None, "positive", "negative", "drop"):
        raise InputError(f"uncertain must be positive, negative or drop. Received: {uncertain!r}.")
    numbers = _numbers(column)
    # Of a column that is called the class, -1 and 1 may be two classes like any others.
    three = numbers is not None and (finding is not None or bool((numbers == _ABSENT).any()))
    unsure = (numbers == _UNCERTAIN) if numbers is not None and three else pd.Series(False, index=column.index)
    count = int(unsure.sum())
    if uncertain is not None and not count:
        raise InputError(f"uncertain is for a class column of 1, 0 and -1, which that of {table} is not.")
    if numbers is None or (finding is None and not count):
        return column, []
    if count and uncertain is None:
        raise InputError(
            f"{count:,} of {len(column):,} rows of {table} are -1, uncertain, in {finding or 'the class'}. Say what "
            "they are: --data-option uncertain=drop (left out), positive or negative."
        )
    notes = []
    if count:
        how = {"drop": "were left out", "positive": "count as 1", "negative": "count as 0"}[str(uncertain)]
        notes.append(
            f"{count:,} of {len(column):,} rows of {table} are uncertain (-1) in {finding or 'the class'} and {how}."
        )
    names = {_PRESENT: "1", _ABSENT: "0"}
    if finding is not None:
        names = {_PRESENT: finding, _ABSENT: f"{'not' if finding.lower().startswith('no ') else 'no'} {finding}"}
        notes.append(f"The classes are {finding} (1 in its column of {table}) and {names[_ABSENT]} (0).")
    names[_UNCERTAIN] = {"positive": names[_PRESENT], "negative": names[_ABSENT]}.get(str(uncertain), "")
    return numbers.map(names), notes


def _numbers(column: pd.Series) -> pd.Series | None:
    """The column as numbers where it holds 1, 0, -1 and empty cells alone, and one of them at least; else None."""
    filled = column[column != ""]
    known = {"1": _PRESENT, "0": _ABSENT, "-1": _UNCERTAIN}
    values = {text: known.get(text.removesuffix(".0")) for text in filled.unique()}
    if not values or None in values.values():
        return None
    return filled.map(values).astype(float)
