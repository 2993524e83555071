"""What a run knows of its data: where they came from, what was left out, how they were divided."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from chestxray.data.index import SPLITS, column_of
from chestxray.evaluation.figure_format import span
from chestxray.evaluation.subgroups import plain_ages
from chestxray.report.formatting import plural, value_of
from chestxray.report.record import Record
from chestxray.report.sections import data_facts

#: Columns by which people are described, as data sources call them.
_PEOPLE = ("sex", "age", "view", "ethnicity", "race")
#: More values of a column than this are summed up.
_MOST_VALUES = 8


def drawn(record: Record) -> bool:
    """Whether every image is drawn, so that no question about people applies."""
    return record.drawn == len(record.index.rows)


def phantoms(record: Record) -> str:
    """Why a question about people does not apply to phantoms."""
    return f"No person was imaged: all {plural(len(record.index.rows), 'image')} are drawn by a program."


def sources(record: Record) -> list[str]:
    """The data sets by name, licence, citation and fingerprint."""
    known = data_facts(record)
    fingerprint = record.environment.get("data", {}).get("fingerprint")
    return [
        f"{known['Data']}.",
        *(f"{name}: {known[name]}" for name in ("Citation", "Licence of the data") if name in known),
        *([f"Fingerprint of pixels, labels, patients and splits: {fingerprint}."] if fingerprint else []),
    ]


def data_licence(record: Record) -> list[str]:
    """Under which licence the data can be had."""
    known = data_facts(record)
    return [f"{record.data_name}: {known['Licence of the data']}"] if "Licence of the data" in known else []


def centres(record: Record) -> list[str]:
    """Images of each data set, which may or may not be a centre."""
    each = record.used.groupby("source").size()
    return [f"Data sets used: {_listed(each.items())}."]


def exclusions(record: Record) -> list[str]:
    """What the run itself left out, by reason."""
    if not record.audit:
        return []
    recipe = record.recipe
    counts = {
        "unreadable": len(record.audit.get("unreadable", [])),
        "left out because of leaks": len(record.audit.get("dropped", [])),
        "left out in all": len(record.index.rows) - len(record.used),
    }
    counted = "; ".join(f"{count:,} {why}" for why, count in counts.items())
    classes = f" Classes left out: {', '.join(recipe.drop)}." if recipe.drop else ""
    return [f"Of {plural(len(record.index.rows), 'image')}: {counted}.{classes}"]


def preparation(record: Record) -> list[str]:
    """From the file to what the network takes."""
    size = record.environment.get("model", {}).get("image_size") or record.recipe.image_size
    scaled = {
        "plugin": f"as {record.recipe.model} was built for (plugin)",
        "pixel": "standardised pixel by pixel over the training images",
        "image": "standardised image by image",
    }[record.recipe.normalisation]
    shape = f"{size[0]} by {size[1]} pixels (height, width), grey, 0 to 255; fit: {record.recipe.fit}." if size else ""
    return [*([f"Decoded to {shape}"] if shape else []), f"Values: {scaled}."]


def files(record: Record) -> list[str]:
    """Sizes, formats and modes of the files."""
    rows = record.used
    lines = []
    if {"width", "height"} <= set(rows) and len(rows):
        low, high = rows[["width", "height"]].min(), rows[["width", "height"]].max()
        lines.append(
            f"Files {_range(low['width'], high['width'])} pixels wide and {_range(low['height'], high['height'])} high."
        )
    kinds = [f"{name.capitalize()}: {_values(rows[name])}." for name in ("format", "mode", "view") if name in rows]
    return lines + kinds


def selection(record: Record) -> list[str]:
    """Whether all images and classes were used."""
    recipe = record.recipe
    lines = [f"{len(record.used):,} of {plural(len(record.index.rows), 'image')} found were used."]
    if recipe.drop:
        lines.append(f"Classes left out: {', '.join(recipe.drop)}.")
    if recipe.map:
        lines.append(f"Classes renamed or joined: {', '.join(recipe.map)}.")
    return lines


def missing(record: Record) -> list[str]:
    """What was missing, and what was done about it."""
    unknown = int((record.used["patient"] == "").sum())
    lines = [f"Patient not known of {unknown:,} of {plural(len(record.used), 'image')} used; none was made up."]
    if record.audit:
        count = len(record.audit.get("unreadable", []))
        lines.append(
            f"{plural(count, 'unreadable file')} left out; the run stops above {record.recipe.max_unreadable:.0%}."
        )
    return lines


def labels(record: Record) -> list[str]:
    """The classes, as the data name them."""
    positive = f" Positive class: {record.positive}." if record.positive else ""
    return [f"Class of an image, as labelled in {record.data_name}: {', '.join(record.classes)}.{positive}"]


def test_labels(record: Record) -> list[str]:
    """Labels of the test, class by class."""
    return [f"Labels of the test images: {_listed(record.counts['test'].items())}."]


def partition(record: Record) -> list[str]:
    """How the split was made."""
    notes = [record.shorten_in(note) for note in record.notes if note != record.split_note]
    rule = data_facts(record)["Split"].rstrip(".")
    # Where nothing was trained nothing was drawn either.
    seed = f"; seed of the split {record.recipe.splits_by}" if record.counts["train"].any() else ""
    return [f"{rule[0].upper()}{rule[1:]}{seed}.", *notes]


def split_sizes(record: Record) -> list[str]:
    """Images and patients of each split."""
    total = len(record.used)
    parts = []
    for split in SPLITS:
        images = int((record.used["split"] == split).sum())
        if not images:
            continue
        parts.append(f"{split} {images:,} of {record.patients(split=split)} ({images / total:.0%})")
    return [f"Images: {', '.join(parts)}."]


def disjoint(record: Record) -> list[str]:
    """Whether patients and copies stand on one side only."""
    if not record.audit:
        return []
    used, audit = record.used, record.audit
    known = len(used) - record.patients().unknown
    patients = len(audit.get("patients", {}).get("across_splits", []))
    copies = len(audit.get("exact_duplicates", {}).get("across_splits", []))
    near = audit.get("near_duplicates", {})
    alike = len(near.get("across_splits", []))
    looked = near.get("searched") or alike
    searched = (
        f", {plural(alike, 'group')} of nearly identical ones" if looked else "; nearly identical ones not looked for"
    )
    done = {
        "drop": f"; {plural(len(audit.get('dropped', [])), 'image')} left out for it",
        "ignore": "; they were kept there",
    }.get(audit.get("on_leak", ""), "")
    level = "Patient level" if known == len(used) else "Image level where the patient is not known"
    sides = (
        "in the training of the model as well" if "generalisation_gap" in record.extras else "on both sides of a split"
    )
    return [
        f"{level}: the patient is known of {known:,} of {plural(len(used), 'image')}. Found {sides}: "
        f"{plural(patients, 'patient')}, {plural(copies, 'group')} of identical images{searched}"
        f"{done if patients + copies + alike else ''}."
    ]


def sample(record: Record) -> list[str]:
    """Size of the test and how narrow it makes the intervals."""
    rows, people = record.metrics["rows"], record.patients(split="test")
    auroc = record.metrics["test"].get("auroc") or {}
    width = f" It gives the AUROC an interval of {span(auroc)}." if value_of(auroc) is not None and span(auroc) else ""
    return [f"Tested on {plural(rows, 'image')} of {people}.{width} The run computed no sample size beforehand."]


def flow(record: Record) -> list[str]:
    """Numbers from all files found to the splits."""
    return [*exclusions(record), *split_sizes(record)]


def classes_by_split(record: Record) -> list[str]:
    """Images of each class in each split."""
    counts = record.counts
    return [f"{split.capitalize()}: {_listed(counts[split].items())}." for split in SPLITS if counts[split].any()]


def people(record: Record) -> list[str]:
    """Age, sex and the like, where the data have such columns, split by split."""
    lines = []
    for wanted in _PEOPLE:
        if column := column_of(wanted, record.used):
            used = record.used.assign(**{column: record.used[column].fillna("").astype(str)})
            if wanted == "age":
                used[column] = plain_ages(used[column])
            each = (f"{split} {_values(part[column])}" for split, part in _by_split(used))
            lines.append(f"{wanted.capitalize()}: {'; '.join(each)}.")
    return lines


def shift(record: Record) -> list[str]:
    """Shares of classes and sources in training beside the test."""
    lines: list[str] = []
    if not record.counts["train"].any():
        return lines
    for name, column in (("Classes", "label"), ("Data sets", "source")):
        table = pd.crosstab(record.used[column], record.used["split"], normalize="columns")
        table = table.reindex(columns=["train", "test"], fill_value=0.0)
        each = zip(table.index, table["train"], table["test"], strict=True)
        proportions = ", ".join(f"{key} {train:.1%} and {test:.1%}" for key, train, test in each)
        lines.append(f"{name} in training and in test: {proportions}.")
    return lines


def imbalance(record: Record) -> list[str]:
    """How uneven the classes are, and what was done."""
    train = record.counts["train"]
    if not train.any():
        return []
    weighted = "weighted by the inverse of their frequency" if record.recipe.class_weights else "not weighted"
    return [
        f"In training the largest class has {train.max() / max(train.min(), 1):.1f} times the images of the smallest "
        f"({int(train.max()):,} and {int(train.min()):,}). Classes are {weighted} in the loss ({record.recipe.loss})."
    ]


def _range(low: float, high: float) -> str:
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _by_split(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(split, part) for split in SPLITS if not (part := rows[rows["split"] == split]).empty]


def _values(column: pd.Series) -> str:
    """A column in words: its values with their counts, or its range where it holds many numbers."""
    values = column.fillna("").astype(str)
    unknown = int((values == "").sum())
    numbers = pd.to_numeric(values[values != ""], errors="coerce")
    if numbers.notna().any() and numbers.notna().all() and numbers.nunique() > _MOST_VALUES:
        summary = f"median {numbers.median():g}, {numbers.min():g} to {numbers.max():g}"
        return summary + (f", not known of {unknown:,}" if unknown else "")
    counts = values.replace("", "not known").value_counts()
    rest = f" and {plural(len(counts) - _MOST_VALUES, 'further value')}" if len(counts) > _MOST_VALUES else ""
    return _listed(counts.head(_MOST_VALUES).items()) + rest


def _listed(counts: Iterable[tuple[object, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts)


FACTS = (
    sources, data_licence, centres, exclusions, preparation, files, selection, missing, labels, test_labels,
    partition, split_sizes, disjoint, sample, flow, classes_by_split, people, shift, imbalance,
)  # fmt: skip
