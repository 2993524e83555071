"""Which sets of the catalogue some data are, and whether published weights were trained on their films."""

from __future__ import annotations

from chestxray.data.catalogue import CatalogueEntry, at, catalogue
from chestxray.data.sources.addresses import Address, addresses_of, options_by_set
from chestxray.recipe import Recipe


def seen_before(recipe: Recipe, trained_on: tuple[str, ...]) -> str:
    """Return a sentence if the data of `recipe` are films that the sets `trained_on` have; ``""`` if none are known.

    Data are recognised by their name in the catalogue, by its address, or by the layout of their table: a folder of
    films does not say where they are from.
    """
    if not trained_on:
        return ""
    addresses = addresses_of(recipe)
    options = options_by_set(addresses, recipe.data_option)
    found = [_entry(one, own) for one, own in zip(addresses, options, strict=True)]
    films = {_films(name) for name in trained_on}
    seen = [entry for entry in found if entry is not None and _films(entry.name) in films]
    if not seen:
        return ""
    names = " and ".join(dict.fromkeys(f"{e.name} (films of {e.films_of})" if e.films_of else e.name for e in seen))
    return (
        f"This encoder was trained on {names}, which are among these data: its published weights have seen "
        f"{', '.join(trained_on)}. On films of these, a test is not external, and its results are likely too good."
    )


def _entry(address: Address, options: dict[str, str]) -> CatalogueEntry | None:
    entries = catalogue().entries.values()
    layout = options.get("layout")
    by_layout = next((entry for entry in entries if layout and entry.options.get("layout") == layout), None)
    return address.entry or at(address.text) or by_layout


def _films(name: str) -> str:
    """Return the set that the films of the set `name` are from."""
    entry = catalogue().entries.get(name)
    return (entry.films_of if entry else "") or name
