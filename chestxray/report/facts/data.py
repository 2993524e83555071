"""Facts about the data of a run: where they came from, what was left out, how they were split."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from chestxray.data.index import SPLITS, column_of
from chestxray.evaluation.figure_format import span
from chestxray.evaluation.subgroups import plain_ages
from chestxray.report.formatting import plural, value_of
from chestxray.report.sections import data_facts
from chestxray.runs.run_folder import Run

#: Columns that describe people, as data sources call them.
_PEOPLE = ("sex", "age", "view", "ethnicity", "race")
#: A column with more distinct values than this is summarised.
_MOST_VALUES = 8


def drawn(run: Run) -> bool:
    """Return whether every image is a phantom, so that no question about people applies."""
    return run.drawn == len(run.index.rows)


def phantoms(run: Run) -> str:
    """Return a sentence on why a question about people does not apply to phantoms."""
    return f"No person was imaged: all {plural(len(run.index.rows), 'image')} are drawn by a program."


def sources(run: Run) -> list[str]:
    """The data sets by name, licence, citation and fingerprint."""
    known = data_facts(run)
    fingerprint = run.environment.get("data", {}).get("fingerprint")
    return [
        f"{known['Data']}.",
        *(f"{name}: {known[name]}" for name in ("Citation", "Licence of the data") if name in known),
        *([f"Fingerprint of pixels, labels, patients and splits: {fingerprint}."] if fingerprint else []),
    ]


def data_licence(run: Run) -> list[str]:
    """The licence under which the data are available."""
    known = data_facts(run)
    return [f"{run.data_name}: {known['Licence of the data']}"] if "Licence of the data" in known else []


def centres(run: Run) -> list[str]:
    """Number of images of each data set; a data set may or may not be one centre."""
    each = run.used.groupby("source").size()
    return [f"Data sets used: {_listed(each.items())}."]


def exclusions(run: Run) -> list[str]:
    """Number of images that the run itself left out, by reason."""
    if not run.audit:
        return []
    recipe = run.recipe
    counts = {
        "unreadable": len(run.audit.get("unreadable", [])),
        "left out because of leaks": len(run.audit.get("dropped", [])),
        "left out in all": len(run.index.rows) - len(run.used),
    }
    counted = "; ".join(f"{count:,} {why}" for why, count in counts.items())
    classes = f" Classes left out: {', '.join(recipe.drop)}." if recipe.drop else ""
    return [f"Of {plural(len(run.index.rows), 'image')}: {counted}.{classes}"]


def preparation(run: Run) -> list[str]:
    """Preparation of the images from the file to the input of the network."""
    size = run.environment.get("model", {}).get("image_size") or run.recipe.image_size
    scaled = {
        "plugin": f"as {run.recipe.model} was built for (plugin)",
        "pixel": "standardised pixel by pixel over the training images",
        "image": "standardised image by image",
    }[run.recipe.normalisation]
    shape = f"{size[0]} by {size[1]} pixels (height, width), grey, 0 to 255; fit: {run.recipe.fit}." if size else ""
    cut = f"Cut to the box around their lungs, found by {run.segmenter}." if run.segmenter else ""
    return [*filter(None, [cut, f"Decoded to {shape}" if shape else ""]), f"Values: {scaled}."]


def files(run: Run) -> list[str]:
    """Sizes in pixels, formats, colour modes and views of the files."""
    rows = run.used
    lines = []
    if {"width", "height"} <= set(rows) and len(rows):
        low, high = rows[["width", "height"]].min(), rows[["width", "height"]].max()
        lines.append(
            f"Files {_range(low['width'], high['width'])} pixels wide and {_range(low['height'], high['height'])} high."
        )
    kinds = [f"{name.capitalize()}: {_values(rows[name])}." for name in ("format", "mode", "view") if name in rows]
    return lines + kinds


def selection(run: Run) -> list[str]:
    """Whether all images and classes were used."""
    recipe = run.recipe
    lines = [f"{len(run.used):,} of {plural(len(run.index.rows), 'image')} found were used."]
    if recipe.drop:
        lines.append(f"Classes left out: {', '.join(recipe.drop)}.")
    if recipe.map:
        lines.append(f"Classes renamed or joined: {', '.join(recipe.map)}.")
    return lines


def missing(run: Run) -> list[str]:
    """Missing patient identifiers and unreadable files, and how they were handled."""
    unknown = int((run.used["patient"] == "").sum())
    lines = [f"Patient not known of {unknown:,} of {plural(len(run.used), 'image')} used; none was made up."]
    if run.audit:
        count = len(run.audit.get("unreadable", []))
        lines.append(
            f"{plural(count, 'unreadable file')} left out; the run stops above {run.recipe.max_unreadable:.0%}."
        )
    return lines


def labels(run: Run) -> list[str]:
    """The classes, as named in the data."""
    positive = f" Positive class: {run.positive}." if run.positive else ""
    return [f"Class of an image, as labelled in {run.data_name}: {', '.join(run.classes)}.{positive}"]


def test_labels(run: Run) -> list[str]:
    """Number of test images of each class."""
    return [f"Labels of the test images: {_listed(run.counts['test'].items())}."]


def partition(run: Run) -> list[str]:
    """How the split was made."""
    notes = [run.shorten_in(note) for note in run.notes if note != run.split_note]
    rule = data_facts(run)["Split"].rstrip(".")
    # Without training images no split was drawn, so no seed applies.
    seed = f"; seed of the split {run.recipe.splits_by}" if run.counts["train"].any() else ""
    return [f"{rule[0].upper()}{rule[1:]}{seed}.", *notes]


def split_sizes(run: Run) -> list[str]:
    """Number of images and patients of each split."""
    total = len(run.used)
    parts = []
    for split in SPLITS:
        images = int((run.used["split"] == split).sum())
        if not images:
            continue
        parts.append(f"{split} {images:,} of {run.patients(split=split)} ({images / total:.0%})")
    return [f"Images: {', '.join(parts)}."]


def disjoint(run: Run) -> list[str]:
    """Whether each patient and each set of copies is in one split only."""
    if not run.audit:
        return []
    used, audit = run.used, run.audit
    known = len(used) - run.patients().unknown
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
    sides = "in the training of the model as well" if "generalisation_gap" in run.extras else "on both sides of a split"
    return [
        f"{level}: the patient is known of {known:,} of {plural(len(used), 'image')}. Found {sides}: "
        f"{plural(patients, 'patient')}, {plural(copies, 'group')} of identical images{searched}"
        f"{done if patients + copies + alike else ''}."
    ]


def sample(run: Run) -> list[str]:
    """Size of the test set and the resulting interval of the AUROC."""
    rows, people = run.metrics["rows"], run.patients(split="test")
    auroc = run.metrics["test"].get("auroc") or {}
    width = f" It gives the AUROC an interval of {span(auroc)}." if value_of(auroc) is not None and span(auroc) else ""
    return [f"Tested on {plural(rows, 'image')} of {people}.{width} The run computed no sample size beforehand."]


def flow(run: Run) -> list[str]:
    """Numbers from all files found to the splits."""
    return [*exclusions(run), *split_sizes(run)]


def classes_by_split(run: Run) -> list[str]:
    """Number of images of each class in each split."""
    counts = run.counts
    return [f"{split.capitalize()}: {_listed(counts[split].items())}." for split in SPLITS if counts[split].any()]


def people(run: Run) -> list[str]:
    """Sex, age, view, ethnicity and race by split, as far as the data have such columns."""
    lines = []
    for wanted in _PEOPLE:
        if column := column_of(wanted, run.used):
            used = run.used.assign(**{column: run.used[column].fillna("").astype(str)})
            if wanted == "age":
                used[column] = plain_ages(used[column])
            each = (f"{split} {_values(part[column])}" for split, part in _by_split(used))
            lines.append(f"{wanted.capitalize()}: {'; '.join(each)}.")
    return lines


def shift(run: Run) -> list[str]:
    """Proportions of classes and data sets in the training and in the test images."""
    lines: list[str] = []
    if not run.counts["train"].any():
        return lines
    for name, column in (("Classes", "label"), ("Data sets", "source")):
        table = pd.crosstab(run.used[column], run.used["split"], normalize="columns")
        table = table.reindex(columns=["train", "test"], fill_value=0.0)
        each = zip(table.index, table["train"], table["test"], strict=True)
        proportions = ", ".join(f"{key} {train:.1%} and {test:.1%}" for key, train, test in each)
        lines.append(f"{name} in training and in test: {proportions}.")
    return lines


def imbalance(run: Run) -> list[str]:
    """Class imbalance in training, and how the loss handles it."""
    train = run.counts["train"]
    if not train.any():
        return []
    weights = run.recipe.class_weights if run.finding is None else run.recipe.weighs_findings
    weighted = "weighted by the inverse of their frequency" if weights else "not weighted"
    return [
        f"In training the largest class has {train.max() / max(train.min(), 1):.1f} times the images of the smallest "
        f"({int(train.max()):,} and {int(train.min()):,}). Classes are {weighted} in the loss ({run.recipe.loss})."
    ]


def _range(low: float, high: float) -> str:
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _by_split(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(split, part) for split in SPLITS if not (part := rows[rows["split"] == split]).empty]


def _values(column: pd.Series) -> str:
    """Return a column's values with their counts, or its median and range if it holds many different numbers."""
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
