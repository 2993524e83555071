"""Subgroups of a test by a column of the data, such as sex or age: the group of each row."""

from __future__ import annotations

import itertools
import re

import pandas as pd

from chestxray.data import column_kinds
from chestxray.data.index import COLUMNS, Index, column_name, column_of
from chestxray.errors import InputError, nearest

#: Lower ends of the age bands in years, and the largest number that is taken for an age.
AGES = (0, 18, 40, 65)
OLDEST = 120
#: A column of numbers with more values than this is grouped into quartiles.
MOST_VALUES = 12
#: Kinds of columns that group nothing, as they differ from image to image.
NO_GROUPS = ("path", "boxes")
OUT_OF_RANGE = "out of range"
#: Years in a unit of age; DICOM writes 058Y, 011M, 002W, 010D.
_YEARS = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}
_AGE = re.compile(r"(>=?|over )?\s*(-?\d+(?:[.,]\d+)?)\s*(?:([ymwd])[a-z]*\.?)?(?: old)?\s*(\+)?", re.IGNORECASE)


def groups(index: Index, column: str) -> pd.Series:
    """Return the group of each row by a column of the data, ``""`` where it is not known.

    `column` matches a heading in any spelling, and by meaning: ``age`` also finds ``Patient Age``.
    Ages are grouped into bands (see `age_bands`), other numbers with more than `MOST_VALUES` values into quartiles.
    What the source declares to be a category is not grouped further, even if its values are numbers.

    Raises:
        InputError: the data have no such column, or it holds paths or boxes.
    """
    rows = index.rows
    extra = [name for name in rows if name not in (*COLUMNS, "audit", "external") and index.kind(name) not in NO_GROUPS]
    kinds = {name: index.kind(name) for name in rows}
    refused = column_of(column, [name for name, kind in kinds.items() if kind in NO_GROUPS])
    if refused is not None:
        raise InputError(
            f"by must be a column of categories or numbers; {refused} has a {kinds[refused]} for each image. "
            f"Allowed: {', '.join(extra) or 'none here'}. Received: {column!r}."
        )
    found = column_of(column, extra)
    if found is None:
        raise InputError(
            f"by must be a column of the data.{nearest(column, extra)} Allowed: {', '.join(extra) or 'none here'}. "
            f"Received: {column!r}."
        )
    if kinds[found] == "number":
        rows = rows.assign(**{found: column_kinds.as_text(rows[found])})
    values = rows[found].astype(object).where(rows[found].notna(), "").astype(str).str.strip()
    if kinds[found] == "category":
        return values
    if column_name(found) == "age" and (bands := age_bands(values)) is not None:
        return bands
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.nunique() > MOST_VALUES and numbers.notna().sum() >= values.ne("").sum():
        quarters = pd.qcut(numbers, 4, duplicates="drop")
        return (
            quarters.map(lambda q: f"{q.left:g} to {q.right:g}", na_action="ignore")
            .astype(object)
            .fillna("")
            .astype(str)
        )
    return values


def age_bands(values: pd.Series) -> pd.Series | None:
    """Return the band of each age, such as ``18 to 39``; None where most values are not ages but the user's own groups.

    Numbers are years; DICOM's units (``058Y``, ``011M``) are understood, and words (``6 months``). An age with
    only a lower bound (``50+``) has a band where the bound determines it. Impossible ages (below 0, above
    `OLDEST`) are ``out of range``; any other text counts as not known, ``""``.
    """
    bands = values.map({text: _band(text) for text in values.unique()})
    if (bands != "").sum() < (values != "").sum() / 2 or (bands == "").all():
        return None
    return bands


def plain_ages(values: pd.Series) -> pd.Series:
    """Return ages as text with a plain number of years, ``""`` where they are not known or out of range.

    Values that `age_bands` takes for the user's own groups are returned unchanged.
    """
    if age_bands(values) is None:
        return values
    known = {text: _years(text) for text in values.unique()}
    plain = {text: f"{age[0]:g}" for text, age in known.items() if age and 0 <= age[0] <= OLDEST and not age[1]}
    return values.map(lambda text: plain.get(text, ""))


def _band(text: str) -> str:
    found = _years(text)
    if found is None:
        return ""
    years, at_least = found
    if not 0 <= years <= OLDEST:
        return OUT_OF_RANGE
    if at_least and years < AGES[-1]:
        return ""
    lower = [low for low in AGES if low <= years][-1]
    return f"{lower} up" if lower == AGES[-1] else f"{lower} to {dict(itertools.pairwise(AGES))[lower] - 1}"


def _years(text: str) -> tuple[float, bool] | None:
    """Return an age in years and whether it is only a lower bound; None where the text is not an age."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return None
    above, number, unit, more = match.groups()
    return float(number.replace(",", ".")) * _YEARS[(unit or "y").lower()], bool(above or more)
