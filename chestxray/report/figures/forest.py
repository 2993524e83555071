"""Draws forest plots: one measure of several models or tests, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from chestxray.evaluation.figure_format import FigureFields, with_interval
from chestxray.report.figures.style import FAINT, INK, PALETTE, absent, canvas, shortened, styled


@styled
def forest(
    items: Mapping[str, FigureFields],
    label: str,
    *,
    marks: Mapping[str, str] | None = None,
    repeats: Mapping[str, Sequence[float | None]] | None = None,
    reference: float | None = None,
) -> Figure:
    """Return a forest plot: for each of `items` a row with a dot, its interval, and both as numbers.

    Args:
        items: value and interval by name, from top to bottom.
        label: the label of the axis: the measure and the level of the intervals.
        marks: letters to write beside the numbers.
        repeats: the values of repeated trainings, drawn as small rings.
        reference: a value to draw a line at, such as no difference.
    """
    drawn = [x for item in items.values() for x in (item.get("low"), item.get("value"), item.get("high"))]
    drawn += [x for values in (repeats or {}).values() for x in values]
    known = [x for x in drawn if x is not None]
    if not known:
        return absent("No value could be computed.")
    figure, ax = canvas(7.6, 1.0 + 0.36 * len(items))
    if reference is not None:
        ax.axvline(reference, color=FAINT, linewidth=1)
    for row, (name, item) in enumerate(items.items()):
        value, low, high = item.get("value"), item.get("low"), item.get("high")
        if low is not None and high is not None:
            ax.plot([low, high], [row, row], color=PALETTE[0], linewidth=2.4, solid_capstyle="butt")
        single = [x for x in (repeats or {}).get(name, ()) if x is not None]
        if len(single) > 1:
            ax.plot(single, np.full(len(single), row - 0.24), "o", color=FAINT, fillstyle="none", markersize=4)
        if value is not None:
            ax.plot(value, row, "o", color=PALETTE[0], markersize=6)
        ax.text(
            1.03, row, f"{with_interval(item, 2)}  {(marks or {}).get(name, '')}".rstrip(),
            transform=ax.get_yaxis_transform(), va="center", fontsize=9, color=INK if value is not None else FAINT,
        )  # fmt: skip
    ax.set_yticks(range(len(items)), [shortened(name, 40) for name in items])
    ax.set_ylim(len(items) - 0.5, -0.5)
    ax.set_xlabel(label)
    ax.margins(x=0.06)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return figure
