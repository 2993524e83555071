"""A record -> its figures, each with the words that stand for it where it cannot be seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from chestxray.evaluation.calibration.calibration_curve import Curve, curve
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.figure_format import number, with_interval
from chestxray.evaluation.predictions import PREFIX, Predictions
from chestxray.report import calibration_wording, figures
from chestxray.report.formatting import ordered, plural, title
from chestxray.report.record import Record

Samples = Mapping[str, np.ndarray]

#: All that `draw` may yield; the names are those of docs/run-folder.md.
NAMES = (
    "class_distribution",
    "sample_grid",
    "training_curves",
    "confusion_matrix",
    "roc",
    "precision_recall",
    "reliability",
    "decision_curve",
    "metrics",
    "heatmaps",
    "test_grid",
)
SAMPLES_A_CLASS = 4
#: Grids stop here, so that a page of a hundred classes still opens.
MOST_CLASSES = 12


def draw(record: Record, samples: Samples) -> Iterator[tuple[str, Figure]]:
    """The name and figure of everything that `record` has data for, one at a time."""
    yield "class_distribution", figures.class_distribution(record.counts)
    if chosen := training_samples(record, samples):
        yield "sample_grid", figures.sample_grid({k: [samples[p] for p in v] for k, v in chosen.items()})
    if not record.history.empty:
        yield "training_curves", figures.training_curves(record.history)
    confusion = record.metrics["confusion"]
    counts = np.asarray(confusion["counts"])
    yield "confusion_matrix", figures.confusion_matrix(counts, confusion["classes"])
    yield from _scores(record)
    if panel := heatmap_files(record):
        yield "heatmaps", figures.prediction_grid([_pixels(p) for p, _ in panel], [_answer(i) for _, i in panel])
    tests = test_samples(record, samples)
    if len(tests):
        answers = [_answer(row) for row in tests.to_dict("records")]
        yield "test_grid", figures.prediction_grid([samples[path] for path in tests["path"]], answers)


def _scores(record: Record) -> Iterator[tuple[str, Figure]]:
    test = record.predictions.of("test")
    truth, probabilities = test.truth, test.probabilities
    for name, drawn, area in (
        ("roc", figures.roc, "auroc"),
        ("precision_recall", figures.precision_recall, "auprc"),
    ):
        areas = {label: item.get(area) or {} for label, item in record.metrics["per_class"].items()}
        yield name, drawn(truth, probabilities, test.classes, areas, record.positive)
    yield "reliability", _reliability(record, test)
    if worth := record.extras.get("decision_curve"):
        yield "decision_curve", figures.decision_curve(worth["test"]["points"], worth["test"]["prevalence"])
    results = ordered(record.metrics["test"])
    yield "metrics", figures.metrics(results, {name: title(name) for name in results}, record.level)


def _reliability(record: Record, test: Predictions) -> Figure:
    """Of two classes the probability of the positive one, of more that of the answer."""
    fitted = record.extras.get("decision", {}).get("calibration") if "calibration" in record.extras else None
    before = None if fitted is None else Calibration.from_json(fitted).undone(test.probabilities)
    stated, happened = _stated(test.probabilities, test, record.positive)
    return figures.reliability(
        stated,
        happened,
        _curve(test.probabilities, test, record.positive),
        None if before is None else _curve(before, test, record.positive),
        of=record.positive,
        legend=calibration_wording.in_figure(record.metrics.get("calibration")),
    )


def _curve(probabilities: np.ndarray, test: Predictions, positive: str | None) -> Curve | None:
    return curve(*_stated(probabilities, test, positive), test.clusters)


def _stated(probabilities: np.ndarray, test: Predictions, positive: str | None) -> tuple[np.ndarray, np.ndarray]:
    if positive is not None:
        k = test.classes.index(positive)
        return probabilities[:, k], test.truth == k
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == test.truth


def training_samples(record: Record, samples: Samples) -> dict[str, list[str]]:
    """Paths of the first few training images of each class, of those in `samples`."""
    rows = record.index.rows
    rows = rows[(rows["split"] == "train") & rows["path"].isin(samples.keys())]
    chosen = {
        label: rows.loc[rows["label"] == label, "path"].head(SAMPLES_A_CLASS).tolist() for label in record.classes
    }
    return {label: paths for label, paths in list(chosen.items())[:MOST_CLASSES] if paths}


def test_samples(record: Record, samples: Samples) -> pd.DataFrame:
    """Rows of a few test images of each class, right and wrong, of those in `samples`.

    Drawn at random within right and wrong: a choice by confidence would flatter or slander.
    """
    rows = record.predictions.of("test").rows
    rows = rows[rows["path"].isin(samples.keys())]
    right = rows["label"] == rows["predicted"]
    generator = np.random.default_rng(record.recipe.seed)
    chosen: list[int] = []
    for label in record.classes[:MOST_CLASSES]:
        for answer in (True, False):
            places = np.flatnonzero((rows["label"] == label) & (right == answer))
            chosen += sorted(generator.permutation(places)[:2].tolist())
    picked = rows.iloc[chosen]
    said = [row[PREFIX + row["predicted"]] for row in picked.to_dict("records")]
    return picked.assign(probability=np.asarray(said, dtype=float))


def heatmap_files(record: Record) -> list[tuple[Path, Mapping[str, Any]]]:
    """The heat maps that are there, with what the index says of each."""
    folder = record.folder / "heatmaps"
    # Names only: an index that points out of its folder shows nothing.
    listed = [(folder / Path(item["file"]).name, item) for item in record.heatmaps.get("images", [])]
    return [(path, item) for path, item in listed if path.is_file()]


def alternatives(record: Record) -> dict[str, str]:
    """What each figure shows, in words, by its name."""
    per_class, totals = record.metrics["per_class"], record.counts.sum()
    spoken_for = [record.positive] if record.positive else list(record.classes)
    return {
        "class_distribution": "Bars of the number of images by class and split: "
        + ", ".join(f"{plural(int(totals[name]), 'image')} in {name}" for name in totals.index)
        + ". The table beside it has every number.",
        "training_curves": _training_in_words(record),
        "confusion_matrix": "Confusion matrix, true classes in rows. " + _confusion_in_words(record),
        "roc": "ROC curves. AUROC: " + _areas(per_class, spoken_for, "auroc"),
        "precision_recall": "Precision-recall curves. AUPRC: " + _areas(per_class, spoken_for, "auprc"),
        "reliability": f"Stated probability of {record.positive or 'the answer'} against how often it came true. "
        + " ".join(calibration_wording.sentences(record.metrics.get("calibration"), record.positive, record.level)),
        "decision_curve": "Net benefit by threshold probability: of the model, of acting on everyone and on no one. "
        "The table above has numbers.",
        "metrics": "Every measure of the test with its interval, as in the table of results.",
    }


def _training_in_words(record: Record) -> str:
    best = figures.best_epoch(record.history)
    if best is None:
        return "Loss and accuracy by epoch."
    row = record.history.iloc[best]
    parts = [f"{label} {number(float(row[name]))}" for name, label in _CURVES.items() if name in row]
    return (
        f"Loss and accuracy by epoch, {plural(len(record.history), 'epoch')}. "
        f"Kept: epoch {best + 1}, with {', '.join(parts)}."
    )


_CURVES = {
    "loss": "training loss",
    "val_loss": "validation loss",
    "accuracy": "training accuracy",
    "val_accuracy": "validation accuracy",
}


def _confusion_in_words(record: Record) -> str:
    confusion = record.metrics["confusion"]
    by_class = [
        f"{name}: {int(row[i]):,} of {int(sum(row)):,} right"
        for i, (name, row) in enumerate(zip(confusion["classes"], confusion["counts"], strict=True))
    ]
    return "; ".join(by_class) + "."


def _areas(per_class: Mapping[str, Any], classes: list[str], name: str) -> str:
    return "; ".join(f"{label} {with_interval((per_class.get(label) or {}).get(name))}" for label in classes) + "."


def _answer(item: Mapping[str, Any]) -> figures.Prediction:
    return figures.Prediction(item["label"], item["predicted"], item.get("probability"))


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
