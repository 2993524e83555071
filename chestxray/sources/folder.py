"""`folder:PATH`: a folder of classes, with or without train, validation and test folders above."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from chestxray.errors import DataError, InputError
from chestxray.images import SUFFIXES
from chestxray.index import Index
from chestxray.plugin import SourceOptions, SourcePlugin

#: Usual names of split folders, in lower case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def load(address: str, options: SourceOptions) -> Index:
    """Index ``PATH/CLASS/**`` or ``PATH/SPLIT/CLASS/**``; hidden and ``__MACOSX`` folders are skipped.

    Raises:
        InputError: no such folder; a patient pattern that is no regular expression with a group.
        DataError: no images in it, or no class folders.
    """
    root = Path(address).expanduser().absolute()
    if not address or not root.is_dir():
        raise InputError(
            f"No folder {address!r}. folder:PATH must name a folder of class folders (PATH/CLASS/*.png)."
        )
    pattern = patient_pattern(options.patient_pattern)
    records = []
    for path in image_files(root):
        parts = path.relative_to(root).parts[:-1]
        split = SPLIT_NAMES.get(parts[0].lower(), "") if parts else ""
        folders = parts[1:] if split else parts
        if not folders:
            raise DataError(
                f"{path} lies outside any class folder. folder:PATH needs PATH/CLASS/*.png or "
                "PATH/SPLIT/CLASS/*.png."
            )
        records.append(
            {
                "path": str(path),
                "label": folders[0],
                "patient": patient_of(path.relative_to(root), pattern),
                "split": split,
            }
        )
    if not records:
        suffixes = " ".join(sorted(SUFFIXES))
        raise DataError(f"No images under {root}. Looked for files ending in {suffixes}.")
    _check_splits(records, root)
    return Index.from_records(records, name=root.name)


def image_files(root: Path) -> Iterator[Path]:
    """Image files below `root` in sorted order, following links but never in a circle."""
    seen: set[tuple[int, int]] = set()
    for folder, children, files in os.walk(root, followlinks=True):
        here = Path(folder)
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen:
            children.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        children[:] = sorted(name for name in children if not name.startswith((".", "__MACOSX")))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:  # noqa: PTH122
                yield here / name


def patient_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """Compile a patient pattern.

    Raises:
        InputError: not a regular expression, or one without a group.
    """
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"The patient pattern {pattern!r} is no regular expression: {error}.") from error
    if not compiled.groups:
        raise InputError(
            f"The patient pattern must have a group that is the patient, such as '(person\\d+)_'. "
            f"Received: {pattern!r}."
        )
    return compiled


def patient_of(path: Path, pattern: re.Pattern[str] | None) -> str:
    """The patient in a file's relative path: all groups of the pattern that took part, joined."""
    match = pattern.search(path.as_posix()) if pattern else None
    return "-".join(group for group in match.groups() if group) if match else ""


def _check_splits(records: list[dict[str, str]], root: Path) -> None:
    named = {record["split"] for record in records}
    if "" in named and len(named) > 1:
        stray = next(record["path"] for record in records if not record["split"])
        raise DataError(
            f"{root} mixes split folders ({', '.join(sorted(named - {''}))}) and others: {stray} is in no split."
        )


plugin = SourcePlugin(load=load, address_help="PATH of class folders, maybe below train/val/test folders")
