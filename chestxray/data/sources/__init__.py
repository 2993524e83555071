"""Data sources, each of which provides image files on the local disk and an `Index` of them.

`load_index` reads the data sets that a recipe names, by KIND:ADDRESS or by catalogue name, gives the classes
common names and merges the sets into one index.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from chestxray import registry
from chestxray.data.catalogue import CatalogueEntry, at, catalogue
from chestxray.data.finding_names import (
    asked_by_common_names,
    harmonise_findings,
    with_uncertain,
    without_unlabelled,
)
from chestxray.data.index import Index, Task
from chestxray.data.label_mapping import (
    Naming,
    alias_keys,
    by_set,
    check_parts,
    check_single,
    check_used,
    harmonise,
    key,
    merge,
    naming,
    require_one_task,
)
from chestxray.data.sources import from_catalogue, opened_keys
from chestxray.data.sources.addresses import Address, absolute, addresses_of, options_by_set, parse
from chestxray.data.sources.mask_folders import with_masks
from chestxray.data.views import chosen
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.recipe import Recipe

__all__ = ["Address", "absolute", "load_index", "parse"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Set:
    """A data set as its source returned it."""

    index: Index
    address: Address
    external: bool

    @property
    def opener(self) -> opened_keys.Open | None:
        """What opens the keys of the set; None where it has paths."""
        by_catalogue = self.address.entry or self.address.copy
        return None if by_catalogue else self.address.plugin.open


def load_index(recipe: Recipe, cache: Path, *, every_class: bool = True, task: Task | None = None) -> Index:
    """Return the index of the recipe's data: all of ``data`` and ``test_data``, harmonised and merged.

    If a single set is read that is not in the catalogue, labels keep the names found; otherwise they
    get their common names. If there is ``test_data``, the index has a column ``external``, True for
    its rows. Without `every_class`, a class of ``recipe.classes`` may have no images. Images are left out by their
    view (`chestxray.data.views`), and with findings those of which none is known. `task` is the one that the data must
    have, None for any.

    Raises:
        InputError: data that is neither KIND:ADDRESS nor a catalogue name; an option that no source
            accepts; masks of no class or image.
        PluginError: an unknown kind.
        DataError: an error of the source; an unknown label, or a requested class without images; another task.
    """
    if not recipe.data:
        raise InputError("data must name at least one data set, as KIND:ADDRESS or by its catalogue name.")
    recipe = absolute(recipe)
    addresses = addresses_of(recipe)
    for one in addresses:
        if not one.entry and (listed := at(one.text)):
            log.info("%s is in the catalogue as %s: --data %s knows its layout.", one.text, listed.name, listed.name)
    options = options_by_set(addresses, recipe.data_option)
    sets = [
        _Set(_read(address, recipe, cache, options[i], len(addresses)), address, i >= len(recipe.data))
        for i, address in enumerate(addresses)
    ]
    if task is not None:
        _require_task([one.index for one in sets], task)
    if len(sets) > 1 or sets[0].address.entry or recipe.classes or recipe.map or recipe.drop:
        index = _harmonised(sets, recipe, every_class)
    else:
        index = sets[0].index
        if index.task == "classes":
            check_single(index, Naming())
    index.require_names()
    index = chosen(index, recipe.view)
    if index.task == "findings":
        index = without_unlabelled(index)
    index = with_uncertain(index, recipe.uncertain, lacking=() if every_class else recipe.classes)
    # Last, so that images which are left out are not fetched.
    openers = {one.address.text: one.opener for one in sets if one.opener is not None}
    index = opened_keys.as_files(index, openers, cache)
    return index.replace(with_masks(index.rows, index.classes, recipe.masks)) if recipe.masks else index


def _require_task(indexes: list[Index], task: Task) -> None:
    words: dict[Task, str] = {"classes": "one class an image", "findings": "findings"}
    for index in indexes:
        if index.task != task:
            raise DataError(
                f"The model was trained on {words[task]}, and {index.name} has {words[index.task]}: they cannot be "
                f"compared. Allowed: data with {words[task]}."
            )


def _read(address: Address, recipe: Recipe, cache: Path, extra: dict[str, str], sets: int) -> Index:
    # Patterns for all data sets at once do not apply to sets in the catalogue.
    own = sets == 1 or address.entry is None
    options = SourceOptions(
        cache=cache,
        # Drawn data depends on the seed of the splits: trainings that differ only in their seed see the same images.
        seed=recipe.splits_by,
        patient_pattern=recipe.patient_pattern if own else None,
        label_pattern=recipe.label_pattern if own else None,
        extra=extra,
        by=recipe.by,
    )
    if address.entry or address.copy:
        return from_catalogue.load_catalogued(address.kind, address.address, address.entry, address.copy, options)
    plugin: SourcePlugin = registry.load_plugin(registry.SOURCES, address.kind)
    index = plugin.load(address.address, options)
    index.require_columns()
    return opened_keys.keyed(index, address.text) if plugin.open else index


def _harmonised(sets: list[_Set], recipe: Recipe, every_class: bool) -> Index:
    require_one_task([one.index for one in sets])
    of_findings = sets[0].index.task == "findings"
    common = len(sets) > 1 or sets[0].address.entry is not None
    shared = alias_keys(catalogue().findings if of_findings else catalogue().aliases)
    # A label that all sets have is its own common name if the catalogue has none for it.
    everywhere = set.intersection(*({key(label) for label in _labels(one.index)} for one in sets))
    shared = {key(label): label for label in _labels(sets[0].index) if key(label) in everywhere} | shared
    done: list[Index] = []
    rules: list[Naming] = []
    maps, drops = (by_set(items, [one.address.text for one in sets]) for items in (recipe.map, recipe.drop))
    for one in sets:
        entry, text = one.address.entry, one.address.text
        own = recipe.replace(map=maps[""] + maps[text], drop=drops[""])
        rule = naming(own, shared | alias_keys(entry.aliases if entry else {}), common=common)
        known = rule.mapping.keys() | rule.wanted.keys()
        by_rule = {key(label) for label in (entry.drop if entry else ())} - known
        # A class may be dropped from one set although others have it.
        by_rule |= {key(label) for label in drops[text]}
        rules.append(dataclasses.replace(rule, dropped=rule.dropped | by_rule))
        done.append(one.index if of_findings else _finer(one.index, entry, rule))
        check_used(recipe.replace(map=maps[text], drop=drops[text]), _labels(done[-1]), rules[-1].aliases)
    spellings = {k: name for rule in rules for k, name in rule.aliases.items()}
    labels = (label for index in done for label in _labels(index))
    check_used(recipe.replace(map=maps[""], drop=drops[""]), labels, spellings)
    if of_findings:
        rules = [asked_by_common_names(rule) for rule in rules]
        done = [harmonise_findings(index, rule) for index, rule in zip(done, rules, strict=True)]
    else:
        done = [harmonise(index, rule) for index, rule in zip(done, rules, strict=True)]
    if recipe.test_data:
        done = [index.replace(index.rows.assign(external=one.external)) for index, one in zip(done, sets, strict=True)]
    wanted = tuple(dict.fromkeys(rules[0].wanted.values()))
    if not every_class:
        found = {label for index in done for label in _labels(index)}
        wanted = tuple(name for name in wanted if name in found)
    trained = merge([index for index, one in zip(done, sets, strict=True) if not one.external], wanted)
    for index, one in zip(done, sets, strict=True):
        if one.external and not of_findings:
            index.with_classes(trained.classes)
    if of_findings:
        done = [index.with_classes(trained.classes) for index in done]
    result = merge(done, trained.classes)
    if not wanted and common and not of_findings:
        check_parts(result, catalogue().parts)
    return result


def _labels(index: Index) -> list[str]:
    """Return the findings that an index knows, or the labels of its rows."""
    return list(index.classes) if index.task == "findings" else list(index.rows["label"].unique())


def _finer(index: Index, entry: CatalogueEntry | None, rules: Naming) -> Index:
    """Return the index with images assigned to the optional finer classes of the catalogue that were requested."""
    asked = {key(rule) for rule in rules.wanted.values()} | set(rules.mapping)
    chosen = {name: pattern for name, pattern in (entry.finer if entry else {}).items() if key(name) in asked}
    if not chosen:
        return index
    labels: pd.Series = index.rows["label"].copy()
    files = index.rows["path"].map(os.path.basename)
    for name, pattern in chosen.items():
        labels[files.str.contains(pattern, regex=True)] = name
    return index.replace(index.rows.assign(label=labels))
