"""``nih``: ChestX-ray14 (Wang 2017), findings joined in a cell and a list of boxes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from chestxray.data.boxes import as_text, box, grouped
from chestxray.data.findings import SEPARATOR
from chestxray.data.sources.label_layouts.labels import Given, Labels, column
from chestxray.data.sources.label_layouts.plain import joined_column
from chestxray.data.sources.table import beside, read_table
from chestxray.errors import DataError

#: What the set labels: a part of it in which one never occurs still says that it is absent.
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
#: Width and height of the images of ChestX-ray14, on which its boxes were drawn.
SIZE = (1024, 1024)
#: Names in ``BBox_List_2017`` -> in the table of labels.
_NIH_NAMES = {"Infiltrate": "Infiltration"}


def nih(given: Given) -> Labels:
    """Read ChestX-ray14's ``Data_Entry_2017``: findings joined by ``|``, boxes in a table of their own.

    The boxes are those of the option ``boxes``, else of ``BBox_List_2017`` beside the table.
    """
    labels = joined_column(given, column(given, "Finding Labels"), SEPARATOR, FINDINGS)
    named = given.options.get("boxes")
    file = Path(named) if named else beside(given.file, "BBox_List_2017")
    if file is None:
        return labels
    names = given.table[column(given, "Image Index")]
    return Labels(labels.table, labels.states, boxes=listed_boxes(file, names), contradiction=labels.contradiction)


def listed_boxes(file: Path, names: pd.Series) -> pd.Series:
    """Return, for the images `names`, the boxes of ChestX-ray14's ``BBox_List_2017``.

    Raises:
        DataError: not such a table.
    """
    table, _ = read_table(file)
    if len(table.columns) < 6:
        raise DataError(
            f"{file} is no list of boxes: it needs the columns image, finding, x, y, width, height. "
            f"Received: {', '.join(table.columns)}."
        )
    # The list's heading is one name, with commas in it, for four columns.
    table = table.iloc[:, :6].set_axis(["image", "finding", "x", "y", "width", "height"], axis=1)
    sides = table[["x", "y", "width", "height"]].apply(pd.to_numeric, errors="coerce")
    if sides.isna().to_numpy().any():
        raise DataError(f"{file} is no list of boxes: x, y, width and height must be numbers.")
    finding = table["finding"].str.strip().replace(_NIH_NAMES)
    boxes = (box(name, values, SIZE) for name, values in zip(finding, sides.to_numpy(), strict=True))
    return as_text(grouped(table["image"].str.strip(), boxes), names)
