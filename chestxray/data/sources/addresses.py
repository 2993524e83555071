"""Parsing `--data`, `--test-data`, `--path` and `--data-option`: addresses, copies of sets, options of sources.

KIND:ADDRESS, DATA=DIR and DATA:NAME=VALUE are parsed only here, since addresses may themselves contain colons
and equals signs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chestxray import registry
from chestxray.data.catalogue import CatalogueEntry, catalogue
from chestxray.data.sources import from_catalogue, mask_folders
from chestxray.data.sources.folder import expanded
from chestxray.errors import InputError, nearest
from chestxray.plugin import SourcePlugin
from chestxray.recipe import Recipe
from chestxray.storage.files import ABSENT, refusal


@dataclass(frozen=True)
class Address:
    """One ``--data``: the text as given, its kind and address, and its entry in the catalogue, if any.

    ``copy``: a copy of the set on disk, from ``--path``.
    """

    text: str
    kind: str
    address: str
    entry: CatalogueEntry | None = None
    copy: Path | None = None

    @property
    def plugin(self) -> SourcePlugin:
        """The source that reads the data set."""
        return from_catalogue.plugin_of(self.kind, self.entry, self.copy)

    def takes(self, option: str) -> bool:
        """Return whether the source has an option of that name, or checks its options itself."""
        return self.plugin.options is None or option in self.plugin.options


def absolute(recipe: Recipe) -> Recipe:
    """Return the recipe with the paths of its data made absolute, so that it can be run from any folder.

    These are the addresses, copies and options that are paths relative to the current folder; the DATA in
    DATA=DIR and DATA:NAME=VALUE becomes absolute, too.

    Raises:
        InputError, PluginError: as `load_index`.
    """
    texts = {text: _absolute_data(text) for text in (*recipe.data, *recipe.test_data)}

    def of_copy(text: str) -> str:
        name = _longest(text, texts, "=")
        folder = _absolute_path(text if name is None else text[len(name) + 1 :])
        return folder if name is None else f"{texts[name]}={folder}"

    def of_option(option: str) -> str:
        target, name, value = _option(option, texts)
        takers = [a.plugin for a in addresses if target in (None, a.text) and a.takes(name)]
        if takers and all(name in plugin.path_options for plugin in takers):
            value = str(expanded(value).absolute())
        return f"{texts[target]}:{name}={value}" if target else f"{name}={value}"

    addresses = addresses_of(recipe) if recipe.data_option else []
    return recipe.replace(
        data=tuple(texts[text] for text in recipe.data),
        test_data=tuple(texts[text] for text in recipe.test_data),
        path=tuple(map(of_copy, recipe.path)),
        masks=tuple(map(mask_folders.absolute, recipe.masks)),
        data_option=tuple(map(of_option, recipe.data_option)),
    )


def parse(text: str) -> Address:
    """Parse the text of one ``--data``.

    >>> parse("folder:xrays").kind, parse("kermany").entry.name
    ('folder', 'kermany')

    Raises:
        InputError: neither KIND:ADDRESS nor a catalogue name.
    """
    kind, sign, address = text.partition(":")
    known = catalogue().entries
    if not sign and text in known:
        entry = known[text]
        kind, _, address = entry.address.partition(":")
        return Address(text, kind, address, entry)
    kinds = {entry.name for entry in registry.entries(registry.SOURCES)}
    if kind not in kinds and address.startswith("//"):
        raise InputError(
            f"Data is not fetched from a web address: download it, or name it as kaggle:OWNER/NAME or hf:OWNER/NAME. "
            f"Received: {text!r}."
        )
    # A path may contain a colon, and a path on Windows begins with a letter and a colon.
    if kind not in kinds and (not refusal(expanded(text)) or len(kind) == 1 or {"/", "\\"} & set(kind)):
        raise InputError(f"data must say how to read it. For {text!r}: folder:{text}, manifest:{text} or npz:{text}.")
    if sign or kind in kinds:
        return Address(text, kind, address)
    raise InputError(
        f"Unknown data {text!r}.{nearest(text, [*known, *kinds])} Allowed: KIND:ADDRESS with a kind of "
        f"{', '.join(sorted(kinds))}; or a name of the catalogue, {', '.join(known)}."
    )


def addresses_of(recipe: Recipe) -> list[Address]:
    """Return the address of every ``--data`` and ``--test-data``, with its copy from ``--path``.

    Raises:
        InputError: as `parse`; a copy that does not exist, or that does not say of which set it is.
    """
    addresses = [parse(text) for text in (*recipe.data, *recipe.test_data)]
    texts = [a.text for a in addresses]
    copies: dict[str, Path] = {}
    remote = list(dict.fromkeys(a.text for a in addresses if a.entry or a.kind in from_catalogue.REMOTE))
    for text in recipe.path:
        name = _longest(text, texts, "=")
        folder = text if name is None else text[len(name) + 1 :]
        if name is None and len(remote) == 1:
            name = remote[0]
        elif name is None:
            raise InputError(
                f"path must say which set it is a copy of, as DATA=DIR with DATA one of the sets that would be "
                f"downloaded ({', '.join(remote) or 'none of them'}). Received: {text!r}."
            )
        copies[name] = expanded(folder).absolute()
        if reason := refusal(copies[name]):
            what = "No such file or folder" if reason in ABSENT else f"Cannot be reached ({reason})"
            raise InputError(f"{what}: {folder!r} (path, the copy of {name}).")
    return [Address(a.text, a.kind, a.address, a.entry, copies.get(a.text)) for a in addresses]


def options_by_set(addresses: list[Address], options: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the NAME=VALUE options for each address, with paths made absolute.

    Raises:
        InputError: not NAME=VALUE, or an option that none of the sources accepts.
    """
    taken: list[dict[str, str]] = [{} for _ in addresses]
    for option in options:
        target, name, value = _option(option, [a.text for a in addresses])
        meant = [i for i, a in enumerate(addresses) if target in (None, a.text) and a.takes(name)]
        if not meant:
            allowed = sorted({known for a in addresses for known in a.plugin.options or ()})
            raise InputError(
                f"Unknown data_option {name!r}.{nearest(name, allowed)} Allowed for this data: "
                f"{', '.join(allowed) or 'none'}."
            )
        for i in meant:
            is_path = name in addresses[i].plugin.path_options
            taken[i][name] = str(expanded(value).absolute()) if is_path else value
    return taken


