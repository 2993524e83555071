"""`folder:PATH`: a folder of class folders, which may be inside train, validation and test folders.

If the class is in the file's name instead, ``--label-pattern`` says how to read it.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chestxray.data.images.listing import walk
from chestxray.data.images.reading import SUFFIXES, UNREAD_SUFFIXES
from chestxray.data.index import Index
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.storage.files import ABSENT, refusal

#: Usual names of split folders, in lower case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "validate": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
#: Names of folders, in lower case, whose images are lung masks for the images in the folder beside them.
MASK_FOLDERS = frozenset({"masks", "mask"})
#: Archives made on a Mac have a metadata file for every file in such a folder.
_ALWAYS_SKIPPED = ("__MACOSX",)


def load(address: str, options: SourceOptions) -> Index:
    """Return an index of ``PATH/CLASS/**`` or ``PATH/SPLIT/CLASS/**``, or of any tree with a label pattern.

    Hidden and ``__MACOSX`` folders and those in `options.skip` are skipped. Notes list what else is not
    in the index: files that are not images, images in unsupported formats, folders that cannot be listed,
    folders that were read before under another name. Images in a folder ``masks`` have no rows of their
    own: if one has the name of an image in the folder ``images`` beside it, the column ``lung_mask`` of
    that image's row is its path.

    Raises:
        InputError: no such folder; a pattern that is not a regular expression with a group.
        DataError: no images, no class folders, a file that the label pattern does not match, or a folder
            that cannot be listed and may contain all images of a class.
    """
    root = expanded(address).absolute()
    reason = refusal(root)
    if not address or reason or not root.is_dir():
        explanation = "" if reason in ("", *ABSENT) else f" ({reason})"
        raise InputError(
            f"No folder {address!r}{explanation}. folder:PATH must name a folder of class folders (PATH/CLASS/*.png)."
        )
    patients = compiled("patient pattern", options.patient_pattern)
    labels = compiled("label pattern", options.label_pattern)
    skip = (*options.skip, *(name.strip() for name in options.extra.get("skip", "").split(",") if name.strip()))
    beside = Beside()
    records = []
    for place, names in image_folders(root, skip, beside):
        split, label = _place(place)
        if not label and labels is None:
            raise DataError(
                f"{root / place / names[0]} lies outside any class folder. folder:PATH needs PATH/CLASS/*.png or "
                "PATH/SPLIT/CLASS/*.png, or --label-pattern where the class is in the file's name."
            )
        masks = _masks_beside(root, root / place, beside)
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
        what = f" {beside.refusals()}" if beside.unlisted else ""
        raise DataError(f"No images under {root}. Looked for files ending in {' '.join(sorted(SUFFIXES))}.{what}")
    _check_splits(records, root)
    if labels is None:
        _check_classes(records, root, beside)
    name = root.parent.name if root.name.lower() == "images" else root.name
    return Index.from_records(_even(records), name=name, notes=beside.notes(root))


@dataclass
class Beside:
    """What a search of folders found besides readable images.

    ``others``: number of files that are not images, by suffix. ``unread``: images in unsupported
    formats. ``unlisted``: folders that cannot be listed, with the reason. ``again``: folders that were
    read before under another name, through a link. Paths are relative to the root.
    """

    others: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    unlisted: dict[str, str] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)

    def notes(self, root: Path) -> list[str]:
        """Return one sentence for each kind that was found below `root`."""
        found = []
        if self.others:
            kinds = ", ".join(f"{number:,} {suffix}" for suffix, number in self.others.most_common(5))
            found.append(
                f"{self.others.total():,} files below {root.name} are no images by their suffix and were passed "
                f"over: {kinds}."
            )
        if self.unread:
            found.append(
                f"{len(self.unread):,} images below {root.name} are in formats that are not read and were left out: "
                f"{first_few(self.unread)}."
            )
        if self.again:
            found.append(
                f"{len(self.again):,} folders below {root.name} are links to folders that were read under another "
                f"name, and were not read again: {first_few(self.again)}."
            )
        if self.unlisted:
            found.append(self.refusals())
        return found

    def refusals(self) -> str:
        """Return a sentence that names the folders that cannot be listed."""
        explanation = [f"{place or 'the folder itself'} ({reason})" for place, reason in self.unlisted.items()]
        return f"{len(explanation):,} folders cannot be listed, and nothing in them was read: {first_few(explanation)}."


def first_few(items: Sequence[str], most: int = 5) -> str:
    """Return the first `most` items, shortened if they are very long, and the number of others, as text."""
    rest = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(item if len(item) <= 300 else f"{item[:150]} ... {item[-100:]}" for item in items[:most]) + rest


def expanded(address: str) -> Path:
    """Return the path with ``~`` replaced, unchanged if there is no such home folder; Path.expanduser would raise."""
    return Path(os.path.expanduser(address))  # noqa: PTH111


def image_folders(root: Path, skip: Iterable[str], beside: Beside) -> Iterator[tuple[str, list[str]]]:
    """Yield (path below `root`, names of its image files), sorted; links are followed, but never in a circle.

    Mask folders are left out; other folders and files that are left out are recorded in `beside`.
    """
    patterns = (*_ALWAYS_SKIPPED, *skip)

    def enter(place: str, name: str) -> bool:
        return not _skipped(place, name, patterns)

    def refused(error: OSError) -> None:
        place = os.path.relpath(str(error.filename), root).replace(os.sep, "/")
        beside.unlisted["" if place == "." else place] = error.strerror or type(error).__name__

    for _, place, names in walk(root, enter, refused, beside.again.append):
        images = [name for name in names if _suffix(name) in SUFFIXES]
        if place:
            beside.unread += [f"{place}/{name}" for name in names if _suffix(name) in UNREAD_SUFFIXES]
            known = SUFFIXES | UNREAD_SUFFIXES
            beside.others.update(_suffix(name) or "(none)" for name in names if _suffix(name) not in known)
        if images:
            yield place, images


def compiled(what: str, pattern: str | None) -> re.Pattern[str] | None:
    """Compile a regular expression of the user (None stays None); `what` names it in messages.

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
    """Return the patient in a file's path below the folder: the matched groups joined by ``-``, ``""`` if none."""
    match = pattern.search(inner) if pattern else None
    return "-".join(group for group in match.groups() if group) if match else ""


def label_of(inner: str, pattern: re.Pattern[str]) -> str:
    """Return the class in a file's path: the name of the matched named group, else the text of the matched groups.

    Raises:
        DataError: the pattern does not match the path.
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
    """Return (split, class folder) of a path below the root, each ``""`` if there is none."""
    parts = place.split("/") if place else []
    split = SPLIT_NAMES.get(parts[0].lower(), "") if parts else ""
    rest = parts[1:] if split else parts
    return split, rest[0] if rest else ""


def _skipped(place: str, name: str, patterns: Iterable[str]) -> bool:
    if name.lower() in MASK_FOLDERS:
        return True
    inner = f"{place}/{name}" if place else name
    return any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(inner, pattern) for pattern in patterns)


def _masks_beside(root: Path, folder: Path, beside: Beside) -> dict[str, str]:
    """Return the paths of the masks for the images of a folder called ``images``, by name without suffix."""
    if folder.name.lower() != "images":
        return {}
    found = {}
    for child in folder.parent.iterdir():
        if child.name.lower() not in MASK_FOLDERS or not child.is_dir():
            continue
        try:
            files = sorted(child.iterdir())
        except OSError as error:
            place = child.relative_to(root).as_posix()
            beside.unlisted[place] = error.strerror or type(error).__name__
            continue
        for file in files:
            if _suffix(file.name) in SUFFIXES and not file.name.startswith("."):
                found[_stem(file.name)] = str(file)
    return found


def _even(records: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the records with ``lung_mask`` in all of them if any has it."""
    if any("lung_mask" in record for record in records):
        for record in records:
            record.setdefault("lung_mask", "")
    return records


def _check_classes(records: list[dict[str, str]], root: Path, beside: Beside) -> None:
    """Raise `DataError` if no folder of a class can be listed: the class would be missing without notice."""
    known = {(record["split"], record["label"]) for record in records}
    for place, reason in beside.unlisted.items():
        if _place(place) not in known and place.rpartition("/")[2].lower() not in MASK_FOLDERS:
            raise DataError(
                f"{root / place} cannot be listed ({reason}), and nothing else of its class is there. Make it readable "
                f"or shorter, or leave it out on purpose with --data-option 'skip={_place(place)[1] or place}'."
            )


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
