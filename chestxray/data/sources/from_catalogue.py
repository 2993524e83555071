"""Data sets of the catalogue, and copies on disk of sets that would otherwise be downloaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from chestxray import registry
from chestxray.data.catalogue import CatalogueEntry
from chestxray.data.index import Index
from chestxray.data.sources.table import SUFFIXES
from chestxray.errors import InputError
from chestxray.plugin import SourceOptions, SourcePlugin

#: Kinds that download, for which a copy on disk can be used instead.
REMOTE = ("kaggle", "hf", "tfds")


def plugin_of(kind: str, entry: CatalogueEntry | None, copy: Path | None) -> SourcePlugin:
    """Return the source that reads the set: that of its layout for a copy and for a catalogued set from Kaggle."""
    if copy is not None:
        kind = _kind_of_copy(entry, copy)
    elif entry is not None and kind == "kaggle":
        kind = entry.layout
    return registry.load_plugin(registry.SOURCES, kind)


def load_catalogued(
    kind: str, address: str, entry: CatalogueEntry | None, copy: Path | None, options: SourceOptions
) -> Index:
    """Read a set of the catalogue, or (without `entry`) a copy of any set, and return its index.

    Raises:
        InputError: the copy does not have the layout of the set.
        DataError: an error of the source.
    """
    if copy is None and entry is not None and entry.on_disk_only:
        raise InputError(
            f"{entry.name} is read from a copy on disk only. Apply for it at {entry.homepage}: {entry.access} Then "
            f"name the folder of the copy: --path DIR."
        )
    plugin = plugin_of(kind, entry, copy)
    if entry is not None:
        known = plugin.options or {}
        # The catalogue has options for every way to read the set; each source gets those that it has.
        defaults = {name: value for name, value in entry.options.items() if name in known}
        options = dataclasses.replace(
            options,
            patient_pattern=options.patient_pattern or entry.patient_pattern,
            label_pattern=options.label_pattern or entry.label_pattern,
            skip=(*options.skip, *entry.skip),
            extra={**defaults, **options.extra},
        )
    if copy is None and entry is not None and kind == "kaggle":
        from chestxray.data.sources import kaggle

        copy = kaggle.download(address)
    if copy is not None and entry is not None and entry.task == "findings":
        # Tables and images may be in folders beside each other.
        below = copy if copy.is_dir() else copy.parent
        options = dataclasses.replace(options, extra={"root": str(below), **options.extra})
    index = plugin.load(str(_place(entry, copy)) if copy else address, options)
    return _named(index, entry)


def _kind_of_copy(entry: CatalogueEntry | None, copy: Path) -> str:
    if copy.is_file():
        table = copy.name.lower().endswith(SUFFIXES)
        return "npz" if copy.suffix.lower() == ".npz" else "manifest" if table else "folder"
    if (copy / "dataset_info.json").is_file() and (copy / "features.json").is_file():
        return "tfds"
    if entry is not None and entry.layout != "folder":
        return entry.layout
    # A clone of a Hugging Face repository has its images in Parquet files.
    return "hf" if next(copy.rglob("*.parquet"), None) else "folder"


def _place(entry: CatalogueEntry | None, copy: Path) -> Path:
    """Return the path below `copy` to read: the folder inside wrapping folders, the manifest or the npz file."""
    if entry is None or copy.is_file():
        return copy
    inner = next((copy / name for name in entry.root if (copy / name).is_dir()), copy)
    if entry.layout == "manifest":
        places = [place / name for place in (inner, copy) for name in entry.manifest]
        found = next((file for file in places if file.is_file()), None)
        if found is None:
            raise InputError(f"{copy} is no copy of {entry.name}: there is no {' or '.join(entry.manifest)} in it.")
        return found
    if entry.layout == "npz" and not (copy / "features.json").is_file():
        files = sorted(copy.glob("*.npz"))
        if len(files) != 1:
            raise InputError(f"{copy} is no copy of {entry.name}: one .npz file is wanted. Found: {len(files)}.")
        return files[0]
    return inner


def _named(index: Index, entry: CatalogueEntry | None) -> Index:
    if entry is None:
        return index
    return dataclasses.replace(
        index.replace(index.rows.assign(source=entry.name)),
        name=entry.name,
        licence=entry.licence,
        citation=entry.citation,
    )
