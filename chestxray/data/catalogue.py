"""The catalogue of public data sets: what ``datasets.toml`` says of each."""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from chestxray.errors import ChestXrayError

FILE = Path(__file__).with_name("datasets.toml")


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """A public set.

    ``address`` is KIND:ADDRESS as ``--data`` takes it, with the version pinned where it is known;
    ``layout`` is how a copy on disk is read (a folder of classes, a manifest, an npz file), ``root``
    the wrapping folders that such a copy may have, ``skip`` the folders that are left out.
    ``aliases`` maps class -> spellings found in this set beside the common ones, ``drop`` lists
    labels left out by rule, ``finer`` maps class -> pattern of the file names that belong to it,
    for classes that are used only where they are asked for.
    """

    name: str
    title: str
    address: str
    layout: Literal["folder", "manifest", "npz"]
    classes: tuple[str, ...]
    images: int
    megabytes: int
    official_split: bool
    licence: str
    citation: str
    homepage: str
    defects: str
    root: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    manifest: str = ""
    patient_pattern: str | None = None
    label_pattern: str | None = None
    drop: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    finer: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalogue:
    """All entries by name; ``aliases`` maps class -> spellings anywhere, ``parts`` class -> its parts."""

    entries: Mapping[str, CatalogueEntry]
    aliases: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, tuple[str, ...]]


@functools.cache
def catalogue(file: Path = FILE) -> Catalogue:
    """Read the catalogue.

    >>> catalogue().entries["kermany"].licence
    'CC BY 4.0'
    """
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    return Catalogue(
        entries={name: _entry(name, fields) for name, fields in content["sets"].items()},
        aliases=_tuples(content["aliases"]),
        parts=_tuples(content["parts"]),
    )


def at(address: str) -> CatalogueEntry | None:
    """The entry behind KIND:ADDRESS, whatever its version; None where the catalogue has none."""
    bare = address.partition("/versions/")[0]
    return next((e for e in catalogue().entries.values() if e.address.partition("/versions/")[0] == bare), None)


def _entry(name: str, fields: dict[str, object]) -> CatalogueEntry:
    ready = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    if "aliases" in ready:
        ready["aliases"] = _tuples(ready["aliases"])  # type: ignore[arg-type]
    try:
        return CatalogueEntry(name=name, **ready)  # type: ignore[arg-type]
    except TypeError as error:
        raise ChestXrayError(
            f"The catalogue's entry {name} is not as chestxray.data.catalogue.CatalogueEntry has it: {error}."
        ) from error


def _tuples(table: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(values) for key, values in table.items()}


def on_disk(entry: CatalogueEntry, cache: Path) -> Path | None:
    """Where a set is already: in kagglehub's cache, or written as files in ours; None if nowhere.

    kagglehub takes a second to be imported, too long for a list; its layout (a folder a version, and
    a marker beside the folder once it is whole) is read here and checked against kagglehub in a test.
    """
    kind, _, address = entry.address.partition(":")
    if kind != "kaggle":
        folder = {"hf": "huggingface"}.get(kind, kind)
        name = address.replace("/", "-")
        return next((found for found in sorted((cache / folder).glob(f"{name}-*")) if found.suffix == ""), None)
    handle, _, version = address.partition("/versions/")
    default = Path.home() / ".cache" / "kagglehub"
    root = Path(os.environ.get("KAGGLEHUB_CACHE", default)) / "datasets" / handle
    found = {int(v.name): v for v in (root / "versions").glob("*") if v.name.isdigit()}
    whole = {number: place for number, place in found.items() if (root / f"{number}.complete").is_file()}
    return whole.get(int(version)) if version else whole[max(whole)] if whole else None
