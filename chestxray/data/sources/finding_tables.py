"""Tables that say of each image which of several findings it shows, for `manifest:`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from chestxray.data import findings
from chestxray.data.index import Index, column_name, key
from chestxray.data.sources.file_names import find_files
from chestxray.data.sources.folder import SPLIT_NAMES
from chestxray.data.sources.label_layouts import LAYOUTS, Given, Labels, Reader
from chestxray.data.sources.label_layouts import plain as plain_layouts
from chestxray.data.sources.table import read_table
from chestxray.data.sources.table_columns import (
    check_files,
    filtered,
    kept_headings,
    named_columns,
    root_of,
    set_name,
    with_patients,
    with_splits,
)
from chestxray.errors import DataError, InputError, first_line, nearest
from chestxray.plugin import SourceOptions

#: The options of which one makes a table one of findings.
ASKING = ("layout", "findings_column", "finding_columns")
OPTIONS = {
    "layout": f"layout of a table of findings: {', '.join(LAYOUTS)}",
    "findings_column": "heading of the findings that are present, joined in a cell",
    "separator": f"what is between joined findings; default: {findings.SEPARATOR}",
    "finding_columns": "headings of columns of a finding each (1, 0, -1, empty), separated by commas; *: all such",
    "blank": "what an empty cell in a column of a finding means: unknown (default) or absent",
    "readers": "when several readers have a finding (vindr): majority (default) or any",
    "also": "further tables of the same layout, separated by commas, relative to the first",
    "missing": "drop: rows whose file is not below the root are left out and counted; default: they are unreadable",
    "boxes": "table of boxes; default: the set's own beside the table",
    "metadata": "table of the images of each study (mimic), the classes (rsna); default: beside the table",
    "split_table": "table of the split of each image (mimic); default: the set's own beside the table",
    "split_lists": "folder of the official lists (train_val_list.txt, test_list.txt); default: beside the table or in "
    "the root; none: they are not used",
}
#: Options that only some ways to read a table have -> their layouts, or the option that asks for them.
_ONLY = {
    "separator": ("findings_column",),
    "blank": ("finding_columns", "chexpert", "mimic"),
    "readers": ("vindr",),
    "boxes": ("nih", "vindr"),
    "metadata": ("mimic", "rsna"),
    "split_table": ("mimic",),
}
PATH_OPTIONS = ("boxes", "metadata", "split_table")
#: Names of official lists, without suffix, in lower case -> their split.
_LISTS = {
    f"{start}{name}{end}": split
    for name, split in (SPLIT_NAMES | {"train_val": "train", "trainval": "train"}).items()
    for start in ("", "tbx11k_")
    for end in ("", "_list")
}


def wanted(options: SourceOptions) -> bool:
    """Return whether the options ask for findings.

    Raises:
        InputError: an option of tables of findings, without one of `ASKING`.
    """
    if any(options.extra.get(name) for name in ASKING):
        return True
    if stray := [name for name in OPTIONS if name in options.extra]:
        raise InputError(
            f"{stray[0]} is for tables of findings: say how they are read with {', '.join(ASKING[:-1])} or "
            f"{ASKING[-1]}."
        )
    return False


def load(file: Path, options: SourceOptions) -> Index:
    """Return the index of findings of a table with a row, or several, an image.

    Files are found below the option ``root`` (default: the folder of the table) by their names, in any depth.

    Raises:
        InputError: more than one way to read the table, or an option that is for tables of classes.
        DataError: not a table, or none of the layout; files of one name; none of the files exists; lists of splits
            that do not name every image.
    """
    extra = options.extra
    reader = _reader(options)
    table, notes = _tables(file, extra)
    table = filtered(table, file, extra.get("where", ""), notes)
    labels = reader(Given(table, file, extra, notes))
    columns = named_columns(labels.table, file, options, notes, labels.headings)
    if "path" not in columns:
        raise InputError(f"{file} has no column of the path. Name one with --data-option path_column=HEADING.")
    rows = _rows(labels, columns, file, options)
    base = root_of(file, extra.get("root"))
    rows = _with_files(rows, base, file, extra.get("missing", ""), notes)
    rows = with_patients(rows, options.patient_pattern)
    rows = _with_lists(rows, base, file, extra.get("split_lists", ""))
    rows = with_splits(rows, file, columns.get("split", ""))
    check_files(rows, file)
    if "contradiction" in rows:
        count = int((rows["contradiction"] != "").sum())
        many = f"{count:,} of {len(rows):,} rows of {file.name}"
        notes.append(f"{many} say {findings.NO_FINDING} beside a finding; the finding counts.")
    return Index.from_findings(
        rows.drop(columns="inner"), list(labels.states.columns), name=set_name(file), notes=notes
    )


def _reader(options: SourceOptions) -> Reader:
    extra = options.extra
    asked = [name for name in ASKING if extra.get(name)]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)} each say how findings are read: one of them is allowed.")
    if options.label_pattern or "label_column" in extra:
        raise InputError(f"label_pattern and label_column are for tables of classes, {asked[0]} for those of findings.")
    if "uncertain" in extra:
        raise InputError(
            "The option uncertain is for one finding in a column of classes; with several findings say "
            "--uncertain ignore, positive, negative or soft, or --uncertain FINDING=CHOICE."
        )
    way = extra["layout"] if asked[0] == "layout" else asked[0]
    if way in LAYOUTS or asked[0] != "layout":
        for name, ways in _ONLY.items():
            if name in extra and way not in ways:
                raise InputError(f"The option {name} is for {', '.join(ways)}. Received with it: {way}.")
    if asked[0] == "layout":
        if extra["layout"] not in LAYOUTS:
            raise InputError(
                f"Unknown layout {extra['layout']!r}.{nearest(extra['layout'], LAYOUTS)} Allowed: {', '.join(LAYOUTS)}."
            )
        return LAYOUTS[extra["layout"]]
    return plain_layouts.joined if asked[0] == "findings_column" else plain_layouts.columns


def _tables(file: Path, extra: Mapping[str, str]) -> tuple[pd.DataFrame, list[str]]:
    table, notes = read_table(file)
    for name in filter(None, (part.strip() for part in extra.get("also", "").split(","))):
        more, said = read_table(file.parent / name)
        if set(more) != set(table):
            raise DataError(f"{file.parent / name} (also) has other columns than {file}.")
        table = pd.concat([table, more], ignore_index=True)
        notes += said
    return table, notes


def _rows(labels: Labels, columns: dict[str, str], file: Path, options: SourceOptions) -> pd.DataFrame:
    """Return the rows with the columns of an index, the states of findings and the further columns to keep."""
    table = labels.table
    made = {name: table[heading].str.strip() for name, heading in columns.items() if name != "label"}
    kept = kept_headings(table.drop(columns=[n for n in labels.states if n in table]), file, options, columns.values())
    for heading in kept:
        made.setdefault(column_name(heading), table[heading].str.strip())
    texts = {"boxes": labels.boxes, "contradiction": labels.contradiction}
    made |= {name: text for name, text in texts.items() if text is not None and (text != "").any()}
    states = labels.states.set_axis(findings.columns(labels.states), axis=1)
    return pd.concat([pd.DataFrame(made, index=table.index), states], axis=1)


def _with_files(rows: pd.DataFrame, base: Path, file: Path, missing: str, notes: list[str]) -> pd.DataFrame:
    """Return the rows with absolute paths in ``path`` and those of the table, for patterns, in ``inner``."""
    if missing not in ("", "drop"):
        raise InputError(f"missing must be drop, or left out. Received: {missing!r}.")
    if without := int((rows["path"] == "").sum()):
        raise DataError(f"{without} rows of {file} have no path.")
    paths = find_files(base, rows["path"])
    absent = paths == ""
    rows = rows.assign(inner=rows["path"], path=paths.where(~absent, f"{base}{os.sep}" + rows["path"]))
    if missing and absent.all():
        raise DataError(
            f"None of the {len(rows):,} files of {file} is below {base}. Say where: --data-option root=DIR."
        )
    if missing and absent.any():
        notes.append(
            f"{int(absent.sum()):,} of {len(rows):,} rows of {file.name} were left out because their file is not "
            "there (missing=drop)."
        )
        rows = rows[~absent]
    if (twice := rows["path"].duplicated()).any():
        raise DataError(
            f"{int(twice.sum()):,} rows of {file} name a file a second time, such as {rows['path'][twice].iloc[0]}."
        )
    for column in ("mask", "lung_mask"):
        if column in rows:
            text = rows[column]
            rows[column] = (f"{base}{os.sep}" + text).where(text != "", "")
    return rows


def _with_lists(rows: pd.DataFrame, base: Path, file: Path, folder: str) -> pd.DataFrame:
    """Return the rows with the splits of the official lists, if there are any."""
    if folder == "none":
        return rows
    places = [file.parent / folder] if folder else dict.fromkeys((file.parent, base))
    found: dict[Path, str] = {}
    for place in places:
        texts = sorted(place.glob("*.txt")) if place.is_dir() else []
        found = found or {path: _LISTS[path.stem.lower()] for path in texts if path.stem.lower() in _LISTS}
    if not found:
        if folder:
            raise InputError(
                f"No list of a split in {folder!r} (split_lists). Looked for: {', '.join(sorted(_LISTS))}."
            )
        return rows
    split_of: dict[str, str] = {}
    # The list of a split of its own comes after that of training and validation together.
    for path, split in sorted(found.items(), key=lambda item: not key(item[0].stem).startswith("trainval")):
        try:
            names = path.read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read as a list of file names: {first_line(error)}.") from error
        split_of |= dict.fromkeys((_bare(name) for name in names), split)
    splits = rows["inner"].map(_bare).map(split_of)
    if (none := splits.isna()).any():
        raise DataError(
            f"{int(none.sum()):,} of {len(rows):,} rows of {file} are in none of the lists "
            f"{', '.join(sorted(path.name for path in found))}, such as {rows['inner'][none].iloc[0]}. Allowed: lists "
            "that name every image, or none of them (--data-option split_lists=none)."
        )
    return rows.assign(split=splits)


def _bare(name: str) -> str:
    """Return the name of a file without folders and suffix."""
    return os.path.splitext(name.replace("\\", "/").rpartition("/")[2])[0]  # noqa: PTH122
