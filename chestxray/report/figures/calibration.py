"""Draws reliability diagrams: a smooth calibration curve with its confidence band."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chestxray.evaluation.calibration.calibration_curve import Curve
from chestxray.report.figures.style import FAINT, PALETTE, absent, canvas, draw_absent, plain_text, styled

_NOTHING = "No test image to compare probabilities with."
#: Minimum number of images per dot: a proportion of fewer is too uncertain.
_FEWEST = 10


@styled
def reliability(
    stated: np.ndarray,
    happened: np.ndarray,
    curve: Curve | None = None,
    before: Curve | None = None,
    *,
    of: str | None = None,
    legend: str = "",
    bins: int = 10,
) -> Figure:
    """Return the plot of `draw_reliability` above a histogram of the stated probabilities, as a figure."""
    stated = np.asarray(stated, dtype=float)
    if not stated.size:
        return absent(_NOTHING)
    figure, (upper, lower) = canvas(5.2, 6.2, rows=2, sharex=True, height_ratios=(4, 1))
    draw_reliability(upper, stated, happened, curve, before, of=of, legend=legend, bins=bins)
    upper.set_xlabel("")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=1, frameon=False)
    lower.hist(stated, bins=np.linspace(0, 1, 21).tolist(), color=PALETTE[5], edgecolor="white")
    lower.set(xlabel=_axis(of), ylabel="Images\n(number)")
    return figure


@styled
def draw_reliability(
    ax: Axes,
    stated: np.ndarray,
    happened: np.ndarray,
    curve: Curve | None = None,
    before: Curve | None = None,
    *,
    of: str | None = None,
    legend: str = "",
    bins: int = 10,
) -> None:
    """Draw the observed proportion against the stated probability (a reliability diagram).

    Args:
        ax: the axes to draw on.
        stated: predicted probabilities, float (rows,) in 0..1.
        happened: bool (rows,), whether the image is of the class.
        curve: smooth calibration curve with its band, see `calibration_curve`; None: only the dots are drawn.
        before: the curve of the probabilities before calibration, drawn faint.
        of: the class whose probability is stated; None: the predicted class of each image.
        legend: legend text of the curve, such as intercept and slope.
        bins: number of groups of equally many images, at least ten each; each group is a dot.
    """
    stated, happened = np.asarray(stated, dtype=float), np.asarray(happened, dtype=float)
    if not stated.size:
        draw_absent(ax, _NOTHING)
        return
    ax.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", label="probabilities hold")
    if before is not None:
        ax.plot(before.stated, before.observed, "--", color=FAINT, label="before calibration")
    if curve is not None:
        ax.fill_between(curve.stated, curve.low, curve.high, color=PALETTE[0], alpha=0.2, linewidth=0)
        ax.plot(curve.stated, curve.observed, color=PALETTE[0], label=legend or "smooth curve, 95% band")
    groups = np.array_split(np.argsort(stated, kind="stable"), max(min(bins, stated.size // _FEWEST), 1))
    middles, proportions = ([values[group].mean() for group in groups] for values in (stated, happened))
    ax.plot(middles, proportions, "o", color=PALETTE[0], markersize=5, alpha=0.7, label="groups of test images")
    observed = "Share of answers that are right" if of is None else f"Share of images that are {of}"
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=_axis(of), ylabel=observed)
    plain_text(ax)


def _axis(of: str | None) -> str:
    return f"Stated probability of {of or 'the answer'}"
