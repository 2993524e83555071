"""What the further columns of an index hold: categories, numbers, paths of files, or boxes.

A kind that nobody declared is known by the column's name (`KNOWN`) or not at all; `--by` then goes by the values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from chestxray.data.findings import FINDING
from chestxray.errors import DataError

Kind = Literal["category", "number", "path", "boxes"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Columns whose name says what they hold.
KNOWN: Mapping[str, Kind] = {"mask": "path", "lung_mask": "path", "marker_mask": "path", "boxes": "boxes"}
#: Prefix of the columns with the path of the mask of one finding.
MASK = "mask:"
#: Columns that chestxray itself adds to an index, and their meaning.
RESERVED = frozenset(
    {"width", "height", "mode", "format", "file_hash", "pixel_hash", "unreadable", "brightness", "near_group",
     "near_correlation", "look_alike", "look_alike_correlation", "audit", "external", "key", "opener", "lung_box"}
)  # fmt: skip
#: What `pandas.api.types.infer_dtype` calls columns that can be written as they are.
_PLAIN = frozenset({"string", "integer", "floating", "mixed-integer-float", "boolean", "empty"})
_SIDES = ("x", "y", "width", "height")


def kind_of(column: str, declared: Mapping[str, Kind]) -> Kind | None:
    """Return the kind of a column, None where it is not known.

    >>> kind_of("age", {"age": "number"}), kind_of("mask:mass", {}), kind_of("sex", {})
    ('number', 'path', None)
    """
    return declared.get(column) or KNOWN.get(column) or ("path" if column.startswith(MASK) else None)


def of_kinds(rows: pd.DataFrame, kinds: Mapping[str, Kind], name: str) -> pd.DataFrame:
    """Return the rows with the columns of `kinds` as they are kept: numbers as float64, NaN where there is none; all
    others as text, ``""`` where there is none.

    Raises:
        DataError: no such kind or column; a value that is not of the kind.
    """
    made = {}
    for column, kind in kinds.items():
        if kind not in KINDS or column not in rows:
            raise DataError(
                f"{name} declares the column {column!r} as {kind!r}. Allowed: a column that its rows have, as "
                f"{', '.join(KINDS)}."
            )
        values = rows[column]
        empty = values.isna() | (values.astype(object) == "")
        made[column] = values.astype(object).where(~empty, "")
        if kind != "number" and not _is_text(made[column]):
            raise DataError(_no_text(column, kind, name))
        if kind == "number":
            made[column] = pd.to_numeric(values.where(~empty), errors="coerce").astype(np.float64)
            _require(empty | np.isfinite(made[column]), values, column, "of numbers, has one that is not finite", name)
    return rows.assign(**made)


def check(rows: pd.DataFrame, columns: tuple[str, ...], kinds: Mapping[str, Kind], name: str, task: str) -> None:
    """Check the further columns of an index, those besides `columns`.

    Raises:
        DataError: a column that chestxray itself adds; values of several types in one; a value that is not of the
            column's kind. Whether files exist is not looked at.
    """
    for column in [column for column in rows.columns if column not in columns]:
        if column in RESERVED or (task == "classes" and column.startswith(FINDING)):
            raise DataError(
                f"{name} has a column {column!r}, a name that chestxray gives to columns of its own. Allowed: another "
                "name."
            )
        values, kind = rows[column], kind_of(column, kinds)
        if is_mixed(values):
            found = ", ".join(sorted({type(value).__name__ for value in values.dropna()}))
            raise DataError(
                f"{name} has a column {column!r} that holds {found}. Allowed: text alone, or numbers alone."
            )
        if kind == "number" and not pd.api.types.is_numeric_dtype(values):
            raise DataError(f"{name} has a column {column!r} of numbers that holds text. Allowed: numbers, NaN.")
        if kind not in (None, "number") and not _is_text(values):
            raise DataError(_no_text(column, kind, name))
        if kind == "boxes":
            texts = pd.Series([text for text in values.dropna().unique() if text], dtype=object)
            _require(texts.map(_are_boxes), texts, column, f"of boxes, has a text that is none of {_FORM}", name)


def merged(frames: Sequence[pd.DataFrame], kinds: Sequence[Mapping[str, Kind]]) -> dict[str, Kind]:
    """Return the kinds of the columns of several sets: those on which all agree that have the column."""
    asked = dict.fromkeys(column for declared in kinds for column in declared)
    found = {
        column: {declared.get(column) for rows, declared in zip(frames, kinds, strict=True) if column in rows}
        for column in asked
    }
    return {column: kind for column, (kind, *others) in found.items() if kind is not None and not others}


def as_text(values: pd.Series) -> pd.Series:
    """Return text and numbers, of sets that differ in what a column holds, as text; ``""`` where there is none."""
    return values.map(lambda value: value if isinstance(value, str) else "" if pd.isna(value) else f"{value:g}")


def is_mixed(values: pd.Series) -> bool:
    """Whether a column holds values of several types, or of one that a table cannot hold."""
    return values.dtype == object and pd.api.types.infer_dtype(values, skipna=True) not in _PLAIN


def _is_text(values: pd.Series) -> bool:
    return pd.api.types.infer_dtype(values, skipna=True) in ("string", "empty")


def _no_text(column: str, kind: Kind, name: str) -> str:
    return f'{name} has a column {column!r}, of kind {kind}, that holds no text. Allowed: text, "" for none.'


_FORM = 'a JSON list of {"finding", "x", "y", "width", "height", "of": [width, height] or null}'


def _require(good: pd.Series, values: pd.Series, column: str, what: str, name: str) -> None:
    if not good.all():
        first = str(values[~good.astype(bool)].iloc[0])[:200]
        raise DataError(f"{name}: the column {column!r}, {what}. Received: {first!r}.")


def _are_boxes(text: str) -> bool:
    try:
        boxes = json.loads(text)
    except ValueError:
        return False
    return isinstance(boxes, list) and all(map(_is_box, boxes))


def _is_box(box: Any) -> bool:
    if not isinstance(box, dict) or set(box) != {"finding", "of", *_SIDES} or not isinstance(box["finding"], str):
        return False
    of = [] if box["of"] is None else box["of"]
    numbers = [box[side] for side in _SIDES] + (of if isinstance(of, list) and len(of) in (0, 2) else [None])
    return all(isinstance(n, int | float) and not isinstance(n, bool) and np.isfinite(n) for n in numbers)
