"""Reading a table as a frame of text from a file: CSV as spreadsheets of any country write it, Excel or Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from chestxray.errors import DataError, InputError, first_line, require
from chestxray.storage.files import content as content_of

#: Endings of the names of tables, in lower case.
SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet")
#: Maximum size of a table in bytes, also unpacked: that of the largest public set, 380,000 films, has a fifth of it.
MOST = 500_000_000
_PARQUET = b"PAR1"
_SEPARATORS = (",", ";", "\t", "|")
#: First bytes of unsupported files -> what they are, and what to do with them.
_NO_TABLES = {
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls) or one with a password: save it as .xlsx without one, or as CSV",
    b"BZh": "compressed with bzip2: unpack it, or compress it with gzip (.csv.gz)",
    b"\xfd7zXZ": "compressed with xz: unpack it, or compress it with gzip (.csv.gz)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it, or compress it with gzip (.csv.gz)",
    b"SQLite format 3": "a database of SQLite: write the table as CSV",
}
#: Exceptions raised for damaged Excel files and ZIP archives.
_BROKEN = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, EOFError, SyntaxError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip


def read_table(file: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of `file`, with every cell as text (missing ones ``""``), and notes that a reader must know.

    CSV may be separated by commas, semicolons, tabs or ``|``, in UTF-8, UTF-16 or Latin-1, with or
    without a byte order mark, with any line endings, compressed with gzip or not. Of an Excel file
    (the extra ``excel``), the first sheet is read. In a Parquet file whole numbers have no decimals, and true is 1.

    Raises:
        InputError: an Excel file without the extra.
        DataError: not a table (the message says what to do if that is known); no rows.
    """
    try:
        content = content_of(file, MOST)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    if content.startswith(b"\x1f\x8b"):
        content = _unpacked(content, file)
    if what := next((what for mark, what in _NO_TABLES.items() if content.startswith(mark)), None):
        raise DataError(f"{file} is no table that can be read: it is {what}.")
    notes: list[str] = []
    if content.startswith(_PARQUET):
        table = _parquet(content, file)
    elif content.startswith(b"PK\x03\x04"):
        table = _excel(content, file, notes)
    else:
        table = _csv(_text(content, file, notes), file)
    if table.empty:
        raise DataError(f"{file} has no rows.")
    table.columns = [str(heading).strip() for heading in table.columns]
    if twice := table.columns[table.columns.duplicated()].tolist():
        raise DataError(f"{file} has several columns called {twice[0]!r}.")
    return table, notes


def beside(file: Path, *stems: str) -> Path | None:
    """Return the table with one of the names `stems`, without suffix, in the folder of `file`, None without one."""
    for stem in stems:
        for suffix in SUFFIXES:
            if (found := file.with_name(stem + suffix)).is_file():
                return found
    return None


def _unpacked(content: bytes, file: Path) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as packed:
            unpacked = packed.read(MOST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{file} is no table that can be read: its compression with gzip is damaged: {error}."
        ) from error
    if len(unpacked) > MOST:
        raise DataError(f"{file} cannot be read: unpacked it is larger than the {MOST:,} bytes allowed.")
    return unpacked


def _text(content: bytes, file: Path, notes: list[str]) -> str:
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None) or _without_mark(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise DataError(
                f"{file} is no table that can be read: it is no {encoding.upper()} text: {error}."
            ) from error
        # The usual encoding of older spreadsheets, in which every byte is valid.
        text = content.decode("latin-1")
        notes.append(f"{file.name} is not UTF-8 and was read as Latin-1.")
    if "\0" in text:
        raise DataError(f"{file} is no table that can be read: it contains null bytes, so it is not text.")
    return text


def _without_mark(content: bytes) -> str:
    """Return the encoding of text without a byte order mark: UTF-16 has a zero byte beside each Latin letter."""
    start = content[:200]
    low, high = start[1::2].count(0), start[::2].count(0)
    if max(low, high) > len(start) / 4:
        return "utf-16-le" if low > high else "utf-16-be"
    return "utf-8"


def _csv(text: str, file: Path) -> pd.DataFrame:
    # Excel's first line for the separator of the columns.
    said = re.match(r"sep=(.)\r?\n?", text, re.IGNORECASE)
    if said:
        text = text[said.end() :]
    try:
        with warnings.catch_warnings():
            # pandas truncates rows that are too long with a warning only.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.StringIO(text),
                sep=said[1] if said else _separator(text, file),
                dtype=str,
                keep_default_na=False,
                index_col=False,
            )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning, ValueError) as error:
        raise DataError(f"{file} is no table that can be read: {error}".replace("\n", " ")) from error
    # A short row ends in missing values, whatever keep_default_na is.
    return table.fillna("")


