"""Layouts with a row a box or an outline: ``rsna`` (Shih 2019), ``siim`` (2019), ``tbx11k`` (Liu 2020)."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data.boxes import as_text, box, grouped
from chestxray.data.findings import ABSENT, PRESENT, UNCERTAIN, UNKNOWN
from chestxray.data.sources.label_layouts.labels import Given, Labels, column, states_of_columns
from chestxray.data.sources.table import beside, read_table
from chestxray.errors import DataError

#: Width and height of the images on which RSNA's boxes and SIIM's outlines were drawn.
_SIZE = (1024, 1024)
#: An abnormality of another kind than the finding that the set is about.
OTHER = "Other Abnormality"
_OPACITY, _PNEUMOTHORAX = "Lung Opacity", "Pneumothorax"
#: RSNA's class -> whether another abnormality is present. Of films with an opacity nobody said so.
_RSNA_CLASSES = {"Normal": ABSENT, "No Lung Opacity / Not Normal": PRESENT, "Lung Opacity": UNKNOWN}
_TBX11K_TYPES = {"healthy": ABSENT, "sick_but_no_tb": PRESENT, "sick_but_non-tb": PRESENT, "tb": UNKNOWN}


def rsna(given: Given) -> Labels:
    """Read ``stage_2_train_labels``: a row a box; ``Target`` is 1 for a lung opacity that suggests pneumonia.

    The classes, of the option ``metadata`` or ``stage_2_detailed_class_info`` beside the table, tell films without an
    opacity apart: normal, or with another abnormality. Patients are not known: a number of the set is that of a film,
    and its films are of ChestX-ray14, of whose patients it may hold several.
    """
    name = column(given, "patientId")
    image = given.table[name]
    target = states_of_columns(given, [column(given, "Target")]).iloc[:, 0]
    codes, order = pd.factorize(image)
    opacity = _any_present(codes, target.to_numpy())
    states = {_OPACITY: opacity}
    file = Path(given.options["metadata"]) if given.options.get("metadata") else None
    file = file or beside(given.file, "stage_2_detailed_class_info", "detailed_class_info")
    if file is not None:
        classes, _ = read_table(file)
        if missing := {"patientId", "class"} - set(classes):
            raise DataError(f"{file} is no table of RSNA's classes: it has no column {min(missing)}.")
        if odd := set(classes["class"]) - set(_RSNA_CLASSES):
            raise DataError(f"{file} has an unknown class. Allowed: {', '.join(_RSNA_CLASSES)}. Received: {min(odd)}.")
        of_image = classes.drop_duplicates("patientId").set_index("patientId")["class"].map(_RSNA_CLASSES)
        states[OTHER] = of_image.reindex(order).fillna(UNKNOWN).to_numpy(dtype=np.int8)
    sides = given.table[["x", "y", "width", "height"]].apply(pd.to_numeric, errors="coerce").to_numpy()
    boxes = [box(_OPACITY, side, _SIZE) if not np.isnan(side).any() else None for side in sides]
    return _folded(given, name, states, grouped(image, boxes))


def siim(given: Given) -> Labels:
    """Read ``train-rle``: a row an outline of a pneumothorax as run lengths, ``-1`` for none; boxes are around them."""
    name = column(given, "ImageId")
    image = given.table[name].str.strip()
    runs = given.table[column(given, "EncodedPixels")].str.strip()
    none = runs.isin(("-1", ""))
    codes, _ = pd.factorize(image)
    present = _any_present(codes, np.where(none, ABSENT, PRESENT).astype(np.int8))
    boxes = [
        None if free else box(_PNEUMOTHORAX, around(run, _SIZE), _SIZE) for run, free in zip(runs, none, strict=True)
    ]
    return _folded(given, name, {_PNEUMOTHORAX: present}, grouped(image, boxes))


def around(runs: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box (x, y, width, height) around a mask of run lengths of an image of `size` (width, height).

    Pairs of a gap since the last run and the length of a run; pixels go down each column, from the left.

    >>> around("2 3 7 1", (10, 10))
    (0, 2, 2, 3)

    Raises:
        DataError: not pairs of numbers, or more than the image has.
    """
    try:
        numbers = np.array(runs.split(), dtype=np.int64).reshape(-1, 2)
    except ValueError as error:
        raise DataError(f"Run lengths must be pairs of whole numbers. Received: {runs[:60]!r}.") from error
    ends = np.cumsum(numbers.sum(axis=1))
    starts = ends - numbers[:, 1]
    if not len(numbers) or (numbers < 0).any() or ends[-1] > size[0] * size[1]:
        raise DataError(f"Run lengths must lie in an image of {size[0]}x{size[1]} pixels. Received: {runs[:60]!r}.")
    last = ends - 1
    left, right = starts // size[1], last // size[1]
    # A run over the end of a column has its bottom and the top of the next one.
    top = np.where(left == right, starts % size[1], 0)
    bottom = np.where(left == right, last % size[1], size[1] - 1)
    x, y = int(left.min()), int(top.min())
    return x, y, int(right.max()) - x + 1, int(bottom.max()) - y + 1


