"""The catalogue of public data sets, read from ``datasets.toml``."""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from chestxray.errors import ChestXrayError
from chestxray.storage import seal

FILE = Path(__file__).with_name("datasets.toml")


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """A public data set.

    ``address`` is KIND:ADDRESS as in ``--data``, with the version pinned if it is known; ``layout`` is
    how a copy on disk is read (a folder of classes, a manifest, an npz file), ``root`` the wrapping
    folders that such a copy may have, ``skip`` the folders that are left out. ``aliases`` maps each
    class to its spellings in this set besides the common ones, ``drop`` lists labels that are always
    left out, ``finer`` maps optional classes, used only on request, to a pattern of their file names.

    ``task`` says whether ``classes`` are classes or findings. ``access`` is what must be signed or done to get the
    set; with ``on_disk_only`` it is read from a copy (``--path``) alone, and ``homepage`` is where to apply.
    ``films_of`` is the set of which this one has the films, under other labels; ``""`` for films of its own.
    ``view_column`` is the heading of the view in its table, ``""`` if it has none. ``manifest`` has the names of its
    table, of which a copy has one.
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
    manifest: tuple[str, ...] = ()
    task: Literal["classes", "findings"] = "classes"
    access: str = ""
    on_disk_only: bool = False
    view_column: str = ""
    films_of: str = ""
    patient_pattern: str | None = None
    label_pattern: str | None = None
    drop: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    finer: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalogue:
    """All entries by name; ``aliases`` maps each class to its spellings in any set, ``parts`` to its subclasses,
    ``findings`` each finding to its spellings.
    """

    entries: Mapping[str, CatalogueEntry]
    aliases: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, tuple[str, ...]]
    findings: Mapping[str, tuple[str, ...]]


@functools.cache
def catalogue(file: Path = FILE) -> Catalogue:
    """Read the catalogue from `file`.

    >>> catalogue().entries["kermany"].licence
    'CC BY 4.0'
    """
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    return Catalogue(
        entries={name: _entry(name, fields) for name, fields in content["sets"].items()},
        aliases=_tuples(content["aliases"]),
        parts=_tuples(content["parts"]),
        findings=_tuples(content["findings"]),
    )


def at(address: str) -> CatalogueEntry | None:
    """Return the entry with that KIND:ADDRESS in any version, None if the catalogue has none."""
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
    """Return the folder of a set that was downloaded before, in kagglehub's cache or in `cache`; None if there is none.

    Importing kagglehub takes a second, too long to list the sets; its layout (one folder per version,
    and a marker beside the folder once it is complete) is read here and compared with kagglehub in a test.
    """
    kind, _, address = entry.address.partition(":")
    if kind != "kaggle":
        folder = {"hf": "huggingface"}.get(kind, kind)
        name = address.replace("/", "-")
        return next((file.parent for file in sorted((cache / folder).glob(f"{name}-*/{seal.FILE}"))), None)
    handle, _, version = address.partition("/versions/")
    default = Path.home() / ".cache" / "kagglehub"
    root = Path(os.environ.get("KAGGLEHUB_CACHE", default)) / "datasets" / handle
    found = {int(v.name): v for v in (root / "versions").glob("*") if v.name.isdigit()}
    whole = {number: place for number, place in found.items() if (root / f"{number}.complete").is_file()}
    return whole.get(int(version)) if version else whole[max(whole)] if whole else None
