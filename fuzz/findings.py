"""Tables of findings, each in its layout, with lists of splits, further tables and boxes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from chestxray.data.sources import manifest
from chestxray.plugin import SourceOptions
from fuzz.mutation import mutated

_NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    "a.png,Mass|Effusion,0,1,57,M,PA\nb.png,No Finding,1,1,58,M,AP\nc.png,Hernia|No Finding,0,2,31,F,PA\n"
)
_COLUMNS = "path,X,y,patient,split\na.png,1,0,p1,train\nb.png,-1,,p2,val\nc.png,0,1,p3,test\n"
_JOINED = "path,what,patient\na.png,X;y,p1\nb.png,,p2\nc.png,y,p3\n"
_BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Mass,1,2,3,4\n"
#: A table, and the options that it is read with.
_TABLES: tuple[tuple[str, dict[str, str]], ...] = (
    (_NIH, {"layout": "nih"}),
    (_NIH, {"layout": "nih", "missing": "drop", "split_lists": "none"}),
    (_NIH, {"layout": "nih", "boxes": "boxes.csv"}),
    (_COLUMNS, {"finding_columns": "X,y"}),
    (_COLUMNS, {"finding_columns": "*", "blank": "absent"}),
    (_JOINED, {"findings_column": "what", "separator": ";"}),
)
_FILES = {"boxes.csv": _BOXES, "train_val_list.txt": "a.png\nb.png\n", "test_list.txt": "c.png\n"}


def prepare(folder: Path, _: contextlib.ExitStack) -> Callable[[random.Random], None]:
    """A case that reads one table, of which one or two files are changed."""
    for name in "abc":
        Image.new("L", (8, 6), ord(name)).save(folder / f"{name}.png")
    for name, text in _FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    # What is refused before it is changed would never be looked into.
    for text, extra in _TABLES:
        _read(folder, text.encode(), extra)

    def case(rng: random.Random) -> None:
        text, extra = rng.choice(_TABLES)
        beside = rng.choice((None, None, *_FILES))
        if beside is not None:
            (folder / beside).write_bytes(mutated(rng, _FILES[beside].encode()))
        table = text.encode() if beside is not None and rng.random() < 0.5 else mutated(rng, text.encode())
        try:
            _read(folder, table, extra)
        finally:
            if beside is not None:
                (folder / beside).write_text(_FILES[beside], encoding="utf-8")

    return case


def _read(folder: Path, table: bytes, extra: dict[str, str]) -> None:
    (folder / "table.csv").write_bytes(table)
    index = manifest.load(str(folder / "table.csv"), SourceOptions(cache=folder, extra=extra))
    assert index.task == "findings" and index.targets.shape == (len(index), len(index.classes))
