"""Mapping the labels of one or several data sets to the classes of a run, and merging the sets.

Spellings are compared without regard to case, spaces and punctuation. The class of a label is
decided in this order:

1. ``map`` (FROM=TO), FROM being the label as found or its common name;
2. ``drop``: the images are left out, and counted; in both, DATA:... refers to one set alone;
3. ``classes``: a requested class, by its own spelling or by its common name;
4. the common name in the alias map if `Naming.common` is True, else the label as found.

A label that none of them knows is an error that lists the labels found: nothing is lost silently.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from chestxray.data import column_kinds
from chestxray.data.index import Index, key
from chestxray.errors import DataError, InputError, nearest
from chestxray.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Naming:
    """The rules by which labels become classes.

    ``aliases``, ``mapping``, ``wanted`` map the key of a spelling (see `key`) to a name; ``dropped``
    are keys. ``common``: labels get their common names, and one without a common name is an error.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    mapping: Mapping[str, str] = field(default_factory=dict)
    wanted: Mapping[str, str] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    common: bool = False

    def name(self, label: str) -> str | None:
        """Return the class of a label as found; ``""`` if it is dropped, None if it is unknown."""
        own = key(label)
        shared = self.aliases.get(own, "")
        if own in self.mapping or key(shared) in self.mapping:
            # The target of a map is a class and is not mapped again.
            found = self.mapping.get(own) or self.mapping[key(shared)]
            own, shared = key(found), self.aliases.get(key(found), found)
        elif not self.common:
            found = label
        else:
            found = shared
        if own in self.dropped or (shared and key(shared) in self.dropped):
            return ""
        if self.wanted:
            return self.wanted.get(own) or self.wanted.get(key(shared))
        return found or None


