"""The conformance suite of data sources passes what is right and fails what is broken."""

import dataclasses
import functools
import itertools
from pathlib import Path

import pytest

from chestxray.data.index import Index
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.storage.schema import LONGEST_NAME
from chestxray.testing import check_source_plugin, results_table, run_source_checks
from chestxray.testing.fresh_process import FreshProcess
from chestxray.testing.source_suite import SOURCE_CHECKS

NAMES = [check.name for check in SOURCE_CHECKS]
OF_FILES = [name for name in NAMES if name != "open"]


@pytest.fixture(scope="module")
def process():
    with FreshProcess(("chestxray.data.index", "chestxray.plugin", "chestxray.data.images.reading")) as shared:
        yield shared


def load(address: str, options: SourceOptions) -> Index:
    """``ADDRESS/LABEL/PATIENT_NUMBER.png``."""
    if not Path(address).is_dir():
        raise InputError(f"No folder {address!r}.")
    files = sorted(Path(address).absolute().rglob("*.png"))
    records = [
        {"path": str(f), "label": f.parent.name, "patient": f.name.partition("_")[0], "split": "train"} for f in files
    ]
    return Index.from_records(records, name="made")


GOOD = SourcePlugin(load=load, address_help="PATH of class folders")


def changed(column, value):
    """`load`, with `value` in the third row's `column`."""

    def spoilt(address, options):
        index = load(address, options)
        rows = index.rows.astype(object)
        rows.loc[2, column] = rows.loc[3, column] if value is ... else value
        return index.replace(rows)

    return spoilt


def replaced(**fields):
    """`load`, with other fields of the index."""
    return lambda address, options: dataclasses.replace(load(address, options), **fields)


def load_rows(address, options):
    return load(address, options).rows


def load_no_rows(address, options):
    index = load(address, options)
    return index.replace(index.rows.iloc[:0])


def load_without_source(address, options):
    index = load(address, options)
    return index.replace(index.rows.drop(columns="source"))


def load_one_patient(address, options):
    index = load(address, options)
    return index.replace(index.rows.assign(patient="somebody"))


def load_text_files(address, options):
    index = load(address, options)
    text = Path(address).absolute() / "notes.txt"
    text.write_text("no image")
    rows = index.rows.copy()
    rows.loc[0, "path"] = str(text)
    return index.replace(rows)


def load_in_another_order():
    turn = itertools.count()

    def spoilt(address, options):
        index = load(address, options)
        return index.replace(index.rows.iloc[:: 1 if next(turn) % 2 else -1])

    return spoilt


def load_other_classes():
    turn = itertools.count()

    def spoilt(address, options):
        index = load(address, options)
        return dataclasses.replace(index, classes=index.classes[:: 1 if next(turn) % 2 else -1])

    return spoilt


def load_crashing(address, options):
    if not Path(address).is_dir():
        raise FileNotFoundError(address)
    return load(address, options)


def load_silent(address, options):
    return load(address if Path(address).is_dir() else options.extra["other"], options)


def load_mute(address, options):
    if not Path(address).is_dir():
        raise DataError("")
    return load(address, options)


def keyed(open_key):
    """A source with keys, which are paths below the address."""

    def load_keys(address, options):
        index = load(address, options)
        return index.replace(index.rows.assign(path=index.rows["path"].str.removeprefix(f"{address}/")))

    def load_by(address, options):
        load_by.folder = Path(address)
        return load_keys(address, options)

    return dataclasses.replace(GOOD, load=load_by, open=lambda key: open_key(load_by.folder, key))


def read_key(folder, key):
    return (folder / key).read_bytes()


def open_as_text(folder, key):
    return bytearray(read_key(folder, key))


def open_by_turns():
    turn = itertools.count()
    return lambda folder, key: read_key(folder, key) + bytes([next(turn) % 251])


def open_anything(folder, key):
    return read_key(folder, key) if (folder / key).is_file() else b""


def load_no_key(address, options):
    index = load(address, options)
    rows = index.rows.copy()
    rows.loc[0, "path"] = ""
    return index.replace(rows)


