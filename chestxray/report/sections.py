"""The sections of the report in order, and the template variables of each, taken from the run.

A new section is a template ``templates/report/<name>.html.jinja`` and a line in `SECTIONS`. If its
numbers are in a JSON file of their own, its builder is `extra`: the template gets the contents of the
file as ``extra``, and the section is left out if there is no such file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data.index import SPLITS
from chestxray.evaluation.figure_format import ABSENT
from chestxray.report import calibration_wording, formatting, map_checks_wording, probe_table
from chestxray.report.embedded_images import Picture, Tile, figure
from chestxray.report.figures import best_epoch, divided, went_by
from chestxray.report.formatting import duration, ordered, plural, value_of, whole
from chestxray.report.heatmap_wording import method_and_scale
from chestxray.runs.run_folder import Run

#: Longer lists are truncated on the page; the run's files hold them in full.
LONGEST_LIST = 200
_PHASES = {"head": "Head alone", "finetune": "Fine-tuning", "full": "Whole network"}
_SPLIT_RULES = {
    "auto": "official where the data set has one, else stratified by class and grouped by patient",
    "official": "as given with the data set",
    "random": "random, image by image",
    "stratified": "random within each class, image by image",
    "grouped": "stratified by class and grouped by patient",
    "source": "one data source left out",
}


@dataclass(frozen=True)
class Material:
    """The content that sections draw on: the run, its figures by name, its radiographs and heat maps."""

    run: Run
    figures: Mapping[str, Picture]
    samples: tuple[Tile, ...] = ()
    tests: tuple[Tile, ...] = ()
    heatmaps: tuple[tuple[str, Tile], ...] = ()


Builder = Callable[[Material], "dict[str, Any] | None"]


@dataclass(frozen=True)
class Section:
    """``build`` returns the variables of the template called ``name``, or None to leave the section out."""

    name: str
    title: str
    build: Builder


def extra(name: str) -> Builder:
    """Return the builder of a section whose numbers are in ``<name>.json`` in the run's folder."""
    return functools.partial(_extra, name)


def _calibration(material: Material) -> dict[str, Any] | None:
    found = _extra("calibration", material)
    return found and {**found, "probabilities": _probabilities(material.run)}


def _probabilities(run: Run) -> list[str]:
    return calibration_wording.sentences(run.metrics.get("calibration"), run.positive, run.level)


def _extra(name: str, material: Material) -> dict[str, Any] | None:
    content = material.run.extras.get(name)
    return {"extra": content} if content else None


def _data(material: Material) -> dict[str, Any]:
    return {"facts": data_facts(material.run), "counts": class_counts(material.run)}


def data_facts(run: Run) -> dict[str, str]:
    """Return model, data, split and seed of the run by display name; unknown values are left out."""
    environment, recipe = run.environment, run.recipe
    data, model = environment.get("data", {}), environment.get("model", {})
    size = model.get("image_size") or recipe.image_size
    parameters = "" if "parameters" not in model else f"{whole(model['parameters'])} parameters"
    if parameters and "trained_parameters" in model:
        parameters += f", {whole(model['trained_parameters'])} of them trained at the end"
    facts = {
        "Architecture": ", ".join(filter(None, [recipe.model, parameters])),
        "Initial weights": "random (trained from scratch)" if recipe.weights == "none" else recipe.weights,
        "Input": f"{size[0]} by {size[1]} pixels (height, width), grey, fit: {recipe.fit}" if size else "",
        "Cut to": f"the lungs, found by {run.segmenter}" if run.segmenter else "",
        "Data": ", ".join(filter(None, [run.data_name, _images(run)])),
        "Findings" if run.task == "findings" else "Classes": ", ".join(run.classes),
        "Positive class": run.positive or "",
        "Split": "none, all of it tests" if "generalisation_gap" in run.extras else run.split_note or _split_rule(run),
        "Seed": str(recipe.seed),
        "Licence of the data": data.get("licence", ""),
        "Citation": data.get("citation", ""),
    }
    return {k: v for k, v in facts.items() if v}