def _option(option: str, texts: Iterable[str]) -> tuple[str | None, str, str]:
    """Return (DATA or None, NAME, VALUE) of ``DATA:NAME=VALUE``. DATA may contain colons and equals signs."""
    target = _longest(option, texts, ":")
    name, sign, value = option.removeprefix(f"{target}:" if target else "").partition("=")
    if not name or not sign:
        raise InputError(f"data_option must be NAME=VALUE or DATA:NAME=VALUE. Received: {option!r}.")
    return target, name, value


def _longest(text: str, names: Iterable[str], sign: str) -> str | None:
    """Return the longest of `names` with which `text` begins, followed by `sign`, or None."""
    return max((name for name in names if text.startswith(name + sign)), key=len, default=None)


def _absolute_data(text: str) -> str:
    kind, sign, address = text.partition(":")
    path = expanded(address)
    there = {
        "kaggle": lambda: False,
        # A name on the hub or in tensorflow-datasets may by chance be that of a folder, too.
        "hf": path.is_dir,
        "tfds": (path / "dataset_info.json").is_file,
    }.get(kind, lambda: True)
    return f"{kind}:{path.absolute()}" if sign and address and not refusal(path) and there() else text


def _absolute_path(text: str) -> str:
    """Return the absolute path if it exists, else the text as given, for the error message."""
    path = expanded(text)
    return text if refusal(path) else str(path.absolute())
