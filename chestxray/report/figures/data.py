"""Figures of a data set: image sizes, grey values, and sources by class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from chestxray.report.figures.style import INK, PALETTE, STROKES, absent, canvas, line_style, shortened, styled


@styled
def size_histogram(sizes: pd.DataFrame) -> Figure:
    """Return a figure with the histograms of ``width`` and ``height`` in pixels, the columns of `sizes`."""
    if sizes.empty:
        return absent("No image that can be read.")
    figure, ax = canvas(5.4, 3.0)
    largest = int(sizes[["width", "height"]].to_numpy().max())
    bins = np.linspace(0, largest * 1.08 + 1, 41)
    for name, colour, stroke in zip(("width", "height"), PALETTE, STROKES, strict=False):
        # The second is dashed, so that both are visible where they coincide.
        ax.hist(sizes[name], bins=bins, histtype="step", linewidth=1.6, color=colour, linestyle=stroke, label=name)
    ax.set(xlabel="Pixels of the file", ylabel="Images (number)", xlim=(0, bins[-1]))
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


@styled
def intensity_histogram(histograms: Mapping[str, np.ndarray]) -> Figure:
    """Return a figure of the proportion of pixels by grey value 0..255, one line per class.

    Each array holds 256 counts. Classes that differ here can be told apart without looking at the lungs.
    """
    if not histograms:
        return absent("No image that can be read.")
    figure, ax = canvas(5.4, 3.0)
    for i, (name, counts) in enumerate(histograms.items()):
        # Bins of sixteen grey values: the rounding in the files makes single values irregular.
        proportions = counts.reshape(-1, 16).sum(axis=1) / max(int(counts.sum()), 1)
        ax.plot(np.arange(8, 256, 16), proportions, label=shortened(name), **line_style(i))
    ax.set(xlabel="Grey value (0 black, 255 white)", ylabel="Share of the pixels", xlim=(0, 255))
    ax.set_ylim(bottom=0)
    ax.legend(loc="best")
    return figure


@styled
def source_by_class(counts: pd.DataFrame) -> Figure:
    """Return a table of images by class (rows of `counts`) and source (columns) as a figure.

    The darker a cell, the larger its proportion of the class. A class that comes from a single source can be
    recognised by the source.
    """
    if counts.empty:
        return absent("No image.")
    rows, columns = counts.shape
    figure, ax = canvas(2.2 + 1.25 * columns, 1.0 + 0.42 * rows)
    values = counts.to_numpy()
    proportions = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    ax.imshow(proportions, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        ax.text(j, i, f"{value:,}", ha="center", va="center", color="white" if proportions[i, j] > 0.6 else INK)
    ax.set_xticks(range(columns), [shortened(str(name), 18) for name in counts.columns])
    ax.set_yticks(range(rows), [shortened(str(name)) for name in counts.index])
    ax.xaxis.tick_top()
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.suptitle("Images by class and source", fontsize=10)
    return figure
