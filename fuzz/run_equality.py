"""Compares the folders of two runs of one recipe: what must be the same, and by how much numbers differ."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

#: Files with numbers that must agree. Of them, times are left out.
_JSON = ("metrics.json", "decision.json", "calibration.json", "controls.json", "refusal.json", "audit.json")
_TIMES = ("seconds", "started", "finished", "images_per_second")


@dataclass
class Difference:
    """The largest absolute difference of a number by what it is in; ``other``: what differs but is no number."""

    numbers: dict[str, float] = field(default_factory=dict)
    other: list[str] = field(default_factory=list)

    @property
    def largest(self) -> float:
        """The largest of all."""
        return max(self.numbers.values(), default=0.0)

    def __str__(self) -> str:
        named = [f"{name} by {number:.3g}" for name, number in self.numbers.items() if number]
        return "; ".join([*named, *self.other]) or "equal to the bit"


def differences(first: Path, second: Path) -> Difference:
    """Compare the weights of the model, ``predictions.csv``, ``history.csv`` (but for seconds) and the figures of two
    runs, and the names of their files. Where the images lie does not count.
    """
    found = Difference()
    names = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (first, second)]
    if odd := sorted(names[0] ^ names[1]):
        found.other.append(f"files of one alone: {', '.join(odd)}")
    found.numbers["weights"] = _weights(first, second)
    for name in ("predictions.csv", "history.csv"):
        _tables(name, first, second, found)
    for name in _JSON:
        if (first / name).is_file() and (second / name).is_file():
            apart: list[float] = [0.0]
            contents = [json.loads(_homeless((folder / name).read_text(), folder)) for folder in (first, second)]
            _walk(*contents, name, apart, found.other)
            found.numbers[name] = max(apart)
    return found


def _homeless(text: str, folder: Path) -> str:
    return text.replace(str(folder.parent), "")


def _weights(first: Path, second: Path) -> float:
    arrays = [_arrays(folder / "model.keras") for folder in (first, second)]
    if arrays[0].keys() != arrays[1].keys():
        return np.inf
    return max(_apart(arrays[0][name], arrays[1][name]) for name in arrays[0])


def _arrays(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(note)
    return found


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape:
        return np.inf
    if one.tobytes() == other.tobytes() or not one.size:
        return 0.0
    # Two zeros of different sign, or two kinds of NaN, have different bytes and no difference.
    largest = float(np.max(np.abs(one.astype(np.float64) - other.astype(np.float64)), initial=0.0))
    return largest if np.isfinite(largest) else np.inf


def _tables(name: str, first: Path, second: Path, found: Difference) -> None:
    # As text: pandas' own parser may change the last digit of a number.
    one, other = (
        pd.read_csv(io.StringIO(_homeless((folder / name).read_text(), folder)), dtype=str, keep_default_na=False)
        for folder in (first, second)
    )
    one, other = (table.drop(columns="seconds", errors="ignore") for table in (one, other))
    if one.shape != other.shape or list(one) != list(other):
        found.other.append(f"{name} has other rows or columns")
        return
    found.numbers[name] = 0.0
    for column in one:
        if one[column].equals(other[column]):
            continue
        try:
            apart = _apart(one[column].to_numpy(np.float64), other[column].to_numpy(np.float64))
        except ValueError:
            found.other.append(f"{name} has other words in {column}")
        else:
            found.numbers[name] = max(found.numbers[name], apart)


def _walk(one: Any, other: Any, where: str, apart: list[float], said: list[str]) -> None:
    """Append the differences of two JSON values to `apart` and, where they are no numbers, their places to `said`."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            if key not in _TIMES:
                _walk(one[key], other[key], f"{where}/{key}", apart, said)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            _walk(a, b, f"{where}/{number}", apart, said)
    elif isinstance(one, (int, float)) and isinstance(other, (int, float)):
        apart.append(abs(one - other))
    elif one != other:
        said.append(f"{where}: {str(one)[:60]!r} and {str(other)[:60]!r}")
