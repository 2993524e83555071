"""`folder:PATH`: a folder of classes, with or without train, validation and test folders above.

Where the class is in a file's name instead, ``--label-pattern`` says how to read it there.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
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
#: Folders, in lower case, whose images are masks of the lungs of the images beside them.
MASK_FOLDERS = frozenset({"masks", "mask"})
#: Archives made on a Mac carry a shadow of every file in such a folder.
_ALWAYS_SKIPPED = ("__MACOSX",)


def load(address: str, options: SourceOptions) -> Index:
    """Index ``PATH/CLASS/**`` or ``PATH/SPLIT/CLASS/**``, or any tree with a label pattern.

    Hidden and ``__MACOSX`` folders are skipped, and those of `options.skip`. Images in a folder
    ``masks`` are no rows: where one is named as an image of the folder ``images`` beside it, the
    image's row has it in the column ``lung_mask``.

    Raises:
        InputError: no such folder; a pattern that is no regular expression with a group.
        DataError: no images in it, no class folders, or a file that the label pattern does not fit.
    """
    root = Path(address).expanduser().absolute()
    if not address or not root.is_dir():
        raise InputError(f"No folder {address!r}. folder:PATH must name a folder of class folders (PATH/CLASS/*.png).")
    patients = compiled("patient pattern", options.patient_pattern)
    labels = compiled("label pattern", options.label_pattern)
    skip = (*options.skip, *(name.strip() for name in options.extra.get("skip", "").split(",") if name.strip()))
    others: Counter[str] = Counter()
    records = []
    for place, names in image_folders(root, skip, others):
        split, label = _place(place)
        if not label and labels is None:
            raise DataError(
                f"{root / place / names[0]} lies outside any class folder. folder:PATH needs PATH/CLASS/*.png or "
                "PATH/SPLIT/CLASS/*.png, or --label-pattern where the class is in the file's name."
            )
        masks = _masks_beside(root / place)
        for name in names:
            inner = f"{place}/{name}" if place else name
            record = {
                "path": os.path.join(root, inner),  # noqa: PTH118 - a Path for each of 100,000 files costs seconds
                "label": label if labels is None else label_of(inner, labels),
                "patient": patient_of(inner, patients),
                "split": split,
            }
            if masks:
                record["lung_mask"] = masks.get(_stem(name), "")
            records.append(record)
    if not records:
        raise DataError(f"No images under {root}. Looked for files ending in {' '.join(sorted(SUFFIXES))}.")
    _check_splits(records, root)
    name = root.parent.name if root.name.lower() == "images" else root.name
    return Index.from_records(_even(records), name=name, notes=_passed_over(root, others))


def image_folders(
    root: Path, skip: Iterable[str] = (), others: Counter[str] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """(path below `root`, names of its image files), sorted, following links but never in a circle.

    Mask folders are left out; the suffixes of files that are no images are counted in `others`.
    """
    patterns = (*_ALWAYS_SKIPPED, *skip)
    seen: set[tuple[int, int]] = set()
    for folder, children, files in os.walk(root, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            children.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        place = "" if folder == str(root) else Path(folder).relative_to(root).as_posix()
        children[:] = sorted(name for name in children if not _skipped(place, name, patterns))
        names = [name for name in sorted(files) if not name.startswith(".")]
        images = [name for name in names if _suffix(name) in SUFFIXES]
        if others is not None and place:
            others.update(_suffix(name) or "(none)" for name in names if _suffix(name) not in SUFFIXES)
        if images:
            yield place, images


def compiled(what: str, pattern: str | None) -> re.Pattern[str] | None:
    """Compile a pattern of the user.

    Raises:
        InputError: not a regular expression, or one without a group.
    """
    if pattern is None:
        return None
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"The {what} {pattern!r} is no regular expression: {error}.") from error
    if not expression.groups:
        raise InputError(
            f"The {what} must have a group, such as '(person\\d+)_' for a patient or '_([01])\\.' for a class. "
            f"Received: {pattern!r}."
        )
    return expression


def patient_of(inner: str, pattern: re.Pattern[str] | None) -> str:
    """The patient in a file's path below the folder: all groups of the pattern that took part, joined."""
    match = pattern.search(inner) if pattern else None
    return "-".join(group for group in match.groups() if group) if match else ""


def label_of(inner: str, pattern: re.Pattern[str]) -> str:
    """The class in a file's path: the name of the named group that took part, else the groups' text.

    Raises:
        DataError: the pattern does not fit the path.
    """
    match = pattern.search(inner)
    label = ""
    if match:
        named = [name for name, text in match.groupdict().items() if text is not None]
        label = named[0] if named else "-".join(group for group in match.groups() if group)
    if not label:
        raise DataError(f"The label pattern {pattern.pattern!r} finds no class in {inner!r}.")
    return label


def _place(place: str) -> tuple[str, str]:
    """(split, class folder) of a path below the root, ``""`` where there is none."""
    parts = place.split("/") if place else []
    split = SPLIT_NAMES.get(parts[0].lower(), "") if parts else ""
    rest = parts[1:] if split else parts
    return split, rest[0] if rest else ""


def _skipped(place: str, name: str, patterns: Iterable[str]) -> bool:
    if name.startswith(".") or name.lower() in MASK_FOLDERS:
        return True
    inner = f"{place}/{name}" if place else name
    return any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(inner, pattern) for pattern in patterns)


def _masks_beside(folder: Path) -> dict[str, str]:
    """Stem -> path of the masks that go with the images of a folder called ``images``."""
    if folder.name.lower() != "images":
        return {}
    beside = [child for child in folder.parent.iterdir() if child.name.lower() in MASK_FOLDERS and child.is_dir()]
    return {
        _stem(file.name): str(file)
        for child in beside
        for file in sorted(child.iterdir())
        if _suffix(file.name) in SUFFIXES and not file.name.startswith(".")
    }


def _even(records: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same columns in every record."""
    if any("lung_mask" in record for record in records):
        for record in records:
            record.setdefault("lung_mask", "")
    return records


def _passed_over(root: Path, others: Counter[str]) -> list[str]:
    if not others:
        return []
    kinds = ", ".join(f"{number:,} {suffix}" for suffix, number in others.most_common(5))
    return [f"{others.total():,} files below {root.name} are no images by their suffix and were passed over: {kinds}."]


def _check_splits(records: list[dict[str, str]], root: Path) -> None:
    named = {record["split"] for record in records}
    if "" in named and len(named) > 1:
        stray = next(record["path"] for record in records if not record["split"])
        raise DataError(
            f"{root} mixes split folders ({', '.join(sorted(named - {''}))}) and others: {stray} is in no split. "
            "Leave folders out by name with --data-option skip=NAME."
        )


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122


plugin = SourcePlugin(
    load=load,
    address_help="PATH of class folders, maybe below train/val/test folders",
    options={"skip": "folders to leave out, as glob patterns separated by commas"},
)
