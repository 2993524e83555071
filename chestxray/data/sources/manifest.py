"""`manifest:PATH`: a table with one row per image, as CSV in any variant or as an Excel file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from chestxray.data.images.reading import SUFFIXES
from chestxray.data.index import COLUMNS, Index, column_name, column_of, key
from chestxray.data.sources import findings
from chestxray.data.sources.folder import SPLIT_NAMES, compiled, expanded, first_few, label_of, patient_of
from chestxray.data.sources.table import read_table
from chestxray.errors import DataError, InputError, nearest
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.storage.files import ABSENT, refusal

#: Column -> its headings in public data sets, in any spelling; the first one found is used.
HEADINGS = {
    "path": ("path", "file", "file name", "file path", "image", "image path", "image index", "image name", "image id"),
    "label": ("label", "class", "finding", "diagnosis", "target", "finding labels"),
    "patient": ("patient", "patient id", "subject", "subject id"),
    "split": ("split", "set", "subset", "fold"),
}
#: Further columns that are kept if they exist; others might identify a patient.
KEPT = ("sex", "age", "view", "site", "mask", "lung_mask")

OPTIONS = {
    "path_column": "heading of the image's path, or of its name without suffix",
    "label_column": "heading of the class, or of a finding that is 1, 0 or -1",
    "patient_column": "heading of the patient; empty: none",
    "split_column": "heading of the split; empty: none",
    "uncertain": "what -1 means in a column of a finding: positive, negative, or drop (leave these rows out)",
    "root": "folder that the paths are relative to; default: the manifest's own",
    "where": "rows to use, as COLUMN=VALUE or COLUMN=VALUE|VALUE, several separated by ;",
    "keep": "further columns to keep, separated by commas; default: " + ", ".join(KEPT),
}


def load(address: str, options: SourceOptions) -> Index:
    """Return an index of the rows of a table that have a class; a note counts the others.

    Paths are relative to the folder of the manifest, or to the option ``root``. A path without a suffix
    means the file of that name with the suffix of an image. A patient pattern is searched in the patient
    column, or in the path if there is no such column. Of the further columns, those in the option ``keep``
    (default: `KEPT`) and those that `options.by` names are kept.

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
    table, notes = read_table(file)
    columns = _columns(table, file, options, notes)
    table = _filtered(table, file, options.extra.get("where", ""), notes)
    rows = pd.DataFrame({name: table[heading].str.strip() for name, heading in columns.items()}, index=table.index)
    for name in _kept(table, file, options, columns.values()):
        if column_name(name) not in rows:
            rows[column_name(name)] = table[name].str.strip()
    rows = _paths(rows, file, options.extra.get("root"))
    rows = _labelled(rows, columns.get("label", ""), file, options, notes)
    rows = _with_patients(rows, options.patient_pattern)
    rows = _with_splits(rows, file, columns.get("split", ""))
    _check_files(rows, file)
    records = rows.drop(columns="inner").to_dict("records")
    stem = file.name.partition(".")[0] if file.name.lower().endswith(".gz") else file.stem
    return Index.from_records(records, name=file.parent.name if stem == "metadata" else stem, notes=notes)


def _columns(table: pd.DataFrame, file: Path, options: SourceOptions, notes: list[str]) -> dict[str, str]:
    """Return the heading in the table for each column of the index."""
    spelled = {key(heading): heading for heading in reversed(list(table.columns))}
    found = {}
    for name, usual in HEADINGS.items():
        asked = options.extra.get(f"{name}_column")
        if asked:
            found[name] = _heading(asked, table, file, f"{name}_column")
        elif asked is None and (heading := next((spelled[key(text)] for text in usual if key(text) in spelled), None)):
            found[name] = heading
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
    if "split" in found and "split_column" not in options.extra and _is_no_split(table[found["split"]]):
        notes.append(
            f"The column {found['split']} of {file.name} holds numbers and no names of splits: it was not read as an "
            "official split."
        )
        del found["split"]
    return found


def _is_no_split(column: pd.Series) -> bool:
    """Return whether a column whose heading means the split contains numbers, such as those of folds."""
    values = column[column.str.strip() != ""]
    return bool(len(values)) and bool(pd.to_numeric(values, errors="coerce").notna().all())


