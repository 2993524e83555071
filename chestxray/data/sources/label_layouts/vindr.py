"""``vindr``: VinDr-CXR (Nguyen 2022), whose training films three radiologists read, each for himself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from chestxray.data.boxes import as_text, box, grouped
from chestxray.data.findings import ABSENT, PRESENT, UNCERTAIN
from chestxray.data.index import key
from chestxray.data.sources.label_layouts.labels import NONE, Given, Labels, column, states_of_columns
from chestxray.data.sources.table import beside, read_table
from chestxray.errors import DataError, InputError

_CORNERS = ["x_min", "y_min", "x_max", "y_max"]


def vindr(given: Given) -> Labels:
    """Read a table of labels (``image_labels_train.csv``: a column a finding) or of boxes (Kaggle's ``train.csv``).

    The option ``readers`` says when several readers have a finding: ``majority``, the default, where more than half
    of them name it, half of them being uncertain; or ``any``. The boxes of all readers are kept: those of the table,
    of the option ``boxes``, or of ``annotations_train`` or ``annotations_test`` beside it.

    Raises:
        InputError: another value of ``readers``.
        DataError: not such a table.
    """
    rule = given.options.get("readers", "majority")
    if rule not in ("majority", "any"):
        raise InputError(f"readers must be majority or any. Received: {rule!r}.")
    images = given.table[column(given, "image_id")]
    reader = given.table["rad_id"] if "rad_id" in given.table else pd.Series("", index=given.table.index)
    if "class_name" in given.table:
        named = given.table["class_name"].str.strip()
    else:
        headings = [name for name in given.table if name not in ("image_id", "rad_id")]
        states = states_of_columns(given, headings)
        which, finding = np.nonzero(states.to_numpy() == PRESENT)
        named = pd.Series(np.array(headings, dtype=object)[finding], index=given.table.index[which])
    names = sorted(name for name in named.unique() if name and key(name) not in NONE)
    if "class_name" not in given.table:
        names = [name for name in headings if key(name) not in NONE]
    if not names:
        raise DataError(f"{given.file} names no finding.")
    codes, order = pd.factorize(images)
    readers = pd.DataFrame({"image": codes, "reader": reader.to_numpy()}).drop_duplicates()["image"].value_counts()
    total = readers.reindex(range(len(order))).to_numpy()[:, None]
    said = pd.DataFrame({"image": pd.Series(codes, index=images.index)[named.index], "reader": reader[named.index]})
    said = said.assign(finding=named.map({name: place for place, name in enumerate(names)})).dropna().drop_duplicates()
    votes = np.zeros((len(order), len(names)), dtype=int)
    np.add.at(votes, (said["image"].to_numpy(), said["finding"].to_numpy(dtype=int)), 1)
    states_of = np.where(votes > 0, PRESENT, ABSENT)
    if rule == "majority":
        states_of = np.where(2 * votes > total, PRESENT, np.where((2 * votes == total), UNCERTAIN, ABSENT))
    if (total > 1).any():
        given.notes.append(
            f"{int((total > 1).sum()):,} of {len(order):,} images have several readers; a finding is present where "
            f"{'more than half of them name it' if rule == 'majority' else 'any of them names it'} (readers={rule})."
        )
    table = given.table.loc[~images.duplicated()].reset_index(drop=True)
    boxes = _boxes(given, table["image_id"])
    return Labels(table, pd.DataFrame(states_of.astype(np.int8), columns=names), {"path": "image_id"}, boxes=boxes)


def _boxes(given: Given, images: pd.Series) -> pd.Series | None:
    table = given.table
    if not set(_CORNERS) <= set(table):
        stem = given.file.name.partition(".")[0].replace("image_labels", "annotations")
        named = given.options.get("boxes")
        file = Path(named) if named else beside(given.file, stem) if stem.startswith("annotations") else None
        if file is None:
            return None
        table, _ = read_table(file)
        if missing := {"image_id", "class_name", *_CORNERS} - set(table):
            raise DataError(f"{file} is no table of boxes: it has no column {min(missing)}.")
    corners = table[_CORNERS].apply(pd.to_numeric, errors="coerce")
    drawn = corners.notna().all(axis=1)
    table, corners = table[drawn], corners[drawn]
    sizes: list[tuple[int, int] | None] = [None] * len(table)
    if {"width", "height"} <= set(table):
        sizes = [(int(float(w)), int(float(h))) for w, h in zip(table["width"], table["height"], strict=True)]
    made = [
        box(name.strip(), (left, top, right - left, bottom - top), size)
        for name, (left, top, right, bottom), size in zip(table["class_name"], corners.to_numpy(), sizes, strict=True)
    ]
    return as_text(grouped(table["image_id"], made), images)
