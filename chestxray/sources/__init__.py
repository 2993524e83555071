"""Data sources: each ends with image files on local disk and an `Index`."""

from __future__ import annotations

from pathlib import Path

from chestxray import registry
from chestxray.errors import InputError
from chestxray.index import Index
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.recipe import Recipe


def load(recipe: Recipe, cache: Path) -> Index:
    """The index of the recipe's data.

    Raises:
        InputError: data that is not KIND:ADDRESS.
        PluginError: an unknown kind.
        DataError: as the source says.
    """
    if len(recipe.data) != 1:
        raise InputError(f"data must name one data set. Received: {', '.join(recipe.data) or 'none'}.")
    kind, _, address = recipe.data[0].partition(":")
    source: SourcePlugin = registry.load(registry.SOURCES, kind)
    options = SourceOptions(
        cache=cache,
        seed=recipe.seed,
        patient_pattern=recipe.patient_pattern,
        extra=_extra(recipe.data_option),
    )
    return source.load(address, options)


def _extra(options: tuple[str, ...]) -> dict[str, str]:
    pairs = [option.partition("=") for option in options]
    for name, sign, _ in pairs:
        if not name or not sign:
            raise InputError(f"data_option must be NAME=VALUE. Received: {name!r}.")
    return {name: value for name, _, value in pairs}