def _heading(asked: str, table: pd.DataFrame, file: Path, option: str) -> str:
    if heading := column_of(asked, table.columns):
        return heading
    known = list(table.columns)
    raise InputError(
        f"{file} has no column {asked!r} ({option}).{nearest(asked, known)} Its headings: {first_few(known, 50)}."
    )


def _filtered(table: pd.DataFrame, file: Path, where: str, notes: list[str]) -> pd.DataFrame:
    for condition in filter(None, (part.strip() for part in where.split(";"))):
        # A heading may contain an equals sign.
        cuts = [i for i, sign in enumerate(condition) if sign == "="]
        if not cuts:
            raise InputError(f"where must be COLUMN=VALUE or COLUMN=VALUE|VALUE. Received: {condition!r}.")
        cut = next((i for i in reversed(cuts) if condition[:i].strip() in table), cuts[0])
        column, values = _heading(condition[:cut], table, file, "where"), condition[cut + 1 :]
        allowed = {value.strip().lower() for value in values.split("|")}
        keep = table[column].str.strip().str.lower().isin(allowed)
        if not keep.any():
            found = ", ".join(sorted(table[column].unique())[:10])
            raise DataError(f"No row of {file} has {condition} (where). Found: {found}.")
        if left_out := int((~keep).sum()):
            notes.append(f"{left_out:,} of {len(table):,} rows of {file.name} were left out by where {condition}.")
        table = table[keep]
    return table


def _kept(table: pd.DataFrame, file: Path, options: SourceOptions, used: Iterable[str]) -> list[str]:
    """Return the headings of the further columns to keep."""
    others = [heading for heading in table.columns if heading not in set(used)]
    keep = options.extra.get("keep")
    if keep is None:
        found = [heading for name in KEPT if (heading := column_of(name, others))]
    else:
        asked = [name for name in (part.strip() for part in keep.split(",")) if name]
        if clash := [name for name in asked if name.lower() in COLUMNS]:
            raise InputError(f"keep is for further columns. Received: {', '.join(clash)}.")
        found = [_heading(name, table, file, "keep") for name in asked]
    return [*found, *(heading for name in options.by if (heading := column_of(name, others)))]


def _paths(rows: pd.DataFrame, file: Path, root: str | None) -> pd.DataFrame:
    """Return the rows with absolute paths in ``path`` and the paths of the table, for patterns, in ``inner``."""
    base = file.parent / expanded(root) if root else file.parent
    if refusal(base) or not base.is_dir():
        beside = file.parent / os.path.relpath(base)
        hint = f" There is one beside the manifest: --data-option root={beside}." if os.path.isdir(beside) else ""  # noqa: PTH112
        raise InputError(f"No folder {base} (root, which the paths of {file} are relative to).{hint}")
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


def _with_patients(rows: pd.DataFrame, pattern: str | None) -> pd.DataFrame:
    expression: re.Pattern[str] | None = compiled("patient pattern", pattern)
    if expression is None:
        return rows
    where = rows["patient"] if "patient" in rows else rows["inner"]
    return rows.assign(patient=[patient_of(text, expression) for text in where])


def _with_splits(rows: pd.DataFrame, file: Path, heading: str) -> pd.DataFrame:
    if "split" not in rows:
        return rows
    splits = rows["split"].str.lower()
    if odd := sorted(set(splits) - {*SPLIT_NAMES, ""}):
        raise DataError(
            f"{file} has unknown splits in its column {heading}. Allowed: {', '.join(SPLIT_NAMES)}; or none of it, "
            f"--data-option split_column= (empty). Received: {first_few(odd, 10)}."
        )
    if (splits == "").any() and (splits != "").any():
        raise DataError(
            f"{int((splits == '').sum())} of {len(rows)} rows of {file} have no split, the others have one."
        )
    return rows.assign(split=splits.replace(SPLIT_NAMES))


def _check_files(rows: pd.DataFrame, file: Path) -> None:
    """Raise `DataError` if no file exists, as with a wrong root. Single missing files are reported by decoding."""
    if not any(os.path.isfile(path) for path in rows["path"]):  # noqa: PTH113 - Path.is_file raises some refusals
        raise DataError(
            f"None of the {len(rows):,} files of {file} exists, such as {rows['path'].iloc[0]}. "
            "Say what the paths are relative to with --data-option root=DIR."
        )


plugin = SourcePlugin(
    load=load,
    address_help="PATH of a table (CSV) with columns path and label",
    options=OPTIONS,
    path_options=("root",),
)
