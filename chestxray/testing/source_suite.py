"""The conformance suite for `SourcePlugin`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from chestxray.data.column_kinds import RESERVED
from chestxray.data.images import reading
from chestxray.data.index import COLUMNS, SPLITS, Index
from chestxray.data.sources.opened_keys import THREADS
from chestxray.errors import ChestXrayError, DataError, MissingPackageError
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.testing import results_table
from chestxray.testing.fresh_process import FreshProcess
from chestxray.testing.import_checks import module_of, require_light_import
from chestxray.testing.results import Check, CheckFailed, CheckResult, CheckSkipped, chosen, described, run_all

#: An address that no source can load.
NOWHERE = "no/such/address"
#: A key that no source can open.
NO_KEY = "no/such/key"
#: Number of images that are read, evenly spaced over the index.
SAMPLE = 8
ONE_LINE = "classes and notes are text of one line each"
FROM_RECORDS = "Index.from_records puts in what is missing"


class Source:
    """A source under test: the plugin, its arguments, and the index it returns."""

    def __init__(
        self,
        plugin: SourcePlugin,
        address: str,
        options: SourceOptions,
        wrong_address: str | None,
        module: str,
        elsewhere: FreshProcess,
    ) -> None:
        self.plugin = plugin
        self.address = address
        self.options = options
        self.wrong_address = wrong_address
        self.module = module
        self.elsewhere = elsewhere

    @cached_property
    def index(self) -> Index:
        """The index that the plugin loads from the address."""
        return self.plugin.load(self.address, self.options)

    def require(self, good: np.ndarray, what: str, hint: str = "", *further: str) -> None:
        """Raise `CheckFailed` with the number of rows that are not `good`, bool (rows,), and the first of them, with
        its `further` columns.
        """
        if not good.all():
            first = dict(self.index.rows.loc[~good, list(dict.fromkeys([*COLUMNS, *further]))].iloc[0])
            raise CheckFailed(f"{int((~good).sum())} of {len(good)} rows {what}, the first {first}", hint)


def spread(paths: pd.Series) -> list[str]:
    """Return `SAMPLE` paths or keys, evenly spaced."""
    places = np.unique(np.linspace(0, len(paths) - 1, SAMPLE).astype(int)) if len(paths) else ()
    return [paths.iloc[place] for place in places]


def _present(paths: pd.Series) -> set[str]:
    """Return those of `paths` that are files. Folders are listed, which takes one call for many files."""
    names = set(paths) - {""}
    found: set[str] = set()
    for folder in {os.path.dirname(name) for name in names}:  # noqa: PTH120 - a Path for each file costs seconds
        with suppress(OSError, ValueError), os.scandir(folder) as listing:
            found.update(entry.path for entry in listing if entry.is_file())
    # Written otherwise than a listing has it, as with two slashes.
    found.update(name for name in names - found if os.path.isfile(name))  # noqa: PTH113 - as above
    return found & names


def _read(source: Source, path: str, where: str) -> None:
    """Read an image. Raises `CheckFailed`, which says where its path or key is from."""
    open_key = source.plugin.open
    try:
        reading.read(Path(path)) if open_key is None else reading.decode(open_key(path))
    except ChestXrayError as error:
        allowed = " ".join(sorted(reading.SUFFIXES))
        raise CheckFailed(f"cannot read {path}, of {where}: {error}", f"allowed: {allowed}") from error


def check_fields(source: Source) -> None:
    """The fields have the right types and describe the address."""
    plugin, wrong = source.plugin, []
    if not callable(plugin.load):
        wrong.append("load is not a function")
    if not isinstance(plugin.address_help, str) or not plugin.address_help.strip():
        wrong.append("address_help is empty (what the address is, in a few words)")
    if plugin.open is not None and not callable(plugin.open):
        wrong.append("open is not a function")
    if plugin.options is not None and not isinstance(plugin.options, Mapping):
        wrong.append("options must map names to a line of help each, or be None")
    if wrong:
        raise CheckFailed("; ".join(wrong), "see the fields of chestxray.plugin.SourcePlugin")


def check_load(source: Source) -> None:
    """`load` returns an `Index` with one row per image and all columns filled with strings."""
    index = source.index
    if not isinstance(index, Index):
        raise CheckFailed(f"load must return an Index. Received: {type(index).__name__}", FROM_RECORDS)
    if not len(index):
        raise CheckFailed("the index is empty", "raise DataError where there is nothing")
    if missing := [column for column in COLUMNS if column not in index.rows]:
        raise CheckFailed(f"the index lacks columns: {', '.join(missing)}", FROM_RECORDS)
    for column in COLUMNS:
        values = index.rows[column]
        # A whole column is asked at once; its rows one by one only to say which of them are wrong.
        if pd.api.types.infer_dtype(values, skipna=False) != "string" or values.isna().any():
            words = values.map(lambda value: isinstance(value, str)).to_numpy()
            source.require(words, f"hold something that is no string in the column {column}", FROM_RECORDS)


def check_labels(source: Source) -> None:
    """Every label is one of the classes; these are distinct names that can be printed on a line."""
    index = source.index
    classes = index.classes
    if not isinstance(classes, tuple) or len(set(classes)) < len(classes) or "" in classes:
        raise CheckFailed(f"classes must be a tuple of different names. Received: {classes!r}")
    try:
        index.require_names()
    except DataError as error:
        raise CheckFailed(str(error), "strip the names, and replace line breaks and tabs by spaces") from error
    if index.task == "classes":
        good = index.rows["label"].isin(classes).to_numpy()
        source.require(good, f"have a label that is none of {', '.join(classes)}", "name all classes in `classes`")


def check_columns(source: Source) -> None:
    """Each further column has one type and what its kind says; its name is not reserved; files of masks exist."""
    index = source.index
    try:
        index.require_columns()
    except DataError as error:
        hint = "declare the column's kind: Index.from_records(rows, name=..., kinds={COLUMN: KIND})"
        reserved = RESERVED.intersection(index.rows.columns)
        raise CheckFailed(str(error), f"rename {', '.join(sorted(reserved))}" if reserved else hint) from error
    for column in [name for name in index.rows if name not in COLUMNS and index.kind(name) == "path"]:
        paths = index.rows[column].fillna("")
        if source.plugin.open is None:
            good = paths.isin([*_present(paths), ""]).to_numpy()
            source.require(good, f"name a file in {column} that is not on disk", '"" where an image has none', column)
            continue
        for key in spread(paths[paths != ""]):
            _read(source, key, f"the column {column}")


def check_round_trip(source: Source) -> None:
    """The index is the same after it was written and read, as a run does."""
    index = source.index
    with tempfile.TemporaryDirectory(prefix="chestxray-check-") as folder:
        file = Path(folder) / "index.parquet"
        try:
            index.write(file)
            again = Index.read(file)
        except MissingPackageError as error:
            raise CheckSkipped(str(error)) from error
        # Arrow has errors of its own for what a table cannot hold.
        except Exception as error:
            raise CheckFailed(f"the index cannot be written and read: {described(error)}", ONE_LINE) from error
    for name in ("classes", "name", "licence", "citation", "notes", "task"):
        here, there = getattr(index, name), getattr(again, name)
        if here != there:
            raise CheckFailed(f"{name} is {there!r} after it was written and read, not {here!r}", ONE_LINE)
    for column in index.rows:
        here, there = index.rows[column], again.rows[column]
        same = (here.to_numpy(object) == there.to_numpy(object)) | (here.isna() & there.isna()).to_numpy()
        hint = "columns hold text alone, numbers alone, or True and False alone"
        source.require(same, f"have another value in {column} after they were written and read", hint, column)


def check_splits(source: Source) -> None:
    """Every row has the split train, validation or test, or no row has a split."""
    splits = source.index.rows["split"]
    source.require(splits.isin((*SPLITS, "")).to_numpy(), f"have a split that is none of {', '.join(SPLITS)}")
    if (splits == "").any() and (splits != "").any():
        source.require((splits != "").to_numpy(), "have no split while others have", "all or none")


def check_patients(source: Source) -> None:
    """Patient identifiers have no surrounding blanks, and not all images have the same patient."""
    patients = source.index.rows["patient"]
    source.require((patients == patients.str.strip()).to_numpy(), "have blanks around the patient's name")
    if len(patients) > 1 and patients.iloc[0] and patients.nunique() == 1:
        raise CheckFailed(
            f"all {len(patients)} images are of one patient, {patients.iloc[0]!r}: they cannot be split",
            "leave patient empty where it is not known",
        )


def check_files(source: Source) -> None:
    """Every path is absolute, exists as a file and occurs once; with `open`, every key occurs once."""
    paths = source.index.rows["path"]
    if source.plugin.open is None:
        absolute = paths.map(os.path.isabs).to_numpy()
        source.require(absolute, "have a path that is not absolute", "str(folder.absolute() / name)")
        good = paths.isin(_present(paths)).to_numpy()
        source.require(good, "have a path that is no file on disk", "leave out rows without a file, or download it")
    else:
        source.require((paths != "").to_numpy(), "have no key for `open` in the column path")
    source.require(~paths.duplicated().to_numpy(), "repeat the path of another row", "one row an image")


def check_images(source: Source) -> None:
    """A sample of the images can be read."""
    for path in spread(source.index.rows["path"]):
        _read(source, path, "the column path")


def check_open(source: Source) -> None:
    """`open` returns the same bytes for a key in every thread, and raises an error for a key that is not there."""
    open_key = source.plugin.open
    if open_key is None:
        raise CheckSkipped("the source has paths of files")
    sample = spread(source.index.rows["path"])
    alone = [open_key(key) for key in sample]
    for key, content in zip(sample, alone, strict=True):
        if not isinstance(content, bytes):
            raise CheckFailed(f"open({key!r}) must return bytes. Received: {type(content).__name__}")
    repeated = sample * THREADS
    with ThreadPoolExecutor(THREADS) as threads:
        together = list(threads.map(open_key, repeated))
    if together != alone * THREADS:
        changed = repeated[[a != b for a, b in zip(together, alone * THREADS, strict=True)].index(True)]
        raise CheckFailed(
            f"open({changed!r}) returned other bytes when {THREADS} threads opened keys",
            "a key always means the same bytes; where threads share a file or connection, lock it",
        )
    try:
        found = open_key(NO_KEY)
    # Any error says that the image is not there.
    except Exception:
        return
    raise CheckFailed(f"open({NO_KEY!r}) returned {found[:20]!r}", "raise an error for a key that is not there")


def check_again(source: Source) -> None:
    """A second load gives the same rows in the same order."""
    again = source.plugin.load(source.address, source.options)
    if again.classes != source.index.classes:
        raise CheckFailed(f"a second load has other classes: {again.classes}, not {source.index.classes}")
    if not again.rows.equals(source.index.rows):
        raise CheckFailed(
            "a second load gives other rows or another order",
            "draw with options.seed, sort what a folder lists",
        )


def check_wrong_address(source: Source) -> None:
    """A wrong address raises a user error with a message instead of another exception."""
    if source.wrong_address is None:
        raise CheckSkipped("no wrong address was given")
    try:
        source.plugin.load(source.wrong_address, source.options)
    except ChestXrayError as error:
        if not str(error).strip():
            raise CheckFailed(f"the address {source.wrong_address!r} raises an error without a message") from error
        return
    # Any other exception is what this check looks for.
    except Exception as error:
        raise CheckFailed(
            f"the address {source.wrong_address!r} raises {described(error)}",
            "raise chestxray.errors.InputError or DataError, saying what an address is",
        ) from error
    raise CheckFailed(f"the address {source.wrong_address!r} raises no error")


def check_import(source: Source) -> None:
    """Importing the plugin takes under a second beyond pandas and uses no network."""
    require_light_import(source.elsewhere, source.module, "pandas")


SOURCE_CHECKS = (
    Check(check_fields),
    Check(check_load, needs=("fields",)),
    Check(check_labels, needs=("load",)),
    Check(check_columns, needs=("load",)),
    Check(check_splits, needs=("load",)),
    Check(check_patients, needs=("load",)),
    Check(check_files, needs=("load",)),
    Check(check_images, needs=("files",)),
    Check(check_open, needs=("images",)),
    Check(check_round_trip, needs=("labels", "columns", "splits")),
    Check(check_again, needs=("load",)),
    Check(check_wrong_address, needs=("fields",)),
    Check(check_import),
)


def run_source_checks(
    plugin: SourcePlugin,
    address: str,
    *,
    options: SourceOptions | None = None,
    wrong_address: str | None = NOWHERE,
    module: str | None = None,
    only: Collection[str] | None = None,
    process: FreshProcess | None = None,
    before: Callable[[str], None] | None = None,
) -> list[CheckResult]:
    """Run the suite on `plugin` and return one result per check.

    Args:
        plugin: the plugin.
        address: an address that the plugin can load, preferably of a small data set.
        options: further arguments of `load`; None: the defaults, and a cache that is deleted afterwards.
        wrong_address: an address that it cannot load; None: this check is skipped.
        module: the module of the plugin's entry point; None: the module that defines `load`.
        only: names of checks; None: all of `SOURCE_CHECKS`.
        process: a fresh process shared by several suites; None: a new one for this suite.
        before: a function that is called with the name of each check before it runs.

    Raises:
        InputError: `only` has a name that is not a check.
    """
    checks = chosen(SOURCE_CHECKS, only)
    with ExitStack() as stack:
        preload = ("chestxray.data.index", "chestxray.plugin", "chestxray.data.images.reading")
        elsewhere = process or stack.enter_context(FreshProcess(preload))
        if options is None:
            cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="chestxray-check-"))
            options = SourceOptions(cache=Path(cache))
        module = module_of(plugin.load) if module is None else module
        return run_all(checks, Source(plugin, address, options, wrong_address, module, elsewhere), before)


def check_source_plugin(
    plugin: SourcePlugin,
    address: str,
    *,
    options: SourceOptions | None = None,
    wrong_address: str | None = NOWHERE,
    only: Collection[str] | None = None,
) -> list[CheckResult]:
    """Run the suite on `plugin` with an `address` that it can load, in a test, and return the results.

    The arguments are those of `run_source_checks`.

    >>> check_source_plugin(plugin, "tests/two_images")  # doctest: +SKIP

    Raises:
        AssertionError: a check failed; the message is the table of all results.
        InputError: `only` has a name that is not a check.
    """
    __tracebackhide__ = True  # pytest then shows the table instead of this function
    results = run_source_checks(plugin, address, options=options, wrong_address=wrong_address, only=only)
    return results_table.require_passed(results)
