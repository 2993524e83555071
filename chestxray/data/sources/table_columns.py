"""The columns of a table with a row an image: headings, rows to use, further columns, patients and splits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from chestxray.data.index import COLUMNS, column_of, key
from chestxray.data.sources.folder import SPLIT_NAMES, compiled, expanded, first_few, patient_of
from chestxray.errors import DataError, InputError, nearest
from chestxray.plugin import SourceOptions
from chestxray.storage.files import refusal

#: Column -> its headings in public data sets, in any spelling; the first one found is used.
HEADINGS = {
    "path": ("path", "file", "file name", "file path", "image", "image path", "image index", "image name", "image id"),
    "label": ("label", "class", "finding", "diagnosis", "target", "finding labels"),
    "patient": ("patient", "patient id", "subject", "subject id"),
    "split": ("split", "set", "subset", "fold"),
}
#: Further columns that are kept if they exist; others might identify a patient.
KEPT = ("sex", "age", "view", "site", "mask", "lung_mask")


def named_columns(
    table: pd.DataFrame, file: Path, options: SourceOptions, notes: list[str], own: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the heading in the table of each column of the index that it has.

    An option ``NAME_column`` comes first (empty: there is none), then `own`, headings that a layout prescribes, then
    the usual `HEADINGS`. Numbers are no names of splits, which `notes` then say.

    Raises:
        InputError: an option names a heading that the table does not have.
    """
    spelled = {key(heading): heading for heading in reversed(list(table.columns))}
    found = {}
    for name, usual in HEADINGS.items():
        asked = options.extra.get(f"{name}_column", (own or {}).get(name))
        if asked:
            found[name] = heading_of(asked, table, file, f"{name}_column")
        elif asked is None and (heading := next((spelled[key(text)] for text in usual if key(text) in spelled), None)):
            found[name] = heading
    if "split" in found and "split_column" not in options.extra and is_no_split(table[found["split"]]):
        notes.append(
            f"The column {found['split']} of {file.name} holds numbers and no names of splits: it was not read as an "
            "official split."
        )
        del found["split"]
    return found


def root_of(file: Path, root: str | None) -> Path:
    """Return the folder that the paths of the table `file` are relative to. Raises `InputError` if there is none."""
    base = file.parent / expanded(root) if root else file.parent
    if refusal(base) or not base.is_dir():
        beside = file.parent / os.path.relpath(base)
        hint = f" There is one beside the manifest: --data-option root={beside}." if os.path.isdir(beside) else ""  # noqa: PTH112
        raise InputError(f"No folder {base} (root, which the paths of {file} are relative to).{hint}")
    return base


def set_name(file: Path) -> str:
    """Return the name of the data set whose table is `file`."""
    stem = file.name.partition(".")[0] if file.name.lower().endswith(".gz") else file.stem
    return file.parent.name if stem == "metadata" else stem


def is_no_split(column: pd.Series) -> bool:
    """Return whether a column whose heading means the split contains numbers, such as those of folds."""
    values = column[column.str.strip() != ""]
    return bool(len(values)) and bool(pd.to_numeric(values, errors="coerce").notna().all())


def heading_of(asked: str, table: pd.DataFrame, file: Path, option: str) -> str:
    """Return the heading of `table` that `asked` means. Raises `InputError` if there is none."""
    if heading := column_of(asked, table.columns):
        return heading
    known = list(table.columns)
    raise InputError(
        f"{file} has no column {asked!r} ({option}).{nearest(asked, known)} Its headings: {first_few(known, 50)}."
    )


def filtered(table: pd.DataFrame, file: Path, where: str, notes: list[str]) -> pd.DataFrame:
    """Return the rows that satisfy every condition of `where`, COLUMN=VALUE|VALUE;...; notes count the others.

    Raises:
        InputError: a condition of another form, or on a column that the table does not have.
        DataError: no row satisfies a condition.
    """
    for condition in filter(None, (part.strip() for part in where.split(";"))):
        # A heading may contain an equals sign.
        cuts = [i for i, sign in enumerate(condition) if sign == "="]
        if not cuts:
            raise InputError(f"where must be COLUMN=VALUE or COLUMN=VALUE|VALUE. Received: {condition!r}.")
        cut = next((i for i in reversed(cuts) if condition[:i].strip() in table), cuts[0])
        column, values = heading_of(condition[:cut], table, file, "where"), condition[cut + 1 :]
        allowed = {value.strip().lower() for value in values.split("|")}
        keep = table[column].str.strip().str.lower().isin(allowed)
        if not keep.any():
            found = ", ".join(sorted(table[column].unique())[:10])
            raise DataError(f"No row of {file} has {condition} (where). Found: {found}.")
        if left_out := int((~keep).sum()):
            notes.append(f"{left_out:,} of {len(table):,} rows of {file.name} were left out by where {condition}.")
        table = table[keep]
    return table


def kept_headings(table: pd.DataFrame, file: Path, options: SourceOptions, used: Iterable[str]) -> list[str]:
    """Return the headings of the further columns to keep."""
    others = [heading for heading in table.columns if heading not in set(used)]
    keep = options.extra.get("keep")
    if keep is None:
        found = [heading for name in KEPT if (heading := column_of(name, others))]
    else:
        asked = [name for name in (part.strip() for part in keep.split(",")) if name]
        if clash := [name for name in asked if name.lower() in COLUMNS]:
            raise InputError(f"keep is for further columns. Received: {', '.join(clash)}.")
        found = [heading_of(name, table, file, "keep") for name in asked]
    return [*found, *(heading for name in options.by if (heading := column_of(name, others)))]


def with_patients(rows: pd.DataFrame, pattern: str | None) -> pd.DataFrame:
    """Return the rows with the patient that `pattern` finds in the patient column, or without one in ``inner``."""
    expression: re.Pattern[str] | None = compiled("patient pattern", pattern)
    if expression is None:
        return rows
    where = rows["patient"] if "patient" in rows else rows["inner"]
    return rows.assign(patient=[patient_of(text, expression) for text in where])


def with_splits(rows: pd.DataFrame, file: Path, heading: str) -> pd.DataFrame:
    """Return the rows with the names of `SPLIT_NAMES` in ``split``, if there is such a column.

    Raises:
        DataError: another name of a split, or rows without one beside rows with one.
    """
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


def check_files(rows: pd.DataFrame, file: Path) -> None:
    """Raise `DataError` if no file exists, as with a wrong root. Single missing files are reported by decoding."""
    if not any(os.path.isfile(path) for path in rows["path"]):  # noqa: PTH113 - Path.is_file raises some refusals
        raise DataError(
            f"None of the {len(rows):,} files of {file} exists, such as {rows['path'].iloc[0]}. "
            "Say what the paths are relative to with --data-option root=DIR."
        )