def _split_rule(run: Run) -> str:
    # A split that chestxray made leaves a note; an audited run without a note used the official split.
    taken = run.recipe.split == "auto" and run.audit
    return _SPLIT_RULES["official" if taken else run.recipe.split]


def _images(run: Run) -> str:
    rows, used = len(run.index.rows), len(run.used)
    left = f", {rows - used:,} of them left out" if rows > used else ""
    return plural(rows, "image") + left


def class_counts(run: Run) -> list[dict[str, Any]]:
    """Return one row per class and one for all: images and, in words, patients, by split and in total."""
    table = []
    for label in [*run.counts.index, None]:
        of = {} if label is None else {"label": label}
        images = run.counts.sum() if label is None else run.counts.loc[label]
        cells = [(int(images[split]), str(run.patients(split=split, **of))) for split in SPLITS]
        cells.append((int(images.sum()), str(run.patients(**of))))
        table.append({"label": label, "cells": cells})
    return table


def _training(material: Material) -> dict[str, Any] | None:
    history = material.run.history
    if history.empty and "generalisation_gap" in material.run.extras:
        return None  # the report of the training run describes the training
    if history.empty:
        return {"phases": [], "best": None, "kept": None, "probe": None}
    probe = probe_table.of(material.run)
    told = {"probe": probe, "probe_sentence": probe_table.sentence(probe) if probe else ""}
    if probe and not probe["followed"]:
        # Neither epochs nor rates: its table says what an epoch's would.
        return told | {"phases": ["probe"], "best": None, "kept": None, "goes_by": went_by(history)[0]}
    _, history = divided(history)
    best = best_epoch(history)
    phases = []
    for name in history["phase"].unique():
        rows = history[history["phase"] == name]
        seconds = float(rows["seconds"].sum()) if "seconds" in rows else None
        phases.append(
            {
                "name": _PHASES.get(name, name),
                "epochs": len(rows),
                "rate": float(rows["learning_rate"].max()) if "learning_rate" in rows else None,
                "time": duration(seconds) if seconds is not None else ABSENT,
            }
        )
    kept = None if best is None else _numbers(history.iloc[best])
    return told | {
        "phases": phases,
        "best": best,
        "kept": kept,
        "best_in": went_by(history)[1],
        "goes_by": went_by(history)[0],
        "last": best == len(history) - 1,
        "epochs": len(history),
    }


def _numbers(row: pd.Series) -> dict[str, float | None]:
    names = ("loss", "val_loss", "accuracy", "val_accuracy", "auroc", "val_auroc")
    known = {name: float(row[name]) for name in names if name in row}
    return {name: value if np.isfinite(value) else None for name, value in known.items()}


def _results(material: Material) -> dict[str, Any]:
    run = material.run
    test = ordered(run.metrics["test"])
    guesses, published = _guesses(run), run.metrics.get("published", {})
    rows = [
        {
            "name": name,
            "title": formatting.title(name),
            "interval": interval,
            "better": formatting.MEANINGS[name].better if name in formatting.MEANINGS else "",
            "meaning": formatting.meaning(name, value_of(interval), run.positive),
            "guess": guesses.get(name),
        }
        | formatting.published(published.get(name))
        for name, interval in test.items()
    ]
    first = ("auroc", "sensitivity", "specificity", "accuracy")
    per_class = run.metrics["per_class"]
    columns = list(dict.fromkeys(name for item in per_class.values() for name in item))
    support = {
        name: int(sum(row))
        for name, row in zip(run.metrics["confusion"]["classes"], run.metrics["confusion"]["counts"], strict=True)
    }
    return {
        "rows": rows,
        "tiles": [row for name in first for row in rows if row["name"] == name],
        "per_class": per_class,
        "columns": columns,
        "support": support,
        "confusion": run.metrics["confusion"],
        "probabilities": _probabilities(run),
    }


