"""`manifest:PATH.csv`: a table with a row an image, as CSV or (`.tsv`) with tabs."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import pandas as pd

from chestxray.errors import DataError, InputError, nearest
from chestxray.images import SUFFIXES
from chestxray.index import COLUMNS, Index
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.sources.folder import SPLIT_NAMES, compiled, label_of, patient_of

#: Column -> headings that it goes by in public sets, without regard to case; the first one found.
HEADINGS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "image index"),
    "label": ("label", "class", "finding", "diagnosis", "target", "finding labels"),
    "patient": ("patient", "patientid", "patient_id", "patient id", "subject", "subject_id"),
    "split": ("split", "set", "subset", "fold"),
}
#: Further columns that are kept where they exist; anything else may identify a patient.
KEPT = ("sex", "age", "view", "site", "mask", "lung_mask")

OPTIONS = {
    "path_column": "heading of the image's path, or of its name without suffix",
    "label_column": "heading of the class",
    "patient_column": "heading of the patient",
    "split_column": "heading of the split",
    "root": "folder that the paths are relative to; default: the manifest's own",
    "where": "rows to use, as COLUMN=VALUE or COLUMN=VALUE|VALUE, several separated by ;",
    "keep": "further columns to keep, separated by commas; default: " + ", ".join(KEPT),
}


def load(address: str, options: SourceOptions) -> Index:
    """Index the rows of a table that have a class; the others are counted and noted.

    Paths are relative to the manifest, or to the option ``root``. A path without a suffix stands
    for the file of that name with an image's suffix. With a patient pattern, the patient is what
    it finds in the patient column, or in the path where there is no such column.

    Raises:
        InputError: no such file; a column or an option that does not exist.
        DataError: not a table, an unknown split, no row with a class, none of the files exists.
    """
    file = Path(address).expanduser().absolute()
    if not address or not file.is_file():
        raise InputError(f"No manifest {address!r}. manifest:PATH.csv must name a CSV file with a row an image.")
    notes: list[str] = []
    table = _table(file, notes)
    columns = _columns(table, file, options)
    table = _filtered(table, file, options.extra.get("where", ""), notes)
    rows = pd.DataFrame({name: table[heading].str.strip() for name, heading in columns.items()}, index=table.index)
    for name in _kept(table, file, options.extra.get("keep")):
        rows[name.strip().lower().replace(" ", "_")] = table[name]
    rows = _paths(rows, file, options.extra.get("root"))
    rows = _labelled(rows, file, options, notes)
    rows = _with_patients(rows, options.patient_pattern)
    rows = _with_splits(rows, file)
    _check_files(rows, file)
    records = rows.drop(columns="inner").to_dict("records")
    return Index.from_records(records, name=file.parent.name if file.stem == "metadata" else file.stem, notes=notes)


def _table(file: Path, notes: list[str]) -> pd.DataFrame:
    content = file.read_bytes()
    encoding = "utf-8-sig"
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        # What spreadsheets write where nobody told them otherwise; every byte means something in it.
        encoding = "latin-1"
        notes.append(f"{file.name} is not UTF-8 and was read as Latin-1.")
    try:
        with warnings.catch_warnings():
            # pandas cuts rows that are too long and only warns.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.BytesIO(content),
                sep="\t" if file.suffix.lower() == ".tsv" else ",",
                dtype=str,
                keep_default_na=False,
                encoding=encoding,
                index_col=False,
            )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning, ValueError) as error:
        raise DataError(f"{file} is no table that can be read: {error}".replace("\n", " ")) from error
    if table.empty:
        raise DataError(f"{file} has no rows.")
    # A short row ends in missing values whatever keep_default_na says.
    return table.fillna("")


def _columns(table: pd.DataFrame, file: Path, options: SourceOptions) -> dict[str, str]:
    """Column of the index -> heading in the table."""
    by_case = {heading.strip().lower(): heading for heading in reversed(list(table.columns))}
    found = {}
    for name, usual in HEADINGS.items():
        asked = options.extra.get(f"{name}_column")
        if asked is not None:
            found[name] = _heading(asked, by_case, file, f"{name}_column")
        elif heading := next((by_case[text] for text in usual if text in by_case), None):
            found[name] = heading
    needed = {"path": "path_column"} if options.label_pattern else {"path": "path_column", "label": "label_column"}
    for name, option in needed.items():
        if name not in found:
            raise InputError(
                f"{file} has no column of the {name}. Name one with --data-option {option}=HEADING. "
                f"Its headings: {', '.join(table.columns)}."
            )
    return found


def _heading(asked: str, by_case: dict[str, str], file: Path, option: str) -> str:
    if asked.strip().lower() in by_case:
        return by_case[asked.strip().lower()]
    known = list(by_case.values())
    raise InputError(
        f"{file} has no column {asked!r} ({option}).{nearest(asked, known)} Its headings: {', '.join(known)}."
    )


def _filtered(table: pd.DataFrame, file: Path, where: str, notes: list[str]) -> pd.DataFrame:
    for condition in filter(None, (part.strip() for part in where.split(";"))):
        heading, sign, values = condition.partition("=")
        if not sign:
            raise InputError(f"where must be COLUMN=VALUE or COLUMN=VALUE|VALUE. Received: {condition!r}.")
        column = _heading(heading, {name.strip().lower(): name for name in table.columns}, file, "where")
        allowed = {value.strip().lower() for value in values.split("|")}
        keep = table[column].str.strip().str.lower().isin(allowed)
        if not keep.any():
            found = ", ".join(sorted(table[column].unique())[:10])
            raise DataError(f"No row of {file} has {condition} (where). Found: {found}.")
        if left_out := int((~keep).sum()):
            notes.append(f"{left_out:,} of {len(table):,} rows of {file.name} were left out by where {condition}.")
        table = table[keep]
    return table


def _kept(table: pd.DataFrame, file: Path, keep: str | None) -> list[str]:
    by_case = {heading.strip().lower(): heading for heading in table.columns}
    if keep is None:
        return [by_case[name] for name in KEPT if name in by_case]
    asked = [name for name in (part.strip() for part in keep.split(",")) if name]
    if clash := [name for name in asked if name.lower() in COLUMNS]:
        raise InputError(f"keep is for further columns. Received: {', '.join(clash)}.")
    return [_heading(name, by_case, file, "keep") for name in asked]


def _paths(rows: pd.DataFrame, file: Path, root: str | None) -> pd.DataFrame:
    """`path` made absolute; `inner` is what the table said, for patterns."""
    base = file.parent / Path(root).expanduser() if root else file.parent
    if not base.is_dir():
        raise InputError(f"No folder {base} (root, which the paths of {file} are relative to).")
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
    if not folder.is_dir():
        return {}
    return {file.stem: str(file) for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES}


def _labelled(rows: pd.DataFrame, file: Path, options: SourceOptions, notes: list[str]) -> pd.DataFrame:
    if pattern := compiled("label pattern", options.label_pattern):
        return rows.assign(label=[label_of(inner, pattern) for inner in rows["inner"]])
    without = rows["label"] == ""
    if without.all():
        raise DataError(f"No row of {file} has a class.")
    if without.any():
        notes.append(f"{int(without.sum()):,} of {len(rows):,} rows of {file.name} have no class and were left out.")
    return rows[~without]


def _with_patients(rows: pd.DataFrame, pattern: str | None) -> pd.DataFrame:
    expression: re.Pattern[str] | None = compiled("patient pattern", pattern)
    if expression is None:
        return rows
    where = rows["patient"] if "patient" in rows else rows["inner"]
    return rows.assign(patient=[patient_of(text, expression) for text in where])


def _with_splits(rows: pd.DataFrame, file: Path) -> pd.DataFrame:
    if "split" not in rows:
        return rows
    splits = rows["split"].str.lower()
    if odd := sorted(set(splits) - {*SPLIT_NAMES, ""}):
        raise DataError(f"{file} has unknown splits. Allowed: {', '.join(SPLIT_NAMES)}. Received: {', '.join(odd)}.")
    if (splits == "").any() and (splits != "").any():
        raise DataError(
            f"{int((splits == '').sum())} of {len(rows)} rows of {file} have no split, the others have one."
        )
    return rows.assign(split=splits.replace(SPLIT_NAMES))


def _check_files(rows: pd.DataFrame, file: Path) -> None:
    """A single missing file is reported when it is decoded; a wrong root is said at once."""
    if not any(Path(path).is_file() for path in rows["path"]):
        raise DataError(
            f"None of the {len(rows):,} files of {file} exists, such as {rows['path'].iloc[0]}. "
            "Say what the paths are relative to with --data-option root=DIR."
        )


plugin = SourcePlugin(load=load, address_help="PATH of a CSV file with columns path and label", options=OPTIONS)
