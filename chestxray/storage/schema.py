"""Validation of JSON files against a schema, once, when they are read.

A schema (`form`) is a Python type: ``float``, ``str | None``, ``list[str]``, ``dict[str, float]``, a
`TypedDict`, a `Literal`, or ``Annotated[float, Within(0, 1)]``. Keys that a `TypedDict` does not name are
kept unchecked, so that files of a later version can be read.
"""

from __future__ import annotations

import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from chestxray.errors import DataError

#: Maximum size of a JSON file in bytes: the largest, an audit of a million images, has about a tenth of it.
LARGEST = 2**28
#: Maximum length of a class name in characters; messages and pages repeat it.
LONGEST_NAME = 300


@dataclass(frozen=True)
class Within:
    """The allowed range of a number, from ``low`` to ``high``, both included."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"at least {self.low:g}" if self.high == math.inf else f"from {self.low:g} to {self.high:g}"


#: A probability or a proportion.
Share = Annotated[float, Within(0, 1)]
Count = Annotated[int, Within(0, 2**53)]


def parsed(text: str | bytes) -> Any:
    """Return the value of the JSON in `text`. Raises ValueError, with a readable message, if it is not JSON."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read(path: Path, form: Any = Any) -> Any:
    """Return the content of a JSON file that conforms to `form`.

    Raises:
        DataError: it cannot be read, is not JSON, or does not conform; the message says where in the file, what
            is allowed and what was received.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        return conform(parsed(text), form)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, MemoryError) as error:
        raise DataError(f"{path} is damaged: {str(error).rstrip('.') or 'it takes too much memory'}.") from error


def conform(value: Any, form: Any, where: str = "") -> Any:
    """Return the JSON `value` if it conforms to `form`, with whole numbers converted to floats where `form` has floats.

    Raises:
        ValueError: it does not conform; the message names the place in the file, below `where`.

    >>> conform({"a": 1}, dict[str, float])
    {'a': 1.0}
    >>> conform({"a": [0.2, "x"]}, dict[str, list[Share]])
    Traceback (most recent call last):
    ...
    ValueError: a.1 must be a number. Received: 'x'
    """
    origin = typing.get_origin(form)
    if form is Any:
        return value
    if form is None or form is types.NoneType:
        return value if value is None else _refuse(where, "null", value)
    if origin in (types.UnionType, typing.Union):
        return _one_of(value, typing.get_args(form), where)
    if origin is Literal:
        allowed = typing.get_args(form)
        known = isinstance(value, type(allowed[0])) and value in allowed
        return value if known else _refuse(where, f"one of {', '.join(map(str, allowed))}", value)
    if origin is Annotated:
        kind, limits = typing.get_args(form)
        found = conform(value, kind, where)
        return found if limits.low <= found <= limits.high else _refuse(where, f"a number {limits}", value)
    if origin is list:
        (kind,) = typing.get_args(form)
        items = value if isinstance(value, list) else _refuse(where, "a list", value)
        return [conform(item, kind, inside(where, number)) for number, item in enumerate(items)]
    if origin is dict:
        _, kind = typing.get_args(form)
        return {_text(name, where): conform(item, kind, inside(where, name)) for name, item in _mapping(value, where)}
    if typing.is_typeddict(form):
        return _fields(value, form, where)
    return _plain(value, form, where)


def _fields(value: Any, form: Any, where: str) -> dict[str, Any]:
    given, (kinds, required) = dict(_mapping(value, where)), _keys(form)
    if missing := sorted(required - given.keys()):
        raise ValueError(f"{inside(where, missing[0])} is missing")
    return {name: conform(item, kinds.get(name, Any), inside(where, name)) for name, item in given.items()}


@functools.cache
def _keys(form: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the type of each key of a `TypedDict`, and the required keys."""
    # Its own __required_keys__ are wrong if annotations are strings, as with `from __future__ import annotations`.
    hints = typing.get_type_hints(form, include_extras=True)
    optional = {name for name, hint in hints.items() if typing.get_origin(hint) is NotRequired}
    kinds = {name: typing.get_args(hint)[0] if name in optional else hint for name, hint in hints.items()}
    return kinds, frozenset(hints.keys() - optional if form.__total__ else ())


def _one_of(value: Any, forms: tuple[Any, ...], where: str) -> Any:
    """Return None if `value` is None and None is allowed, else `value` checked against the only other form."""
    if value is None and types.NoneType in forms:
        return None
    (form,) = (form for form in forms if form is not types.NoneType)
    return conform(value, form, where)


def _plain(value: Any, kind: type, where: str) -> Any:
    if kind is str:
        return _text(value, where)
    if kind is bool:
        return value if isinstance(value, bool) else _refuse(where, "true or false", value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return value if number and isinstance(value, int) else _refuse(where, "a whole number", value)
    assert kind is float, f"no form of JSON: {kind}"
    try:
        found = float(value) if number else math.nan
    except OverflowError:
        found = math.inf
    return found if math.isfinite(found) else _refuse(where, "a finite number" if number else "a number", value)


def _text(value: Any, where: str) -> str:
    """Return `value` if it is text without null bytes and lone surrogates, which files and tables cannot hold."""
    if not isinstance(value, str):
        return _refuse(where, "text", value)
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        return _refuse(where, "text without null bytes and lone surrogates", value)
    return value


def _mapping(value: Any, where: str) -> Any:
    return value.items() if isinstance(value, Mapping) else _refuse(where, "a table of names and values", value)


def inside(where: str, name: str | int) -> str:
    """Return the place `name` within `where`, on one line and short."""
    shown = str(name)[:40]
    shown = shown if shown.isprintable() else ascii(shown)
    return f"{where}.{shown}" if where else shown


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a valid JSON number")


def _refuse(where: str, allowed: str, value: Any) -> Any:
    try:
        shown = ascii(value) if isinstance(value, str) else repr(value)
    except (RecursionError, ValueError):  # an integer of too many digits
        shown = f"a value of kind {type(value).__name__}"
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    raise ValueError(f"{where or 'the whole'} must be {allowed}. Received: {shown}")