def with_columns(**columns):
    """`load`, with further columns; a function makes one from the rows."""

    def spoilt(address, options):
        index = load(address, options)
        made = {name: value(index.rows) if callable(value) else value for name, value in columns.items()}
        return index.replace(index.rows.assign(**made))

    return spoilt


def mixed_types(rows):
    return [58 if place % 2 else "58" for place in range(len(rows))]


def masks_of_others(rows):
    return [str(Path(path).parent / "masks" / Path(path).name) for path in rows["path"]]


def load_newline(address, options):
    index = load(address, options)
    rows = index.rows.assign(label=index.rows["label"].replace("normal", "nor\nmal"))
    return dataclasses.replace(index, rows=rows, classes=("nor\nmal", "pneumonia"))


def load_text_as_number(address, options):
    index = load(address, options)
    return dataclasses.replace(index, rows=index.rows.assign(dose="high"), kinds={"dose": "number"})


BROKEN = {
    "mixed types in a column": (with_columns(age=mixed_types), "columns"),
    "lists in a column": (with_columns(area=lambda rows: [[1, 2]] * len(rows)), "columns"),
    "a class with a newline": (load_newline, "labels"),
    "a class that is too long": (replaced(classes=("normal", "pneumonia", "x" * (LONGEST_NAME + 1))), "labels"),
    "masks that do not exist": (with_columns(lung_mask=masks_of_others), "columns"),
    "a mask of a finding that does not exist": (with_columns(**{"mask:mass": "/nowhere/mask.png"}), "columns"),
    "a reserved column": (with_columns(pixel_hash="0"), "columns"),
    "a column of the audit": (with_columns(audit=""), "columns"),
    "states of findings among classes": (with_columns(**{"finding:mass": 1}), "columns"),
    "boxes in another format": (with_columns(boxes='[{"x": 1, "y": 2, "w": 3, "h": 4}]'), "columns"),
    "text in a column of numbers": (load_text_as_number, "columns"),
    "a note of two lines": (replaced(notes=("rows were left out\nand more",)), "round_trip"),
    "an empty note": (replaced(notes=("",)), "round_trip"),
    "open is no function": (dataclasses.replace(GOOD, open="open"), "fields"),
    "no key": (dataclasses.replace(GOOD, load=load_no_key, open=lambda key: Path(key).read_bytes()), "files"),
    "an error of open": (keyed(lambda folder, key: read_key(folder / "no", key)), "images"),
    "no bytes": (keyed(open_as_text), "open"),
    "other bytes each time": (keyed(open_by_turns()), "open"),
    "a wrong key accepted": (keyed(open_anything), "open"),
    "no address help": (dataclasses.replace(GOOD, address_help=" "), "fields"),
    "options without help": (dataclasses.replace(GOOD, options=["names"]), "fields"),
    "load is no function": (dataclasses.replace(GOOD, load="load"), "fields"),
    "rows, not an index": (load_rows, "load"),
    "empty": (load_no_rows, "load"),
    "a column missing": (load_without_source, "load"),
    "a gap": (changed("patient", float("nan")), "load"),
    "a number for a label": (changed("label", 1), "load"),
    "label outside the classes": (changed("label", "cavity"), "labels"),
    "a class twice": (replaced(classes=("normal", "pneumonia", "normal")), "labels"),
    "unknown split": (changed("split", "dev"), "splits"),
    "split of some": (changed("split", ""), "splits"),
    "blanks around a patient": (changed("patient", "p01 "), "patients"),
    "one patient": (load_one_patient, "patients"),
    "relative path": (changed("path", "normal/p01_0.png"), "files"),
    "no such file": (changed("path", "/nowhere/p01_0.png"), "files"),
    "a file twice": (changed("path", ...), "files"),
    "not an image": (load_text_files, "images"),
    "another order": (load_in_another_order(), "again"),
    "other classes": (load_other_classes(), "again"),
    "crash on a wrong address": (load_crashing, "wrong_address"),
    "no word on a wrong address": (load_mute, "wrong_address"),
    "wrong address accepted": (load_silent, "wrong_address"),
}


