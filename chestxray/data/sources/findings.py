"""Tables with one column per finding: 1 if it is present, 0 if absent, -1 if uncertain.

CheXpert, MIMIC-CXR and tables made from NIH's have such columns; an empty cell is a finding that was not
mentioned. Here one of them is read as two classes; `finding_tables` reads several.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from chestxray.data.sources.folder import first_few
from chestxray.errors import InputError

_PRESENT, _ABSENT, _UNCERTAIN = 1.0, 0.0, -1.0


def columns(table: pd.DataFrame) -> list[str]:
    """Return the headings of the columns of `table` that contain only 1, 0, -1 and empty cells."""
    return [heading for heading in table if _numbers(table[heading].str.strip()) is not None]


def choose(file: Path, headings: Sequence[str]) -> str:
    """Return the error message for a table with columns of findings but no column of the class."""
    return (
        f"{file} has no column of the class but {len(headings)} of findings that are present (1), absent (0) or "
        f"uncertain (-1): {first_few(headings, 20)}. Read them all as findings with "
        "--data-option 'finding_columns=*' (or the headings of some), or choose one as two classes with "
        "--data-option label_column=HEADING."
    )


def labels(column: pd.Series, finding: str | None, table: str, uncertain: str | None) -> tuple[pd.Series, list[str]]:
    """Return the classes of a column without empty cells, ``""`` for rows to be left out, and notes.

    A column of 1 and 0 has the classes FINDING and ``no FINDING``; without the name of a `finding` its
    cells are unchanged. `uncertain` says what -1 means: positive, negative or drop. Any other column
    is unchanged.

    Raises:
        InputError: there are -1 besides 0 and 1 but no `uncertain`; an invalid or inapplicable `uncertain`.
    """
    if uncertain not in (None, "positive", "negative", "drop"):
        raise InputError(f"uncertain must be positive, negative or drop. Received: {uncertain!r}.")
    numbers = _numbers(column)
    # In a column whose heading means the class, -1 and 1 alone are two ordinary classes.
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
    """Return the non-empty cells as numbers if they are all 1, 0 or -1 and there is at least one, else None."""
    filled = column[column != ""]
    known = {"1": _PRESENT, "0": _ABSENT, "-1": _UNCERTAIN}
    values = {text: known.get(text.removesuffix(".0")) for text in filled.unique()}
    if not values or None in values.values():
        return None
    return filled.map(values).astype(float)
