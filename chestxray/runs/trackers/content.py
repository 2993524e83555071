"""What of a run is sent to a tracker: never a path, a row of the index, a prediction, a film or a heat map."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, Literal

from chestxray.recipe import Recipe
from chestxray.runs.run_folder import MODEL, Run
from chestxray.runs.trackers import Parameter

#: Fields of text that name no file, folder or patient. Numbers, choices and switches are sent by their type.
_NAMES = (
    "model", "classes", "uncertain", "view", "positive", "finetune_from", "devices", "held_out", "by", "loss",
    "augment", "metric", "explain",
)  # fmt: skip
#: Sources whose addresses name public sets.
_PUBLIC = ("phantom", "hf", "kaggle", "tfds")
#: Pictures of figures; those of films are left out.
_FIGURES = (
    "class_distribution.png", "confusion_matrix.png", "metrics.png", "precision_recall.png", "reliability.png",
    "roc.png", "training_curves.png",
)  # fmt: skip
_CARD = "MODEL_CARD.md"
#: Columns of the history -> names under which trackers group curves.
_CURVES = {
    "loss": "train/loss", "accuracy": "train/accuracy", "auroc": "train/auroc", "val_loss": "validation/loss",
    "val_accuracy": "validation/accuracy", "val_auroc": "validation/auroc", "learning_rate": "learning_rate",
    "seconds": "epoch_seconds",
}  # fmt: skip


def parameters(run: Run) -> dict[str, Parameter]:
    """Return the fields of the recipe that name no file or folder, and of the data what is public or counted."""
    recipe, hints = run.recipe, typing.get_type_hints(Recipe)
    found: dict[str, Parameter] = {}
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if value is None or not (field.name in _NAMES or _harmless(hints[field.name]) or field.name == "image_size"):
            continue
        if field.name == "image_size":
            value = "x".join(map(str, value))
        found[field.name] = ",".join(value) if isinstance(value, tuple) else value
    found["weights"] = "file" if PurePath(recipe.weights).is_absolute() else recipe.weights
    for name in ("data", "test_data"):
        if addresses := getattr(recipe, name):
            found[name] = ",".join(map(_public, addresses))
    counts = run.index.rows["split"].value_counts()
    found |= {f"images_{split}": int(counts.get(split, 0)) for split in ("train", "validation", "test")}
    return found


def _harmless(hint: Any) -> bool:
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [part for part in parts if part is not type(None)]
    return all(kind in (int, float, bool) or typing.get_origin(kind) is Literal for kind in kinds)


def _public(address: str) -> str:
    """The address of a public set, or of another the kind alone."""
    kind, colon, _ = address.partition(":")
    if kind in _PUBLIC or (not colon and re.fullmatch(r"[\w-]+", address)):
        return address
    return kind if colon and re.fullmatch(r"[\w-]+", kind) else "other"


def curves(run: Run) -> list[dict[str, float]]:
    """Return the figures of each epoch so far, in order: losses, accuracies, rates, and the epoch in its phase."""
    rows = []
    for row in run.history.to_dict("records"):
        figures = {name: float(row[column]) for column, name in _CURVES.items() if column in row}
        rows.append({**figures, "epoch_in_phase": float(row["epoch"]) + 1})
    return [{name: value for name, value in row.items() if math.isfinite(value)} for row in rows]


def figures(run: Run) -> dict[str, float]:
    """Return the figures of the test with the ends of their intervals, by names such as ``test/auroc_low``."""
    metrics = run.metrics
    found = dict(_with_ends("test", metrics.get("test", {})))
    for name, ones in (metrics.get("per_class") or {}).items():
        found |= dict(_with_ends(f"test/{_plain(name)}", ones))
    for name, one in (metrics.get("findings") or {}).items():
        found |= dict(_with_ends(f"test/{_plain(name)}", one.get("test") or {}))
    return found


def _with_ends(prefix: str, figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, figure in figures.items():
        for part, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
            value = figure.get(part) if isinstance(figure, Mapping) else None
            if isinstance(value, (int, float)) and math.isfinite(value):
                yield f"{prefix}/{_plain(name)}{suffix}", float(value)


def _plain(name: str) -> str:
    """`name` with the characters alone that every tracker takes in the name of a metric."""
    return re.sub(r"[^\w\-. ]", "_", name, flags=re.ASCII)[:100]


def files(run: Run) -> list[Path]:
    """Return the model, the card and the pictures of figures.

    The report is not among them: it shows films and names files. Nor is a card that names a file of the data.
    """
    found = [run.folder / MODEL, *(run.folder / "figures" / name for name in _FIGURES)]
    card = run.folder / _CARD
    if card.is_file() and not _names_a_file(run, card.read_text(encoding="utf-8")):
        found.append(card)
    return [path for path in found if path.is_file()]


def _names_a_file(run: Run, text: str) -> bool:
    return any(PurePath(path).name in text or run.short(path) in text for path in run.index.rows["path"])
