"""Tables as spreadsheets, scripts and hospitals of any country write them."""

import builtins
import gzip
import io
import zipfile

import pandas as pd
import pytest

from chestxray.data.sources.table import read_table
from chestxray.errors import DataError, InputError

ROWS = [["path", "label", "note"], ["a.png", "Größe", "x, y"], ["b.png", "n", ""]]
FRAME = pd.DataFrame(ROWS[1:], columns=ROWS[0])


def text(separator=",", end="\n"):
    cells = [[f'"{cell}"' if separator in cell else cell for cell in row] for row in ROWS]
    return "".join(separator.join(row) + end for row in cells)


def excel(**sheets):
    buffer = io.BytesIO()
    with pd.ExcelWriter(buffer, engine="openpyxl") as writer:
        for name, frame in sheets.items():
            frame.to_excel(writer, sheet_name=name, index=False)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    def inner(content, name="list.csv"):
        (tmp_path / name).write_bytes(content)
        return read_table(tmp_path / name)

    return inner


FORMS = {
    "commas": text().encode(),
    "semicolons": text(";").encode(),
    "tabs": text("\t").encode(),
    "bars": text("|").encode(),
    "mark": text().encode("utf-8-sig"),
    "mark and semicolons": text(";").encode("utf-8-sig"),
    "carriage returns and line feeds": text(end="\r\n").encode(),
    "carriage returns": text(";", end="\r").encode(),
    "utf-16": text("\t").encode("utf-16"),
    "utf-16 the other way round": "\ufeff".encode("utf-16-be") + text().encode("utf-16-be"),
    "utf-16 without a mark": text(";").encode("utf-16-le"),
    "utf-16 the other way round without a mark": text().encode("utf-16-be"),
    "utf-32": text().encode("utf-32"),
    "latin-1": text(";").encode("latin-1"),
    "gzip": gzip.compress(text(";").encode(), mtime=0),
    "said by Excel": b"sep=;\r\n" + text(";").encode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.txt"])
def test_every_form_of_csv_is_the_same_table(read, form, name):
    table, notes = read(FORMS[form], name)
    pd.testing.assert_frame_equal(table, FRAME, check_dtype=False)
    assert notes == ([f"{name} is not UTF-8 and was read as Latin-1."] if form == "latin-1" else [])


def test_a_sign_within_cells_is_no_separator(read):
    table, _ = read(b"path;sizes (w, h);label\na.png;1,5;x\nb.png;2,5;y|z\n")
    assert table.columns.tolist() == ["path", "sizes (w, h)", "label"]
    assert table["label"].tolist() == ["x", "y|z"]
    assert read(b"path,label\na.png,x;y|z\n")[0]["label"].tolist() == ["x;y|z"]
    assert read(b"path\na.png\n")[0].columns.tolist() == ["path"]


def test_an_excel_file_is_read(read):
    pytest.importorskip("openpyxl", reason="the extra excel is not installed")
    frame = pd.DataFrame({"path": ["a.png", None, "b.png"], "label": ["x", None, "y"], "patient": [12, None, 7]})
    table, notes = read(excel(films=frame), "list.xlsx")
    assert table.to_dict("list") == {"path": ["a.png", "b.png"], "label": ["x", "y"], "patient": ["12", "7"]}
    assert notes == []
    # By its content, whatever its name; and what is not read is said.
    _, notes = read(excel(films=frame, Sheet2=frame), "list.csv")
    assert notes == ["Of list.csv the first sheet was read, films; not Sheet2."]


def test_without_the_extra_the_error_names_it(read, monkeypatch):
    pytest.importorskip("openpyxl", reason="the extra excel is not installed")
    content, own = excel(films=FRAME), builtins.__import__

    def without(name, *arguments, **options):
        if name == "openpyxl":
            raise ImportError(name)
        return own(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'chestxray\[excel\]'.*or save it as CSV"):
        read(content, "list.xlsx")


def archive(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, "text")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no table"),
        (b"path,label\n", "has no rows"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old Excel file .* save it as .xlsx"),
        (b"BZh91AY&SY", "compressed with bzip2: unpack it"),
        (b"\xfd7zXZ\x00", "compressed with xz: unpack it"),
        (b"PAR1" + bytes(20), "no Parquet file that can be read: .*magic bytes"),
        (archive("a.csv"), "a ZIP archive: unpack it"),
        (archive("content.xml"), "a spreadsheet of OpenDocument: save it as .xlsx or CSV"),
        (archive("xl/workbook.xml"), "no Excel file that can be read"),
        (b"PK\x03\x04 and no more", "is no table"),
        (gzip.compress(b"path,label\na.png,x\n", mtime=0)[:-9], "its compression with gzip is damaged"),
        (b"\xff\xfepath", "is no UTF-16 text|contains null bytes|has no rows"),
        ("path,label\n".encode("utf-16")[:-1], "is no UTF-16 text"),
        (b"path,label\na\0.png,x\nb.png,y\n", "contains null bytes"),
        (b'path,label\n"a.png,x\n', "is no table"),
        (b"path,label, path\na.png,x,y\n", "several columns called 'path'"),
    ],
    ids=range(16),
)
def test_what_is_no_table_is_said_in_one_line_with_the_mend(read, content, message):
    if b"workbook" in content:
        pytest.importorskip("openpyxl", reason="the extra excel is not installed")
    with pytest.raises(DataError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value)