def tbx11k(given: Given) -> Labels:
    """Read the table of TBX11K's simplified form, ``data.csv``: a row a box, or an image without one.

    Films with tuberculosis are active, latent or both; of those that are sick without tuberculosis another
    abnormality is present, and of films with tuberculosis nobody said whether one is.
    """
    name = column(given, "fname")
    image, kind = given.table[name], given.table[column(given, "image_type")].str.strip()
    if odd := set(kind) - set(_TBX11K_TYPES):
        raise DataError(
            f"{given.file} has an unknown image_type. Allowed: {', '.join(_TBX11K_TYPES)}. Received: {min(odd)}."
        )
    codes, _ = pd.factorize(image)
    tuberculosis = _any_present(codes, np.where(kind == "tb", PRESENT, ABSENT).astype(np.int8))
    sort = given.table[column(given, "tb_type")].str.strip()
    states = {"Tuberculosis": tuberculosis}
    sorts = {"Active Tuberculosis": "active_tb", "Latent Tuberculosis": "latent_tb"}
    known = _any_present(codes, np.where(sort.isin(sorts.values()), PRESENT, ABSENT).astype(np.int8)) == PRESENT
    for finding, own in sorts.items():
        found = _any_present(codes, np.where(sort == own, PRESENT, ABSENT).astype(np.int8))
        states[finding] = np.where((tuberculosis == PRESENT) & ~known, UNCERTAIN, found).astype(np.int8)
    first = ~image.duplicated().to_numpy()
    states[OTHER] = kind[first].map(_TBX11K_TYPES).to_numpy(dtype=np.int8)
    names = {own: finding for finding, own in sorts.items()}
    rows = given.table[["bbox", "image_width", "image_height"]].itertuples(index=False)
    boxes = [_tbx11k_box(names.get(own, "Tuberculosis"), *row) for own, row in zip(sort, rows, strict=True)]
    return _folded(given, name, states, grouped(image, boxes))


def _tbx11k_box(finding: str, text: str, width: str, height: str) -> dict[str, Any] | None:
    if text.strip() in ("", "none"):
        return None
    try:
        found = ast.literal_eval(text)
        sides = [float(found[name]) for name in ("xmin", "ymin", "width", "height")]
        return box(finding, sides, (int(float(width)), int(float(height))))
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise DataError(f"A bbox must name xmin, ymin, width and height. Received: {text[:80]!r}.") from error


def _any_present(codes: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return, by image (`codes`, from 0), the state that counts most: present, else absent, else what there is."""
    found = np.full(codes.max() + 1, UNKNOWN, dtype=np.int8)
    np.maximum.at(found, codes, states)
    return found


def _folded(
    given: Given, name: str, states: dict[str, np.ndarray], boxes: Mapping[str, Sequence[dict[str, Any]]]
) -> Labels:
    """Return the labels with one row an image, the first of the table."""
    table = given.table.loc[~given.table[name].duplicated()].reset_index(drop=True)
    texts = as_text({key: list(some) for key, some in boxes.items()}, table[name].str.strip())
    return Labels(table, pd.DataFrame(states), {"path": name, "patient": "", "split": ""}, boxes=texts)