def _guesses(run: Run) -> dict[str, float]:
    """Return the figures of guessing without looking at the image, where they are a single number."""
    counts = np.asarray(run.metrics["confusion"]["counts"], dtype=float).sum(axis=1)
    if not counts.sum():
        return {}
    proportions = counts / counts.sum()
    present = proportions[proportions > 0]
    spread = float((proportions * (1 - proportions)).sum())
    positive = run.positive
    prevalence = proportions[list(run.classes).index(positive)] if positive in run.classes else present.mean()
    return {
        "auroc": 0.5,
        "auprc": float(prevalence),
        "accuracy": float(proportions.max()),
        "balanced_accuracy": 1 / len(present),
        "mcc": 0.0,
        # With two classes the score is halved: the usual form of the Brier score for one event.
        "brier": spread / 2 if len(proportions) == 2 else spread,
    }


def _audit(material: Material) -> dict[str, Any]:
    run, audit = material.run, material.run.audit
    duplicates, near = audit.get("exact_duplicates", {}), audit.get("near_duplicates", {})
    groups = {
        "straddling": duplicates.get("across_splits", []),
        "duplicates": duplicates.get("groups", []),
        "near_straddling": near.get("across_splits", []),
        "near": near.get("groups", []),
    }
    conflicts = [
        [f"{run.short(path)} ({label})" for path, label in item["labels"].items()]
        for item in audit.get("conflicting_labels", [])
    ]
    return {
        "done": bool(audit),
        "on_leak": audit.get("on_leak", ""),
        "patients": audit.get("patients", {}).get("across_splits", []),
        "notes": audit.get("notes", []),
        **{name: [[run.short(path) for path in group] for group in items] for name, items in groups.items()},
        **{
            name: [(run.short(item["path"]), run.shorten_in(item["reason"])) for item in audit.get(name, [])]
            for name in ("unreadable", "dropped")
        },
        "conflicts": conflicts,
        "confounds": audit.get("confounds", []),
        "small_validation": audit.get("small_validation", []),
        "false_alarms": near.get("false_alarms", ""),
        "look_alikes": [
            [f"{run.short(path)} ({pair['correlation']:.2f})" for path in pair["paths"]]
            for pair in near.get("look_alikes", [])
        ],
        "near_searched": near.get("searched", False),
        "near_reason": near.get("reason", ""),
        "sheets": _contact_sheets(material),
        "longest": LONGEST_LIST,
    }


def _contact_sheets(material: Material) -> list[tuple[str, Picture]]:
    """Return the caption and image of each contact sheet of copies that the audit drew."""
    found = []
    for kind, caption in (
        ("exact_duplicates", "Images with the same pixels."),
        ("near_duplicates", "Images of one radiograph with other pixels."),
        ("look_alikes", "Films that are nearly one, perhaps of one person."),
    ):
        audit = material.run.audit
        groups = audit.get("near_duplicates", {}).get(kind) or audit.get(kind, {}).get("groups", [])
        path = material.run.folder / "figures" / f"{kind}.png"
        if groups and path.is_file():
            alt = f"{caption} {plural(len(groups), 'group')} in all; the lists below name the files."
            framed = "Framed: in several splits, or of several classes. At most 16 groups are shown."
            found.append((f"{caption} {framed}", figure(path, alt)))
    return found


def environment_facts(run: Run) -> dict[str, str]:
    """Return date, platform, devices and origin of the architecture by display name; unknown values are left out."""
    environment = run.environment
    plugin, data = environment.get("plugin", {}), environment.get("data", {})
    facts = {
        "Started": environment.get("started", ""),
        "Finished": environment.get("finished", ""),
        "Platform": environment.get("platform", ""),
        "Devices": ", ".join(environment.get("devices", [])),
        "Architecture from": " ".join(filter(None, [plugin.get("distribution"), plugin.get("version")])),
        "Methods of plugins": "; ".join(_method_of_plugin(item) for item in environment.get("methods", [])),
        "Reference": plugin.get("reference", ""),
        "Licence of the architecture": plugin.get("licence", ""),
        "Licence of the weights": plugin.get("weights_licence", ""),
        "Data fingerprint": data.get("fingerprint", ""),
    }
    return {k: v for k, v in facts.items() if v}


