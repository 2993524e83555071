"""Draws the figures of a run and writes the alternative text of each."""

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
from chestxray.runs.run_folder import Run

Samples = Mapping[str, np.ndarray]

#: All names that `draw` may yield, as in docs/run-folder.md.
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
#: Maximum number of classes in a grid, so that the page of a hundred classes still opens.
MOST_CLASSES = 12


def draw(run: Run, samples: Samples) -> Iterator[tuple[str, Figure]]:
    """Yield the name and the figure of everything that `run` has data for, one at a time.

    `samples` maps image paths to pixels, uint8 (height, width).
    """
    yield "class_distribution", figures.class_distribution(run.counts)
    if chosen := training_samples(run, samples):
        yield "sample_grid", figures.sample_grid({k: [samples[p] for p in v] for k, v in chosen.items()})
    if not run.history.empty:
        yield "training_curves", figures.training_curves(run.history)
    yield "confusion_matrix", figures.confusion_matrix(*confusion(run))
    yield from _scores(run)
    if panel := heatmap_files(run):
        yield "heatmaps", figures.prediction_grid([_pixels(p) for p, _ in panel], [_answer(i) for _, i in panel])
    tests = test_samples(run, samples)
    if len(tests):
        answers = [_answer(row) for row in tests.to_dict("records")]
        yield "test_grid", figures.prediction_grid([samples[path] for path in tests["path"]], answers)


def _scores(run: Run) -> Iterator[tuple[str, Figure]]:
    yield "roc", figures.roc(*scores(run, "auroc"))
    yield "precision_recall", figures.precision_recall(*scores(run, "auprc"))
    yield "reliability", figures.reliability(**reliability(run))
    if worth := run.extras.get("decision_curve"):
        yield "decision_curve", figures.decision_curve(worth["test"]["points"], worth["test"]["prevalence"])
    # A plugin's figure may have bounds for which this axis is too short; it is in the table.
    published = run.metrics.get("published", {})
    results = {name: item for name, item in ordered(run.metrics["test"]).items() if name not in published}
    yield "metrics", figures.metrics(results, {name: title(name) for name in results}, run.level)


def confusion(run: Run) -> tuple[np.ndarray, list[str]]:
    """Return the arguments of `figures.draw_confusion` for a run: counts (classes, classes) and class names."""
    found = run.metrics["confusion"]
    return np.asarray(found["counts"]), found["classes"]


def scores(run: Run, area: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], dict[str, Any], str | None]:
    """Return the arguments of `figures.draw_roc` for a run's test set: class numbers (rows,), probabilities
    (rows, classes), class names, the measure `area` of each class, and the positive class.
    """
    test = run.predictions.of("test")
    areas = {label: item.get(area) or {} for label, item in run.metrics["per_class"].items()}
    return test.truth, test.probabilities, test.classes, areas, run.positive


def reliability(run: Run) -> dict[str, Any]:
    """Return the arguments of `figures.draw_reliability` for a run's test set: with two classes the probability of
    the positive class, with more that of the predicted class.
    """
    test = run.predictions.of("test")
    fitted = run.extras.get("decision", {}).get("calibration") if "calibration" in run.extras else None
    before = None if fitted is None else Calibration.from_json(fitted).undone(test.probabilities)
    stated, happened = _stated(test.probabilities, test, run.positive)
    return {
        "stated": stated,
        "happened": happened,
        "curve": _curve(test.probabilities, test, run.positive),
        "before": None if before is None else _curve(before, test, run.positive),
        "of": run.positive,
        "legend": calibration_wording.in_figure(run.metrics.get("calibration")),
    }


def _curve(probabilities: np.ndarray, test: Predictions, positive: str | None) -> Curve | None:
    return curve(*_stated(probabilities, test, positive), test.clusters)


def _stated(probabilities: np.ndarray, test: Predictions, positive: str | None) -> tuple[np.ndarray, np.ndarray]:
    if positive is not None:
        k = test.classes.index(positive)
        return probabilities[:, k], test.truth == k
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == test.truth


