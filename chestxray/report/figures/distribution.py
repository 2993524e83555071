"""Draws the number of images by class and split."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from chestxray.report.figures.style import SPLIT_COLOURS, canvas, shortened, styled


@styled
def class_distribution(counts: pd.DataFrame) -> Figure:
    """Return a bar chart of the number of images by class (rows of `counts`) and split (its columns)."""
    splits = [name for name in SPLIT_COLOURS if name in counts] or list(counts)
    figure, ax = canvas(5.4, 1.3 + len(counts) * max(0.22 * len(splits), 0.3))
    centres = np.arange(len(counts))
    thick = 0.8 / max(len(splits), 1)
    largest = max(int(counts[splits].to_numpy().max(initial=0)), 1)
    for i, split in enumerate(splits):
        places = centres + (i - (len(splits) - 1) / 2) * thick
        values = counts[split].to_numpy()
        ax.barh(places, values, height=thick * 0.9, color=SPLIT_COLOURS.get(split, "#777777"), label=split)
        for place, value in zip(places, values, strict=True):
            ax.text(value + largest * 0.012, place, f"{value:,}", va="center", fontsize=8.5)
    ax.set_yticks(centres, [shortened(name) for name in counts.index])
    ax.invert_yaxis()
    ax.set(xlabel="Images (number)", xlim=(0, largest * 1.14))
    ax.grid(axis="y", visible=False)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure
