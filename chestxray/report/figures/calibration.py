"""How far stated probabilities can be taken at their word: a smooth curve with its band."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from chestxray.evaluation.calibration.calibration_curve import Curve
from chestxray.report.figures.style import FAINT, PALETTE, absent, canvas, styled


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
    """Stated probability against what came true, above a histogram of the stated probabilities.

    Args:
        stated: float (rows,) in 0..1.
        happened: bool (rows,), whether it came true.
        curve: smooth, with its band, see `calibration_curve`; without one the dots stand alone.
        before: that of the probabilities before calibration, drawn faint.
        of: the class whose probability it is; default: the answer's, whatever it is.
        legend: written into the legend beside the curve, such as intercept and slope.
        bins: number of groups of equally many images, of ten at least, each a dot.
    """
    stated, happened = np.asarray(stated, dtype=float), np.asarray(happened, dtype=float)
    if not stated.size:
        return absent("No test image to compare probabilities with.")
    figure, (upper, lower) = canvas(5.2, 6.2, rows=2, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", label="probabilities hold")
    if before is not None:
        upper.plot(before.stated, before.observed, "--", color=FAINT, label="before calibration")
    if curve is not None:
        upper.fill_between(curve.stated, curve.low, curve.high, color=PALETTE[0], alpha=0.2, linewidth=0)
        upper.plot(curve.stated, curve.observed, color=PALETTE[0], label=legend or "smooth curve, 95% band")
    # Ten images at least in a dot: of fewer, a share says next to nothing.
    groups = np.array_split(np.argsort(stated, kind="stable"), max(min(bins, stated.size // 10), 1))
    middles, proportions = ([values[group].mean() for group in groups] for values in (stated, happened))
    upper.plot(middles, proportions, "o", color=PALETTE[0], markersize=5, alpha=0.7, label="groups of test images")
    observed = "Share of answers that are right" if of is None else f"Share of images that are {of}"
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel=observed)
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=1, frameon=False)
    lower.hist(stated, bins=np.linspace(0, 1, 21).tolist(), color=PALETTE[5], edgecolor="white")
    lower.set(xlabel=f"Stated probability of {of or 'the answer'}", ylabel="Images\n(number)")
    return figure
