"""Boxes of findings: JSON text by image, ``[{"finding", "x", "y", "width", "height", "of": [width, height]}]``.

Numbers are pixels from the upper left corner of the image that readers drew on, whose size is ``of``; it is null
where that is the image file itself. An image that was made smaller keeps the numbers: divide by ``of``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd


def box(finding: str, sides: Iterable[float], of: tuple[int, int] | None) -> dict[str, Any]:
    """Return one box; `sides`: x, y, width, height."""
    x, y, width, height = (round(float(side), 2) for side in sides)
    return {"finding": finding, "x": x, "y": y, "width": width, "height": height, "of": list(of) if of else None}


def as_text(boxes: Mapping[str, list[dict[str, Any]]], names: pd.Series) -> pd.Series:
    """Return the boxes of each of `names` as JSON, ``""`` for those without one."""
    texts = {name: json.dumps(some) for name, some in boxes.items() if some}
    return names.map(texts).fillna("").astype(object)


def grouped(names: pd.Series, boxes: Iterable[dict[str, Any] | None]) -> dict[str, list[dict[str, Any]]]:
    """Return the boxes by the name of the image; None is none."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, one in zip(names, boxes, strict=True):
        if one is not None:
            found.setdefault(name, []).append(one)
    return found


def renamed(texts: pd.Series, names: Mapping[str, str]) -> pd.Series:
    """Return the JSON texts with the findings of boxes under other names, ``""`` being a finding that is left out."""

    def one(text: str) -> str:
        boxes = [item | {"finding": names.get(item["finding"], item["finding"])} for item in json.loads(text)]
        kept = [item for item in boxes if item["finding"]]
        return json.dumps(kept) if kept else ""

    return texts.map({text: one(text) for text in texts.unique() if text} | {"": ""})