def training_samples(run: Run, samples: Samples) -> dict[str, list[str]]:
    """Return, by class, the paths of the first few training images that are in `samples`."""
    rows = run.index.rows
    rows = rows[(rows["split"] == "train") & rows["path"].isin(samples.keys())]
    chosen = {label: rows.loc[rows["label"] == label, "path"].head(SAMPLES_A_CLASS).tolist() for label in run.classes}
    return {label: paths for label, paths in list(chosen.items())[:MOST_CLASSES] if paths}


def test_samples(run: Run, samples: Samples) -> pd.DataFrame:
    """Return the rows of a few test images of each class, correct and incorrect, that are in `samples`.

    They are drawn at random from the correct and from the incorrect predictions: selection by confidence would make
    the model look better or worse than it is.
    """
    rows = run.predictions.of("test").rows
    rows = rows[rows["path"].isin(samples.keys())]
    right = rows["label"] == rows["predicted"]
    generator = np.random.default_rng(run.recipe.seed)
    chosen: list[int] = []
    for label in run.classes[:MOST_CLASSES]:
        for answer in (True, False):
            places = np.flatnonzero((rows["label"] == label) & (right == answer))
            chosen += sorted(generator.permutation(places)[:2].tolist())
    picked = rows.iloc[chosen]
    said = [row[PREFIX + row["predicted"]] for row in picked.to_dict("records")]
    return picked.assign(probability=np.asarray(said, dtype=float))


def heatmap_files(run: Run) -> list[tuple[Path, Mapping[str, Any]]]:
    """Return the paths of the heat maps that exist, each with its entry in the index of heat maps."""
    folder = run.folder / "heatmaps"
    # Only the file name is used, so that an index cannot point outside its folder.
    listed = [(folder / Path(item["file"]).name, item) for item in run.heatmaps.get("images", [])]
    return [(path, item) for path, item in listed if path.is_file()]


def alternatives(run: Run) -> dict[str, str]:
    """Return the alternative text of each figure by the figure's name."""
    per_class, totals = run.metrics["per_class"], run.counts.sum()
    spoken_for = [run.positive] if run.positive else list(run.classes)
    return {
        "class_distribution": "Bars of the number of images by class and split: "
        + ", ".join(f"{plural(int(totals[name]), 'image')} in {name}" for name in totals.index)
        + ". The table beside it has every number.",
        "training_curves": _training_in_words(run),
        "confusion_matrix": "Confusion matrix, true classes in rows. " + _confusion_in_words(run),
        "roc": "ROC curves. AUROC: " + _areas(per_class, spoken_for, "auroc"),
        "precision_recall": "Precision-recall curves. AUPRC: " + _areas(per_class, spoken_for, "auprc"),
        "reliability": f"Stated probability of {run.positive or 'the answer'} against how often it came true. "
        + " ".join(calibration_wording.sentences(run.metrics.get("calibration"), run.positive, run.level)),
        "decision_curve": "Net benefit by threshold probability: of the model, of acting on everyone and on no one. "
        "The table above has numbers.",
        "metrics": "Every measure of the test with its interval, as in the table of results.",
    }


def _training_in_words(run: Run) -> str:
    probe, epochs = figures.divided(run.history) if len(run.history) else (run.history, run.history)
    history = probe if epochs.empty else epochs
    best = figures.best_epoch(history)
    if best is None:
        return "Measures of the training by epoch."
    row = history.iloc[best]
    drawn = "Loss, accuracy and mean AUROC" if "val_auroc" in run.history else "Loss and accuracy"
    parts = [f"{label} {number(float(row[name]))}" for name, label in _CURVES.items() if name in row]
    if epochs.empty:
        return f"{drawn} by the strength of the probe's penalty. Kept: C = {row['C']:g}, with {', '.join(parts)}."
    return f"{drawn} by epoch, {plural(len(history), 'epoch')}. Kept: epoch {best + 1}, with {', '.join(parts)}."


_CURVES = {
    "loss": "training loss",
    "val_loss": "validation loss",
    "accuracy": "training accuracy",
    "val_accuracy": "validation accuracy",
    "auroc": "training mean AUROC",
    "val_auroc": "validation mean AUROC",
}


def _confusion_in_words(run: Run) -> str:
    confusion = run.metrics["confusion"]
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
