"""Layouts of one row an image with the findings in text: joined in a cell, or a column each.

``chexpert`` (Irvin 2019), ``mimic`` (MIMIC-CXR-JPG, Johnson 2019), and any other
table whose columns are named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from chestxray.data.findings import SEPARATOR
from chestxray.data.sources import findings
from chestxray.data.sources.folder import first_few
from chestxray.data.sources.label_layouts.labels import (
    Given,
    Labels,
    blank,
    column,
    states_of_columns,
    states_of_lists,
    without_none,
)
from chestxray.data.sources.table import beside, read_table
from chestxray.data.sources.table_columns import heading_of
from chestxray.errors import DataError, InputError

#: The findings of CheXpert's labeller, which labelled MIMIC-CXR too, in the order of the tables.
CHEXPERT = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip


def joined(given: Given) -> Labels:
    """Read the column that the option ``findings_column`` names, whose findings the option ``separator`` is between."""
    heading = heading_of(given.options["findings_column"], given.table, given.file, "findings_column")
    return joined_column(given, heading, given.options.get("separator") or SEPARATOR)


def columns(given: Given) -> Labels:
    """Read the columns that the option ``finding_columns`` names; ``*`` is all of 1, 0, -1 and empty cells.

    Raises:
        InputError: a column that the table does not have, or no column of findings.
        DataError: a column that has other values.
    """
    asked = [name.strip() for name in given.options["finding_columns"].split(",") if name.strip()]
    if asked == ["*"]:
        headings = findings.columns(given.table)
    else:
        headings = [heading_of(name, given.table, given.file, "finding_columns") for name in asked]
    if not headings:
        raise InputError(f"finding_columns names no column of {given.file}. Its headings: "
                         f"{first_few(list(given.table.columns), 50)}.")  # fmt: skip
    return _by_column(given, headings)


def chexpert(given: Given) -> Labels:
    """Read CheXpert's ``train.csv`` or ``valid.csv``: a column a finding; view and patient from their own columns."""
    labels = _by_column(given, _labeller(given))
    table = labels.table
    paths = table[column(given, "Path")]
    frontal = table.get("Frontal/Lateral", pd.Series("", index=table.index)).str.strip()
    view = table.get("AP/PA", pd.Series("", index=table.index)).str.strip()
    made = {
        "patient": paths.str.extract(r"(patient\d+)", expand=False).fillna(""),
        "view": view.where(frontal.str.lower() != "lateral", "LATERAL").where(lambda text: text != "", frontal),
    }
    folders = paths.str.extract(r"(?:^|/)(train|valid|test)/", expand=False).fillna("")
    headings = {"path": column(given, "Path"), "patient": "patient", "split": ""}
    if folders.nunique() > 1:
        # The table of one folder alone says nothing of a split.
        made["split"] = folders
        headings["split"] = "split"
    # Frontal/Lateral and AP/PA are in the view.
    table = table.drop(columns=[name for name in ("Frontal/Lateral", "AP/PA") if name in table])
    return Labels(table.assign(**made), labels.states, headings, contradiction=labels.contradiction)


def mimic(given: Given) -> Labels:
    """Read MIMIC-CXR-JPG's ``mimic-cxr-2.0.0-chexpert``: a row a study, whose images the table of metadata names.

    That and the table of splits are the options ``metadata`` and ``split_table``, else those beside the table. A
    table that names the images itself (``dicom_id``) is read alone.

    Raises:
        DataError: no table of metadata, or none of its images is of a study of the table.
    """
    table = given.table
    if "dicom_id" not in table:
        metadata = _other(given, "metadata")
        if metadata is None:
            raise DataError(
                f"{given.file} has a row a study and does not name its images: the table of metadata does "
                "(mimic-cxr-2.0.0-metadata.csv.gz beside it, or --data-option metadata=PATH)."
            )
        wanted = [name for name in ("dicom_id", "study_id", "ViewPosition") if name in metadata]
        if missing := {"dicom_id", "study_id"} - set(wanted):
            raise DataError(
                f"The table of metadata has no column {min(missing)}, which names the images of {given.file}."
            )
        images = len(metadata)
        table = table.merge(metadata[wanted], on="study_id", how="inner").reset_index(drop=True)
        if table.empty:
            raise DataError(f"No image of the table of metadata is of a study of {given.file}.")
        if len(table) < images:
            given.notes.append(
                f"{images - len(table):,} of {images:,} images of the table of metadata are of studies that "
                f"{given.file.name} does not label and were left out."
            )
    splits = _other(given, "split")
    if splits is not None and "split" not in table:
        table = table.merge(splits[["dicom_id", "split"]], on="dicom_id", how="left").fillna({"split": ""})
    labels = _by_column(Given(table, given.file, given.options, given.notes), _labeller(given))
    headings = {"path": "dicom_id", "patient": "subject_id"}
    found = labels.table
    if {"subject_id", "study_id"} <= set(found):
        # As the set itself names its files; a copy with other folders has them by their names.
        person, study = "p" + found["subject_id"], "s" + found["study_id"]
        files = "files/" + person.str[:3] + "/" + person + "/" + study + "/" + found["dicom_id"] + ".jpg"
        found, headings["path"] = found.assign(file=files), "file"
    return Labels(found, labels.states, headings, contradiction=labels.contradiction)


def _labeller(given: Given) -> list[str]:
    headings = [name for name in CHEXPERT if name in given.table]
    if len(headings) < 2:
        raise DataError(
            f"{given.file} is not of this layout: it has none of CheXpert's columns ({', '.join(CHEXPERT)}). "
            f"Its headings: {first_few(list(given.table.columns), 50)}."
        )
    return headings


def _other(given: Given, kind: str) -> pd.DataFrame | None:
    """Return the table of `kind`, metadata or split, that an option names or that is beside the table of labels."""
    named = given.options.get("metadata" if kind == "metadata" else "split_table")
    file = Path(named) if named else beside(given.file, f"mimic-cxr-2.0.0-{kind}", f"mimic-cxr-2.1.0-{kind}")
    if file is None:
        return None
    found, notes = read_table(file)
    given.notes.extend(notes)
    return found


def joined_column(given: Given, heading: str, separator: str, always: Sequence[str] = ()) -> Labels:
    """Return the labels of a column of joined findings, of which `always` are known although no row has them."""
    split: Callable[[str], list[str]] = lambda text: text.split(separator)  # noqa: E731
    states, contradiction = states_of_lists(given.table[heading], split, always)
    if states.empty or not len(states.columns):
        raise DataError(f"The column {heading} of {given.file} names no finding.")
    return Labels(given.table, states, contradiction=contradiction)


def _by_column(given: Given, headings: list[str]) -> Labels:
    states, contradiction = without_none(states_of_columns(given, headings))
    if not len(states.columns):
        raise DataError(f"The columns {', '.join(headings)} of {given.file} have no finding.")
    return Labels(given.table, blank(states, given), contradiction=contradiction)
