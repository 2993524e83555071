import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from chestxray.evaluation.calibration import calibration_curve
from chestxray.report import figures
from chestxray.report.figures.style import DOTS_PER_INCH, SPLIT_COLOURS

FOUR = ("clear", "consolidation", "ground glass", "cavity")
NOTHING = {"value": None, "low": None, "high": None}


def scores(classes: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.arange(rows) % classes
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), truth] += 1.5
    return truth, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.03, "high": value + 0.02}


def pixels(figure: Figure, path: Path) -> np.ndarray:
    figures.save(figure, path)
    with Image.open(path) as image:
        assert round(image.info["dpi"][0]) == DOTS_PER_INCH
        return np.asarray(image.convert("L"))


def written(figure: Figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def curve(figure: Figure, label: str) -> tuple[np.ndarray, np.ndarray]:
    (line,) = [line for line in figure.axes[0].lines if str(line.get_label()).startswith(label)]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def history(phases: list[str], val_loss: list[float]) -> pd.DataFrame:
    epochs = len(phases)
    columns = {"loss": np.linspace(1, 0.1, epochs), "accuracy": np.linspace(0.4, 0.9, epochs)}
    return pd.DataFrame({"phase": phases, **columns, "val_loss": val_loss, "val_accuracy": 0.5})


def test_every_figure_shows_something(tmp_path):
    truth, probabilities = scores(4)
    areas = {name: interval(0.9) for name in FOUR}
    counts = pd.DataFrame({split: [9, 5, 4, 0] for split in SPLIT_COLOURS}, index=list(FOUR))
    images = [np.random.default_rng(i).integers(0, 256, (16, 16), dtype=np.uint8) for i in range(5)]
    wide = [np.repeat(np.concatenate([image, image], axis=1)[..., None], 3, axis=-1) for image in images]
    answers = [figures.Prediction(FOUR[i % 4], FOUR[i * i % 4], 0.5) for i in range(5)]
    drawn = {
        "class_distribution": figures.class_distribution(counts),
        "training_curves": figures.training_curves(history(["full"] * 3, [0.9, 0.8, 0.7])),
        "confusion_matrix": figures.confusion_matrix(np.eye(4) * 7, FOUR),
        "roc": figures.roc(truth, probabilities, FOUR, areas),
        "precision_recall": figures.precision_recall(truth, probabilities, FOUR, areas),
        "reliability": figures.reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth),
        "metrics": figures.metrics({"auroc": interval(0.9), "mcc": interval(-0.2), "ece": NOTHING}),
        "sample_grid": figures.sample_grid({"clear": images[:2], "cavity": images[2:]}),
        "test_grid": figures.prediction_grid(images, answers),
        "heatmaps": figures.prediction_grid(wide, answers),
    }
    for name, figure in drawn.items():
        assert pixels(figure, tmp_path / f"{name}.png").std() > 5, name


def test_roc_passes_through_its_thresholds():
    truth = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]])
    figure = figures.roc(truth, probabilities, ("a", "b"), {"b": interval(0.75)}, positive="b")
    x, y = curve(figure, "b:")
    assert list(zip(x, y, strict=True)) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
    assert "b: AUROC 0.75 (0.72 to 0.77)" in written(figure)
    assert "a: AUROC" not in written(figure)


def test_roc_takes_equal_scores_together():
    truth, same = np.array([0, 1, 0, 1]), np.full((4, 2), 0.5)
    x, y = curve(figures.roc(truth, same, ("a", "b"), {}, positive="b"), "b:")
    assert list(zip(x, y, strict=True)) == [(0, 0), (1, 1)]


def test_precision_recall_has_the_share_of_the_class():
    truth = np.array([1, 0, 0, 0])
    probabilities = np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.9, 0.1]])
    figure = figures.precision_recall(truth, probabilities, ("a", "b"), {"b": interval(0.9)}, positive="b")
    x, y = curve(figure, "b:")
    assert (x[1], y[1]) == (1, 1)
    assert y[-1] == pytest.approx(0.25)
    shares = [line.get_ydata()[0] for line in figure.axes[0].lines if len(set(line.get_ydata())) == 1]
    assert 0.25 in shares


def test_class_without_images_has_no_curve():
    truth, probabilities = np.zeros(5, dtype=int), scores(2, 5)[1]
    for draw in (figures.roc, figures.precision_recall):
        assert "b:" not in written(draw(truth, probabilities, ("a", "b"), {"b": NOTHING}, positive=None))


def test_reliability_of_probabilities_that_hold():
    rng = np.random.default_rng(0)
    stated = rng.uniform(0, 1, 4000)
    happened = rng.uniform(0, 1, 4000) < stated
    smooth = calibration_curve.curve(stated, happened, np.arange(4000))
    figure = figures.reliability(stated, happened, smooth, of="MASS", legend="slope 1.00 (0.94 to 1.06)")
    middles, shares = curve(figure, "groups of test images")
    assert len(middles) == 10
    assert np.abs(middles - shares).max() < 0.06
    x, y = curve(figure, "slope 1.00 (0.94 to 1.06)")
    assert np.abs(x - y).max() < 0.05
    assert {"Stated probability of MASS", "Share of images that are MASS"} <= set(written(figure).split("\n"))
    (band,) = figure.axes[0].collections
    assert band.get_paths()[0].vertices[:, 1].min() >= 0


def test_confusion_matrix_has_counts_and_shares_of_rows(tmp_path):
    figure = figures.confusion_matrix(np.array([[9, 1, 0], [2, 2, 0], [0, 0, 0]]), ("a", "b", "c"))
    cells = [text.get_text() for text in figure.axes[0].texts]
    assert cells == [
        "9\n90%", "1\n10%", "0\n0%", "2\n50%", "2\n50%", "0\n0%", "0\nn/a", "0\nn/a", "0\nn/a",
    ]  # fmt: skip
    pixels(figure, tmp_path / "empty row.png")


def test_best_epoch_is_of_the_last_phase():
    phases = ["head", "head", "finetune", "finetune", "finetune"]
    assert figures.best_epoch(history(phases, [0.1, 0.1, 0.9, 0.5, 0.6])) == 3
    assert figures.best_epoch(history(phases, [0.1, 0.1, np.nan, np.inf, 0.6])) == 4
    assert figures.best_epoch(history(phases, [np.nan] * 5)) == 4
    assert figures.best_epoch(pd.DataFrame()) is None


def test_training_curves_mark_phases_and_the_kept_epoch(tmp_path):
    figure = figures.training_curves(history(["head", "finetune", "finetune"], [0.9, 0.5, 0.6]))
    assert "kept: epoch 2" in written(figure)
    assert "head\nalone" in written(figure) or "head alone" in written(figure)
    assert "fine-tuning" in written(figure)
    pixels(figures.training_curves(history(["full"], [0.5])), tmp_path / "single.png")


def test_interval_that_is_missing_is_said_to_be(tmp_path):
    figure = figures.metrics({"auroc": NOTHING, "f1": {"value": 0.5, "low": None, "high": None}}, {"auroc": "AUROC"})
    assert "not available" in written(figure)
    assert "0.50" in written(figure)
    pixels(figure, tmp_path / "metrics.png")


def test_wrong_answers_say_so_in_words():
    image = np.zeros((8, 8), dtype=np.uint8)
    answers = [figures.Prediction("a", "a", 0.9), figures.Prediction("a", "b", None)]
    text = written(figures.prediction_grid([image, image], answers))
    assert "✓ right\nsaid a 0.90\nis a" in text
    assert "✗ WRONG\nsaid b\nis a" in text


@pytest.mark.parametrize(
    "figure",
    [
        figures.training_curves(pd.DataFrame()),
        figures.reliability(np.array([]), np.array([])),
        figures.metrics({}),
        figures.sample_grid({"a": []}),
        figures.prediction_grid([], []),
    ],
)
def test_nothing_to_draw_says_why(figure, tmp_path):
    assert len(written(figure).strip()) > 10
    assert pixels(figure, tmp_path / "nothing.png").std() > 1


def test_names_are_names(tmp_path):
    names = ("$\\frac{", "_hidden", "肺炎", "a name that is much longer than any axis can bear", "line\nbreak", "")
    truth, probabilities = scores(6)
    figure = figures.roc(truth, probabilities, names, {})
    assert "_hidden: AUROC" in written(figure)
    pixels(figure, tmp_path / "roc.png")
    pixels(figures.confusion_matrix(np.eye(6), names), tmp_path / "confusion.png")


def test_many_classes(tmp_path):
    names = tuple(f"finding {i}" for i in range(30))
    truth, probabilities = scores(30, 90)
    pixels(figures.roc(truth, probabilities, names, {}), tmp_path / "roc.png")
    pixels(figures.confusion_matrix(np.eye(30), names), tmp_path / "confusion.png")


def test_nothing_global_is_left_behind():
    # In a process of its own, since another test may have imported pyplot.
    code = (
        "import matplotlib as mpl, numpy as np, sys; from chestxray.report import figures;"
        "before = mpl.rcParams.copy();"
        "figures.confusion_matrix(np.eye(2), ('a', 'b'));"
        "assert dict.__eq__(mpl.rcParams, before); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
