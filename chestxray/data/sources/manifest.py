"""`manifest:PATH`: a table with one row per image, as CSV in any variant or as an Excel file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from chestxray.data.images.reading import SUFFIXES
from chestxray.data.index import Index, column_name, key
from chestxray.data.sources import finding_tables, findings
from chestxray.data.sources.folder import compiled, expanded, first_few, label_of
from chestxray.data.sources.table import read_table
from chestxray.data.sources.table_columns import (
    HEADINGS,
    KEPT,
    check_files,
    filtered,
    kept_headings,
    named_columns,
    root_of,
    set_name,
    with_patients,
    with_splits,
)
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.storage.files import ABSENT, refusal

OPTIONS = {
    "path_column": "heading of the image's path, or of its name without suffix",
    "label_column": "heading of the class, or of a finding that is 1, 0 or -1",
    "patient_column": "heading of the patient; empty: none",
    "split_column": "heading of the split; empty: none",
    "uncertain": "what -1 means in a column of a finding: positive, negative, or drop (leave these rows out)",
    "root": "folder that the paths are relative to; default: the manifest's own",
    "where": "rows to use, as COLUMN=VALUE or COLUMN=VALUE|VALUE, several separated by ;",
    **finding_tables.OPTIONS,
    "keep": "further columns to keep, separated by commas; default: " + ", ".join(KEPT),
}


def load(address: str, options: SourceOptions) -> Index:
    """Return an index of the rows of a table that have a class; a note counts the others.

    Paths are relative to the folder of the manifest, or to the option ``root``. A path without a suffix
    means the file of that name with the suffix of an image. A patient pattern is searched in the patient
    column, or in the path if there is no such column. Of the further columns, those in the option ``keep``
    (default: `KEPT`) and those that `options.by` names are kept. With an option of `finding_tables.ASKING`, the
    index is one of findings.

    Raises:
        InputError: no such file; a column or an option that does not exist; one column per finding, none
            of which was chosen.
        DataError: not a table, an unknown split, no row with a class, none of the files exists.
    """
    file = expanded(address).absolute()
    reason = refusal(file)
    if not address or reason or not file.is_file():
        explanation = "" if reason in ("", *ABSENT) else f" ({reason})"
        raise InputError(
            f"No manifest {address!r}{explanation}. manifest:PATH must name a table (CSV) with a row an image."
        )
    if finding_tables.wanted(options):
        return finding_tables.load(file, options)
    table, notes = read_table(file)
    columns = _columns(table, file, options, notes)
    table = filtered(table, file, options.extra.get("where", ""), notes)
    rows = pd.DataFrame({name: table[heading].str.strip() for name, heading in columns.items()}, index=table.index)
    for name in kept_headings(table, file, options, columns.values()):
        if column_name(name) not in rows:
            rows[column_name(name)] = table[name].str.strip()
    rows = _paths(rows, file, options.extra.get("root"))
    rows = _labelled(rows, columns.get("label", ""), file, options, notes)
    rows = with_patients(rows, options.patient_pattern)
    rows = with_splits(rows, file, columns.get("split", ""))
    check_files(rows, file)
    records = rows.drop(columns="inner").to_dict("records")
    return Index.from_records(records, name=set_name(file), notes=notes)


def _columns(table: pd.DataFrame, file: Path, options: SourceOptions, notes: list[str]) -> dict[str, str]:
    """Return the heading in the table for each column of the index."""
    found = named_columns(table, file, options, notes)
    needed = {"path": "path_column"} if options.label_pattern else {"path": "path_column", "label": "label_column"}
    for name, option in needed.items():
        if name not in found:
            several = findings.columns(table.drop(columns=list(found.values()))) if name == "label" else []
            if len(several) > 1:
                raise InputError(findings.choose(file, several))
            raise InputError(
                f"{file} has no column of the {name}. Name one with --data-option {option}=HEADING. "
                f"Its headings: {first_few(list(table.columns), 50)}."
            )
    return found


def _paths(rows: pd.DataFrame, file: Path, root: str | None) -> pd.DataFrame:
    """Return the rows with absolute paths in ``path`` and the paths of the table, for patterns, in ``inner``."""
    base = root_of(file, root)
    if missing := int((rows["path"] == "").sum()):
        raise DataError(f"{missing} rows of {file} have no path.")
    bare: dict[str, dict[str, str]] = {}
    whole = []
    for text in rows["path"]:
        path = base / text
        if path.suffix.lower() not in SUFFIXES:
            folder = str(path.parent)
            if folder not in bare:
                bare[folder] = _by_stem(path.parent)
            path = Path(bare[folder].get(path.name, str(path)))
        whole.append(str(path))
    rows = rows.assign(inner=rows["path"], path=whole)
    for column in ("mask", "lung_mask"):
        if column in rows:
            rows[column] = [str(base / text) if text else "" for text in rows[column].str.strip()]
    if (twice := rows["path"].duplicated()).any():
        raise DataError(
            f"{int(twice.sum())} rows of {file} name a file a second time, such as {rows['path'][twice].iloc[0]}."
        )
    return rows


def _by_stem(folder: Path) -> dict[str, str]:
    try:
        files = sorted(folder.iterdir())
    except OSError:
        # Then the files in it cannot be read either, and decoding reports the reason.
        return {}
    return {file.stem: str(file) for file in files if file.suffix.lower() in SUFFIXES}


def _labelled(rows: pd.DataFrame, heading: str, file: Path, options: SourceOptions, notes: list[str]) -> pd.DataFrame:
    if pattern := compiled("label pattern", options.label_pattern):
        return rows.assign(label=[label_of(inner, pattern) for inner in rows["inner"]])
    without = rows["label"] == ""
    if without.all():
        raise DataError(f"No row of {file} has a class.")
    if without.any():
        notes.append(f"{int(without.sum()):,} of {len(rows):,} rows of {file.name} have no class and were left out.")
    rows = rows[~without]
    own_name = None if key(heading) in map(key, HEADINGS["label"]) else heading
    labels, said = findings.labels(rows["label"], own_name, file.name, options.extra.get("uncertain"))
    notes += said
    rows = rows.assign(label=labels)
    return rows[rows["label"] != ""]


plugin = SourcePlugin(
    load=load,
    address_help="PATH of a table (CSV) with columns path and label",
    options=OPTIONS,
    path_options=("root", *finding_tables.PATH_OPTIONS),
)