def _method_of_plugin(item: Mapping[str, str]) -> str:
    return f"{item['kind']} {item['name']} ({item['distribution']} {item['version']})"


def _environment(material: Material) -> dict[str, Any]:
    environment = material.run.environment
    own = {"chestxray": environment.get("chestxray", ""), "python": environment.get("python", "")}
    seconds = environment.get("seconds", {})
    return {
        "facts": environment_facts(material.run),
        "packages": {k: v for k, v in (own | environment.get("packages", {})).items() if v},
        "seconds": {step: duration(value) for step, value in seconds.items()},
        "total": duration(sum(seconds.values())) if seconds else "",
        "recipe": material.run.recipe.to_toml(),
    }


#: How bootstrap replicates are turned into an interval, by a word in the name of the method.
_SHAPES = {
    "percentile": "The interval leaves out the same share of replicates at either end.",
    "logit": (
        "The interval is as wide as the replicates' standard error says, with Student's t for the number of "
        "patients, and symmetric on the logit scale, which keeps it within the range of the figure. A mean over "
        "classes is as unsure as its classes are, and a class without an error as its own interval says (MOVER, with "
        "Satterthwaite's degrees of freedom); the Brier score has a bootstrap-t."
    ),
}


def _method(material: Material) -> dict[str, Any]:
    interval = material.run.metrics.get("interval", {})
    method = interval.get("method", "not recorded")
    return {
        "method": method,
        "shape": next((text for word, text in _SHAPES.items() if word in method), ""),
        "replicates": interval.get("replicates"),
        "positive": material.run.positive,
        "rule": _rule(material.run),
    }


def _rule(run: Run) -> str:
    """Return the rule by which probabilities become the predicted class used in every table."""
    rule = run.extras.get("operating_points", {}).get("rule")
    if rule:
        return rule
    if run.is_ensemble:
        return "A film is given its most probable class: the members have no validation images in common to choose by."
    return "The class named is the one that the model which did not see the film decides on, as its validation chose."


def _heatmaps(material: Material) -> dict[str, Any]:
    index = material.run.heatmaps
    none = "No heat map is in the run's folder."
    if material.run.finding is not None:
        none = "Those of this finding are in the report of all findings."
    reason = index.get("reason") or ("" if material.heatmaps else none)
    groups: dict[str, list[Tile]] = {}
    for group, tile in material.heatmaps:
        groups.setdefault(group, []).append(tile)
    checks = map_checks_wording.shown(material.run)
    return {"reason": reason, "drawn": method_and_scale(index), "groups": groups, "checks": checks}


SECTIONS = (
    Section("data", "Data and model", _data),
    Section("training", "Training", _training),
    Section("results", "Results on the test images", _results),
    Section("generalisation_gap", "Generalisation gap to other data", extra("generalisation_gap")),
    Section("controls", "Controls: what can be reached without the lungs", extra("controls")),
    Section("by_source", "Source by source", extra("by_source")),
    Section("by_group", "Group by group", extra("by_group")),
    Section("gaps", "Is it better for some than for others?", extra("gaps")),
    Section("operating_points", "At a threshold", extra("operating_points")),
    Section("decision_curve", "Is it worth acting on?", extra("decision_curve")),
    Section("patient_level", "Patient by patient", extra("patient_level")),
    Section("prevalence", "How common the classes are", extra("prevalence")),
    Section("calibration", "Calibration of the probabilities", _calibration),
    Section("abstention", "Abstention", extra("abstention")),
    Section("refusal", "Refusal of other images", extra("refusal")),
    Section("heatmaps", "Where the model looks", _heatmaps),
    Section("audit", "Data audit", _audit),
    Section("environment", "Environment and provenance", _environment),
    Section("method", "Methods", _method),
)