def _separator(text: str, file: Path) -> str:
    """Return the character that splits the most rows into as many cells as headings, and the headings into the most."""
    tabs = ".tsv" in (suffix.lower() for suffix in file.suffixes)
    order = ("\t", *(sign for sign in _SEPARATORS if sign != "\t")) if tabs else _SEPARATORS
    best, most = order[0], (0.0, 0)
    for sign in order:
        try:
            reader = csv.reader(io.StringIO(text[:100_000], newline=None), delimiter=sign)
            rows = [row for row in itertools.islice(reader, 50) if row]
        except csv.Error:
            continue
        if not rows or len(rows[0]) < 2:
            continue
        whole = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
        if (whole, len(rows[0])) > most:
            best, most = sign, (whole, len(rows[0]))
    return best


def _parquet(content: bytes, file: Path) -> pd.DataFrame:
    require("A table in Parquet", "pyarrow")
    try:
        table = pd.read_parquet(io.BytesIO(content), engine="pyarrow")
    except Exception as error:  # Arrow and Thrift each raise their own errors for a damaged file
        raise DataError(f"{file} is no Parquet file that can be read: {first_line(error)}.") from error
    return pd.DataFrame({str(name): _as_text(table[name]) for name in table}, index=range(len(table)))


def _as_text(column: pd.Series) -> pd.Series:
    """Return the cells as a CSV file would have them, missing ones ``""``."""
    empty = column.isna().to_numpy()
    if pd.api.types.is_bool_dtype(column):
        column = column.astype("Int8")
    elif pd.api.types.is_float_dtype(column) and (column[~empty] % 1 == 0).all():
        column = column.astype("Int64")
    text = column.astype(str).astype(object).to_numpy()
    return pd.Series(np.where(empty, "", text), dtype=object)


def _excel(content: bytes, file: Path, notes: list[str]) -> pd.DataFrame:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = set(archive.namelist())
            size = sum(entry.file_size for entry in archive.infolist())
    except _BROKEN as error:
        raise DataError(f"{file} is no table that can be read: {error}.") from error
    if size > MOST:
        raise DataError(f"{file} cannot be read: unpacked it is larger than the {MOST:,} bytes allowed.")
    if "xl/workbook.xml" not in names:
        what = (
            "a spreadsheet of OpenDocument: save it as .xlsx or CSV"
            if "content.xml" in names
            else "a ZIP archive: unpack it"
        )
        raise DataError(f"{file} is no table that can be read: it is {what}.")
    try:
        import openpyxl  # noqa: F401 - pandas reads with it
    except ImportError as error:
        raise InputError(
            f"{file} is an Excel file: pip install 'chestxray[excel]' to read it, or save it as CSV (UTF-8)."
        ) from error
    try:
        with warnings.catch_warnings():
            # openpyxl warns about drawings, data validation and other contents that are not read.
            warnings.simplefilter("ignore")
            with pd.ExcelFile(io.BytesIO(content), engine="openpyxl") as book:
                first, *others = [str(name) for name in book.sheet_names]
                table = book.parse(first, dtype=str, keep_default_na=False, na_filter=False)
    except _BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file} is no Excel file that can be read: {reason}.") from error
    if others:
        notes.append(f"Of {file.name} the first sheet was read, {first}; not {', '.join(others)}.")
    table = table.fillna("").astype(str)
    return table[(table != "").any(axis=1)].reset_index(drop=True)
