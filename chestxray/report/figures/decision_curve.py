"""Draws the decision curve: net benefit of acting on the model, on everyone and on no one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from chestxray.report.figures.style import FAINT, PALETTE, canvas, styled


@styled
def decision_curve(points: Sequence[Mapping[str, Any]], prevalence: float) -> Figure:
    """Return a figure of net benefit against the threshold probability, with the model's 95% band.

    `points` are those of ``decision_curve.json``; `prevalence` (a proportion) is the largest possible net benefit.
    """
    figure, ax = canvas(6.4, 4.2)
    x = np.array([point["threshold"] for point in points])
    model, low, high, everyone = (
        np.array([np.nan if point[name][end] is None else point[name][end] for point in points], dtype=np.float64)
        for name, end in (("model", "value"), ("model", "low"), ("model", "high"), ("everyone", "value"))
    )
    ax.fill_between(x, low, high, color=PALETTE[0], alpha=0.2, linewidth=0)
    ax.plot(x, model, color=PALETTE[0], label="the model")
    ax.plot(x, everyone, color=PALETTE[1], linestyle="--", label="act on everyone")
    ax.axhline(0, color=FAINT, linestyle=":", label="act on no one")
    ax.set_xlim(0, 1)
    # The negative range is cut: the curve of acting on everyone falls without bound.
    ax.set_ylim(-0.3 * prevalence, 1.08 * prevalence)
    ax.set(xlabel="Threshold probability", ylabel="Net benefit")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure
