"""Curves over all thresholds, drawn on given axes (``draw_...``) or returned as a figure of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chestxray.evaluation.figure_format import FigureFields, with_interval
from chestxray.report.figures.style import FAINT, canvas, line_style, plain_text, shortened, styled, unit_square

#: With more curves than this, the legend is beside the plot, not below it.
_MOST_BELOW = 6


@styled
def roc(
    truth: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    areas: Mapping[str, FigureFields],
    positive: str | None = None,
) -> Figure:
    """Return the plot of `draw_roc` as a figure, with the legend outside the axes."""
    figure, ax = canvas(*_size(classes, positive))
    draw_roc(ax, truth, probabilities, classes, areas, positive)
    _legend(figure, ax)
    return figure


@styled
def draw_roc(
    ax: Axes,
    truth: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    areas: Mapping[str, FigureFields],
    positive: str | None = None,
) -> None:
    """Draw sensitivity against 1 - specificity: a curve for each class against the rest, or for `positive` alone.

    `truth` holds class numbers (rows,), `probabilities` is (rows, classes), and `areas` gives the AUROC of each
    class with its interval. A class that none or all of the images belong to has no curve.
    """
    from sklearn.metrics import roc_curve

    ax.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", label="chance")
    for i in _drawn(classes, positive):
        hit, score = truth == i, probabilities[:, i]
        if hit.all() or not hit.any():
            continue
        false_positive_rate, sensitivity, _ = roc_curve(hit, score, drop_intermediate=False)
        ax.plot(false_positive_rate, sensitivity, label=_label(classes[i], "AUROC", areas), **line_style(i))
    unit_square(ax, "1 - specificity (share of the others called positive)", "Sensitivity (share found)")
    plain_text(ax)


@styled
def precision_recall(
    truth: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    areas: Mapping[str, FigureFields],
    positive: str | None = None,
) -> Figure:
    """Return a figure of precision against recall; the arguments are those of `roc`.

    A dotted line marks the class's proportion of the images, which is the precision of guessing.
    """
    from sklearn.metrics import precision_recall_curve

    figure, ax = canvas(*_size(classes, positive))
    for i in _drawn(classes, positive):
        hit, score = truth == i, probabilities[:, i]
        if not hit.any():
            continue
        # From the strictest threshold on, without the point (recall 0, precision 1) that scikit-learn adds.
        precision, recall = (values[-2::-1] for values in precision_recall_curve(hit, score)[:2])
        style = line_style(i)
        ax.step(
            np.concatenate([[0], recall]), np.concatenate([precision[:1], precision]), where="pre",
            label=_label(classes[i], "AUPRC", areas), **style,
        )  # fmt: skip
        ax.axhline(hit.mean(), color=style["color"], linewidth=1, linestyle=":", alpha=0.8)
    ax.plot([], [], color=FAINT, linewidth=1, linestyle=":", label="chance: share of the class")
    unit_square(ax, "Recall = sensitivity (share found)", "Precision (share right of those called)")
    _legend(figure, ax)
    return figure


def _drawn(classes: Sequence[str], positive: str | None) -> list[int]:
    if positive is None or positive not in classes:
        return list(range(len(classes)))
    return [list(classes).index(positive)]


def _size(classes: Sequence[str], positive: str | None) -> tuple[float, float]:
    curves = len(_drawn(classes, positive))
    return (5.2, 5.1 + 0.19 * curves) if curves <= _MOST_BELOW else (8.4, 5.2)


def _label(name: str, kind: str, areas: Mapping[str, FigureFields]) -> str:
    return f"{shortened(name)}: {kind} {with_interval(areas.get(name), 2)}"


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    # Never inside the axes: good curves run along one edge and prevalences along another.
    if len(handles) <= _MOST_BELOW + 1:
        figure.legend(handles, labels, loc="outside lower center", fontsize=9, frameon=False)
    else:
        size = 8 if len(handles) <= 24 else 6
        figure.legend(handles, labels, loc="outside right center", fontsize=size, frameon=False)