def outcomes(results, outcome):
    return [result.name for result in results if result.outcome == outcome]


def test_a_good_source_passes_every_check(process, folder):
    results = run_source_checks(GOOD, str(folder), module="chestxray.data.sources.folder", process=process)
    assert outcomes(results, "passed") == OF_FILES, results_table.plain(results)


def test_a_good_source_with_keys_passes_every_check(folder):
    results = run_source_checks(keyed(read_key), str(folder), only=[n for n in NAMES if n != "import"])
    assert outcomes(results, "passed") == [n for n in NAMES if n != "import"], results_table.plain(results)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_source_fails_the_check_meant_for_it(name, folder, tmp_path):
    broken, check = BROKEN[name]
    plugin = broken if isinstance(broken, SourcePlugin) else dataclasses.replace(GOOD, load=broken)
    options = SourceOptions(cache=tmp_path / "cache", extra={"other": str(folder)})
    results = run_source_checks(plugin, str(folder), options=options, only=[n for n in NAMES if n != "import"])
    assert outcomes(results, "failed") == [check], results_table.plain(results)


HINTS = {
    "mixed types in a column": ("'age' that holds int, str", "declare the column's kind"),
    "a class with a newline": (r"'nor\nmal'", "replace line breaks"),
    "masks that do not exist": ("48 of 48 rows name a file in lung_mask that is not on disk", '"" where'),
    "a reserved column": ("'pixel_hash'", "rename pixel_hash"),
    "a note of two lines": ("notes is", "one line each"),
    "no such file": ("1 of 48 rows have a path that is no file", "leave out rows"),
}


@pytest.mark.parametrize("name", HINTS)
def test_the_reason_and_the_hint_say_what_is_wrong(name, folder):
    load_broken, check = BROKEN[name]
    (result,) = run_source_checks(dataclasses.replace(GOOD, load=load_broken), str(folder), only=[check])
    reason, hint = HINTS[name]
    assert reason in result.reason and hint in result.hint


def test_paths_that_a_listing_writes_otherwise_are_found(folder):
    def doubled(address, options):
        index = load(address, options)
        return index.replace(index.rows.assign(path=index.rows["path"].str.replace("/normal/", "//normal/../normal//")))

    (result,) = run_source_checks(dataclasses.replace(GOOD, load=doubled), str(folder), only=["files"])
    assert result.passed, result.reason


def test_every_check_fails_for_some_broken_source():
    assert {check for _, check in BROKEN.values()} | {"import"} == set(NAMES)


def test_a_source_that_is_slow_to_import_fails_that_check_alone(folder, tmp_path, monkeypatch):
    (tmp_path / "slow_source.py").write_text("import time\ntime.sleep(1.2)")
    monkeypatch.syspath_prepend(str(tmp_path))
    results = run_source_checks(GOOD, str(folder), module="slow_source")
    assert outcomes(results, "failed") == ["import"], results_table.plain(results)


def test_no_wrong_address_is_skipped_and_says_so(folder):
    (result,) = run_source_checks(GOOD, str(folder), wrong_address=None, only=["wrong_address"])
    assert result.outcome == "skipped" and "no wrong address" in result.skipped_reason


def test_the_author_of_a_source_gets_the_table(folder):
    plugin = dataclasses.replace(GOOD, load=functools.partial(load_rows))
    with pytest.raises(AssertionError, match=r"1 failed[\s\S]*must return an Index"):
        check_source_plugin(plugin, str(folder), only=["fields", "load"])


@pytest.mark.parametrize("name", ["folder", "phantom"])
def test_the_sources_that_ship_with_chestxray_pass(name, folder, process):
    from chestxray import registry

    plugin = registry.load_plugin(registry.SOURCES, name)
    address = {"folder": str(folder), "phantom": "images=24,size=32"}[name]
    results = run_source_checks(plugin, address, process=process)
    assert outcomes(results, "passed") == OF_FILES, results_table.plain(results)