def alias_keys(*tables: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the class name by the key of every spelling. Later tables override earlier ones."""
    return {key(spelling): name for table in tables for name, all_ in table.items() for spelling in (name, *all_)}


def by_set(items: Iterable[str], sets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the items of ``map`` or ``drop`` by the set that they refer to, without ``DATA:``; ``""`` has those for
    all sets.

    >>> by_set(["opacity", "other:opacity"], ["one", "other"])
    {'': ('opacity',), 'one': (), 'other': ('opacity',)}
    """
    found: dict[str, tuple[str, ...]] = dict.fromkeys(("", *sets), ())
    for item in items:
        own = next((text for text in sets if item.startswith(f"{text}:")), "")
        found[own] += (item.removeprefix(f"{own}:") if own else item,)
    return found


def naming(recipe: Recipe, aliases: Mapping[str, str], *, common: bool) -> Naming:
    """Return the `Naming` that a recipe specifies.

    Raises:
        InputError: a map that is not FROM=TO; repeated classes; a class that is both requested and dropped.
    """
    classes = [part.strip() for text in recipe.classes for part in text.split(",") if part.strip()]
    wanted = {key(name): name for name in classes}
    if len(wanted) < len(classes):
        raise InputError(f"classes must differ from each other. Received: {', '.join(classes)}.")
    pairs = [text.rpartition("=") for text in recipe.map]
    for (before, sign, after), text in zip(pairs, recipe.map, strict=True):
        if not sign or not before.strip() or not after.strip():
            raise InputError(f"map must be FROM=TO, two class names. Received: {text!r}.")
    dropped = frozenset(key(name) for name in recipe.drop)
    if both := [name for k, name in wanted.items() if k in dropped]:
        raise InputError(f"A class cannot be asked for (classes) and dropped (drop). Received: {', '.join(both)}.")
    return Naming(
        aliases=aliases,
        mapping={key(before): _proper(after.strip(), wanted, aliases, common) for before, _, after in pairs},
        wanted=wanted,
        dropped=dropped,
        common=common,
    )


def check_single(index: Index, rules: Naming) -> None:
    """Raise `DataError` if labels join several findings and the rules do not say what such a label means.

    Public tables join findings by ``|`` (NIH), as a list in brackets (PadChest), or by ``;`` or a comma.
    The latter two count only if each part is also a label by itself; commas, which names may contain
    (COVID-19, ARDS), only if there are several such labels.
    """
    counts = index.rows["label"].value_counts()
    joined = _joined_findings([str(label) for label in counts.index])
    several = [label for label in joined if key(label) not in rules.wanted and rules.name(label) in (None, label)]
    if several:
        first = several[0]
        raise DataError(
            f"{int(counts[several].sum()):,} of {len(index):,} images of {index.name} have several findings at once "
            f"({len(several):,} different labels, such as {first!r}), and one class an image is asked for. Read "
            "them as findings (of a table: --data-option findings_column=HEADING, or layout=NAME), use the images "
            "with a single one (of a table: --data-option 'where=COLUMN=VALUE|VALUE'), or say of each label "
            f"what it is (--map '{first}=CLASS') or that it is left out (--drop '{first}')."
        )


def harmonise(index: Index, rules: Naming) -> Index:
    """Return the index with the classes that `rules` give to its labels; a note counts the dropped images.

    Raises:
        DataError: a label that is not mapped, dropped or requested, or that joins several findings; no
            image is left.
    """
    check_single(index, rules)
    counts = index.rows["label"].value_counts()
    names = {str(label): rules.name(str(label)) for label in counts.index}
    if unknown := [label for label, name in names.items() if name is None]:
        raise DataError(_unknown(index, rules, unknown, counts))
    labels = index.rows["label"].map(names)
    left_out = sum(int(counts[label]) for label, name in names.items() if name == "")
    rows = index.rows.assign(label=labels)[labels != ""]
    if rows.empty:
        raise DataError(f"No images of {index.name} are left: all its classes were dropped.")
    notes = list(index.notes)
    if left_out:
        gone = ", ".join(sorted(label for label, name in names.items() if name == ""))
        notes.append(f"{left_out} images of {index.name} were left out because their class was dropped: {gone}.")
    found = set(rows["label"])
    order = [name for name in rules.wanted.values() if name in found] or sorted(found)
    return dataclasses.replace(index, rows=rows.reset_index(drop=True), classes=tuple(order), notes=tuple(notes))


def merge(indexes: Sequence[Index], wanted: Sequence[str] = ()) -> Index:
    """Return one index of several whose classes have been harmonised; every row keeps its source.

    A number is added to the name of a source that occurs several times. The classes are in the order
    of `wanted`, else sorted.

    Of indexes of findings, the findings are the union of theirs, and what one does not label is not known there.

    Raises:
        DataError: a class in `wanted` has no images, or no index has that finding; an index of findings beside one of
            classes.
    """
    require_one_task(indexes)
    of_findings = indexes[0].task == "findings"
    taken: dict[str, int] = {}
    frames = []
    for index in indexes:
        frame = index.rows
        for name in sorted(frame["source"].unique()):
            taken[name] = taken.get(name, 0) + 1
            if taken[name] > 1:
                frame = frame.assign(source=frame["source"].replace(name, f"{name}-{taken[name]}"))
        frames.append(frame)
    names = tuple(dict.fromkeys(name for index in indexes for name in index.classes))
    if of_findings:
        from chestxray.data.finding_names import merged_rows

        rows = merged_rows(frames, names)
    else:
        rows = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    rows = rows.assign(**{name: column_kinds.as_text(rows[name]) for name in rows if column_kinds.is_mixed(rows[name])})
    # A column that only some of the sets have is filled with "" for the others.
    extra = [column for column in rows.columns if rows[column].dtype == object or rows[column].dtype == "str"]
    rows = rows.assign(**{column: rows[column].fillna("") for column in extra})
    if any(index.drawn.any() for index in indexes):
        rows = rows.assign(drawn=pd.concat([index.drawn for index in indexes], ignore_index=True))
    found = set(names) if of_findings else set(rows["label"])
    if missing := [name for name in wanted if name not in found]:
        raise DataError(
            f"{'No finding' if of_findings else 'No images of class'} {', '.join(missing)} in "
            f"{_joined(i.name for i in indexes)}. "
            f"Found: {', '.join(sorted(found))}."
        )
    return Index(
        rows=rows.sort_values("path", kind="stable").reset_index(drop=True),
        classes=tuple(wanted) or (names if of_findings else tuple(sorted(found))),
        task=indexes[0].task,
        name=_joined(index.name for index in indexes),
        licence=_joined((index.licence for index in indexes), "; "),
        citation=_joined((index.citation for index in indexes), " | "),
        notes=tuple(note for index in indexes for note in index.notes),
        kinds=column_kinds.merged(frames, [index.kinds for index in indexes]),
    )


def require_one_task(indexes: Sequence[Index]) -> None:
    """Raise `DataError` if some of the indexes have one class an image and others findings."""
    classes = [index for index in indexes if index.task == "classes"]
    others = [index for index in indexes if index.task == "findings"]
    if classes and others:
        raise DataError(
            f"{classes[0].name} has one class an image ({', '.join(classes[0].classes[:5])}) and {others[0].name} has "
            "findings: they cannot be merged, as a class says nothing of the other findings. Read both as findings "
            "(of a table: --data-option DATA:findings_column=HEADING) or leave one out."
        )


def check_parts(index: Index, parts: Mapping[str, Sequence[str]]) -> None:
    """Raise `DataError` if `index` has both a class and a subclass of it (`parts` maps classes to subclasses)."""
    for whole, its_parts in parts.items():
        if whole in index.classes and (both := [part for part in its_parts if part in index.classes]):
            part = both[0]
            raise DataError(
                f"{index.name} has both {whole} and {', '.join(both)}, which is a kind of it. Join them "
                f"(--map {part}={whole}), leave one out (--drop {part}) or keep them apart on purpose "
                f"(--classes {','.join(index.classes)})."
            )


def _joined_findings(labels: Sequence[str]) -> list[str]:
    """Return those of `labels` that join several findings, in their order."""
    alone = {key(label) for label in labels}

    def joined(label: str, sign: str) -> bool:
        parts = _parts(label, sign)
        return len(parts) > 1 and all(key(part) in alone for part in parts)

    commas = [label for label in labels if joined(label, ",")]
    return [
        label
        for label in labels
        if len(_parts(label, "|")) > 1
        or re.fullmatch(r"\[.*,.*\]", label)
        or joined(label, ";")
        or (label in commas and len(commas) > 1)
    ]


def _parts(label: str, sign: str) -> list[str]:
    return [part for part in map(str.strip, label.split(sign)) if part]


def _proper(name: str, wanted: Mapping[str, str], aliases: Mapping[str, str], common: bool) -> str:
    """Return the class that the TO of a map means, whatever its spelling."""
    if key(name) in wanted:
        return wanted[key(name)]
    return aliases.get(key(name), name) if common else name


def _unknown(index: Index, rules: Naming, unknown: list[str], counts: pd.Series) -> str:
    found = ", ".join(f"{label} ({number:,})" for label, number in counts.items())
    allowed = list(rules.wanted.values()) or sorted(set(rules.aliases.values()))
    label = unknown[0]
    if target := rules.mapping.get(key(label)):
        close = nearest(target, allowed)
        return f"map sends {label} to {target!r}, which is no class.{close} Allowed: {', '.join(allowed)}."
    return (
        f"{index.name} has unexpected classes: {', '.join(unknown)}.{nearest(label, allowed)} "
        f"Allowed: {', '.join(allowed)}, or say what they are (--map '{label}=CLASS'), leave them out "
        f"(--drop '{label}') or name all classes (--classes). Found: {found}."
    )


def _joined(texts: Iterable[str], sign: str = " + ") -> str:
    return sign.join(dict.fromkeys(text for text in texts if text))


def check_used(recipe: Recipe, labels: Iterable[str], aliases: Mapping[str, str]) -> None:
    """Raise `InputError` if ``map`` or ``drop`` name a class that no set has, as after a misspelling."""
    found = sorted(set(labels))
    keys = {key(label) for label in found} | {key(aliases.get(key(label), label)) for label in found}
    targets = {key(text.rpartition("=")[2]) for text in recipe.map}
    asked = [("map", text.rpartition("=")[0], keys) for text in recipe.map]
    # The new name of a renamed class may be dropped, too.
    asked += [("drop", name, keys | targets) for name in recipe.drop]
    for option, name, known in asked:
        if key(name) not in known:
            raise InputError(
                f"{option} names a class that is not in the data: {name!r}.{nearest(name, found)} "
                f"Found: {', '.join(found)}."
            )
