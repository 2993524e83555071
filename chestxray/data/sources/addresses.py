"""What `--data`, `--test-data`, `--path` and `--data-option` say: addresses, copies of sets, options of sources.

KIND:ADDRESS, DATA=DIR and DATA:NAME=VALUE are taken apart here alone, since addresses may have colons
and equals signs of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chestxray import registry
from chestxray.data.catalogue import CatalogueEntry, catalogue
from chestxray.data.sources import from_catalogue
from chestxray.data.sources.folder import expanded
from chestxray.errors import InputError, nearest
from chestxray.plugin import SourcePlugin
from chestxray.recipe import Recipe
from chestxray.storage.files import ABSENT, refusal


@dataclass(frozen=True)
class Address:
    """One ``--data``: as given, its kind and address, and what the catalogue knows of it.

    ``copy``: a copy of it on disk, from ``--path``.
    """

    text: str
    kind: str
    address: str
    entry: CatalogueEntry | None = None
    copy: Path | None = None

    @property
    def plugin(self) -> SourcePlugin:
        """The source that reads it."""
        return from_catalogue.plugin_of(self.kind, self.entry, self.copy)

    def takes(self, option: str) -> bool:
        """Whether its source has an option of that name, or checks options itself."""
        return self.plugin.options is None or option in self.plugin.options


def absolute(recipe: Recipe) -> Recipe:
    """The recipe with the paths of its data made absolute, so that it can be repeated from anywhere.

    Those are the addresses, copies and options that are paths, relative to the current folder; the name
    of a set in DATA=DIR and DATA:NAME=VALUE becomes absolute with the set.

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
        data_option=tuple(map(of_option, recipe.data_option)),
    )


def parse(text: str) -> Address:
    """What one ``--data`` means.

    >>> parse("folder:xrays").kind, parse("kermany").entry.name
    ('folder', 'kermany')

    Raises:
        InputError: neither KIND:ADDRESS nor a name of the catalogue.
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
    # A path may have a colon in it, and begins with one letter and a colon where it is one of Windows.
    if kind not in kinds and (not refusal(expanded(text)) or len(kind) == 1 or {"/", "\\"} & set(kind)):
        raise InputError(f"data must say how to read it. For {text!r}: folder:{text}, manifest:{text} or npz:{text}.")
    if sign or kind in kinds:
        return Address(text, kind, address)
    raise InputError(
        f"Unknown data {text!r}.{nearest(text, [*known, *kinds])} Allowed: KIND:ADDRESS with a kind of "
        f"{', '.join(sorted(kinds))}; or a name of the catalogue, {', '.join(known)}."
    )


def addresses_of(recipe: Recipe) -> list[Address]:
    """Every ``--data`` and ``--test-data``, joined to its copy of ``--path``.

    Raises:
        InputError: as `parse`; a copy of which it is not known whose it is, or that is not there.
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
    """For each address the NAME=VALUE pairs that are meant for it, its paths made absolute.

    Raises:
        InputError: no NAME=VALUE, or an option that none of the sources takes.
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
    """(DATA or None, NAME, VALUE) of ``DATA:NAME=VALUE``. Addresses may have colons and equals signs in them."""
    target = _longest(option, texts, ":")
    name, sign, value = option.removeprefix(f"{target}:" if target else "").partition("=")
    if not name or not sign:
        raise InputError(f"data_option must be NAME=VALUE or DATA:NAME=VALUE. Received: {option!r}.")
    return target, name, value


def _longest(text: str, names: Iterable[str], sign: str) -> str | None:
    """The longest of `names` that `text` begins with, `sign` behind it."""
    return max((name for name in names if text.startswith(name + sign)), key=len, default=None)


def _absolute_data(text: str) -> str:
    kind, sign, address = text.partition(":")
    path = expanded(address)
    there = {
        "kaggle": lambda: False,
        # A name of the hub or of tensorflow-datasets may be a folder here too, by chance.
        "hf": path.is_dir,
        "tfds": (path / "dataset_info.json").is_file,
    }.get(kind, lambda: True)
    return f"{kind}:{path.absolute()}" if sign and address and not refusal(path) and there() else text


def _absolute_path(text: str) -> str:
    """The path made absolute where there is something; what is not there is said as it was given."""
    path = expanded(text)
    return text if refusal(path) else str(path.absolute())
