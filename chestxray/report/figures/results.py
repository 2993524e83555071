"""Draws results on the test images: the confusion matrix, and all figures with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from chestxray.evaluation.figure_format import FigureFields, with_interval
from chestxray.report.figures.style import FAINT, INK, PALETTE, absent, canvas, plain_text, shortened, styled

#: With more classes than this, the cells are too small for numbers.
MOST_WRITTEN = 12


@styled
def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Return the plot of `draw_confusion` as a figure with a colour bar."""
    longest = max(map(len, _short(classes)))
    grid = min(max(0.75 * len(classes), 2.8), 8.5)
    below = 0.6 if _flat(classes) else 0.7 + 0.06 * longest
    figure, ax = canvas(grid + 1.5 + 0.09 * longest, grid + below)
    draw_scale(ax, draw_confusion(ax, counts, classes))
    return figure


@styled
def draw_confusion(ax: Axes, counts: np.ndarray, classes: Sequence[str]) -> AxesImage:
    """Draw counts and row proportions of `counts` (true class, predicted class); return the coloured cells."""
    counts = np.asarray(counts, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    proportions = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    names, flat = _short(classes), _flat(classes)
    image = ax.imshow(proportions, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= MOST_WRITTEN:
        _write_cells(ax, counts, proportions, totals)
    ax.set_xticks(range(len(names)), names, rotation=0 if flat else 45, ha="center" if flat else "right")
    ax.set_yticks(range(len(names)), names)
    if len(classes) > 20:
        ax.tick_params(labelsize=7)
    ax.set(xlabel="Predicted class", ylabel="True class")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    plain_text(ax)
    return image


@styled
def draw_scale(ax: Axes, image: AxesImage) -> None:
    """Draw the colour bar of the `image` that `draw_confusion` returned, beside `ax`."""
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.045, pad=0.03)
    bar.set_label("Share of the true class")
    bar.outline.set_visible(False)


def _short(classes: Sequence[str]) -> list[str]:
    return [shortened(name, 24) for name in classes]


def _flat(classes: Sequence[str]) -> bool:
    """Return whether the class names fit side by side below the matrix."""
    return max(map(len, _short(classes))) * len(classes) <= 34


def _write_cells(ax: Axes, counts: np.ndarray, proportions: np.ndarray, totals: np.ndarray) -> None:
    size = 11 if len(counts) <= 4 else 9 if len(counts) <= 8 else 7
    for (row, column), count in np.ndenumerate(counts):
        share = f"{100 * proportions[row, column]:.0f}%" if totals[row, 0] else "n/a"
        colour = "white" if proportions[row, column] > 0.55 else INK
        ax.text(column, row, f"{count:,.0f}\n{share}", ha="center", va="center", color=colour, fontsize=size)


@styled
def metrics(test: Mapping[str, FigureFields], titles: Mapping[str, str] | None = None, level: str = "95%") -> Figure:
    """Return a forest plot: each figure of `test` as a dot with its interval, and as numbers beside it.

    `titles` gives the displayed names (default: the keys), `level` the level of the intervals. A figure that is not
    available has a row that says so.
    """
    if not test:
        return absent("No measure was computed.")
    titles = titles or {}
    known = [x for item in test.values() for x in (item.get("low"), item.get("value")) if x is not None]
    left = min(0.0, *known) if known else 0.0
    figure, ax = canvas(6.2, 0.9 + 0.32 * len(test))
    for row, item in enumerate(test.values()):
        value, low, high = item.get("value"), item.get("low"), item.get("high")
        if low is not None and high is not None:
            ax.plot([low, high], [row, row], color=PALETTE[0], linewidth=2.4, solid_capstyle="butt")
        if value is not None:
            ax.plot(value, row, "o", color=PALETTE[0], markersize=6, clip_on=False)
        ax.text(
            1.03, row, with_interval(item, 2), transform=ax.get_yaxis_transform(), va="center", fontsize=9,
            color=INK if value is not None else FAINT,
        )  # fmt: skip
    ax.set_yticks(range(len(test)), [titles.get(name, name) for name in test])
    ax.set_ylim(len(test) - 0.5, -0.5)
    ax.set(xlim=(left - 0.02 if left < 0 else 0, 1.0), xlabel=f"Value and {level} interval (no unit)")
    if left < 0:
        ax.axvline(0, color=FAINT, linewidth=0.8)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return figure
