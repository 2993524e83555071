"""Plots of a run, drawn on the user's axes or on new ones that a notebook shows.

Each function returns the axes. The plots are those of the report (`chestxray.report.figures`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from chestxray.errors import InputError
from chestxray.report import figures, run_figures
from chestxray.report.figures.style import look
from chestxray.runs.run_folder import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def roc(run: Run, ax: Axes | None) -> Axes:
    """Draw the ROC curves of the test, with their areas in the legend."""
    ax = _axes(ax)
    figures.draw_roc(ax, *run_figures.scores(run, "auroc"))
    _legend(ax, "lower right")
    return ax


def calibration(run: Run, ax: Axes | None) -> Axes:
    """Draw the reliability diagram of the test: observed proportion against stated probability."""
    ax = _axes(ax)
    figures.draw_reliability(ax, **run_figures.reliability(run))
    _legend(ax, "upper left")
    return ax


def confusion(run: Run, ax: Axes | None) -> Axes:
    """Draw the confusion matrix of the test; with many classes, a colour bar replaces the numbers in the cells."""
    ax = _axes(ax)
    counts, classes = run_figures.confusion(run)
    image = figures.draw_confusion(ax, counts, classes)
    if len(classes) > figures.MOST_WRITTEN:
        figures.draw_scale(ax, image)
    return ax


def history(run: Run, ax: Axes | None, of: str) -> Axes:
    """Draw a measure by epoch. Raises `InputError` if `of` is none that the training recorded."""
    allowed = [name for name in figures.MEASURES if name in run.history or name != "auroc"]
    if of not in allowed:
        raise InputError(f"of must be one of {', '.join(allowed)}. Received: {of!r}.")
    ax = _axes(ax)
    figures.draw_history(ax, run.history, of)
    _legend(ax, "best")
    return ax


def _axes(ax: Axes | None) -> Axes:
    """Return `ax`, or the axes of a new pyplot figure, which a notebook shows."""
    from matplotlib.axes import Axes

    if ax is None:
        # Pyplot is imported only here, so that its state and backend do not change for callers with axes of their own.
        import matplotlib.pyplot as plt

        with look():
            return plt.subplots(layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise InputError(f"ax must be matplotlib Axes, such as those of plt.subplots(). Received: {type(ax).__name__}.")
    return ax


def _legend(ax: Axes, place: Literal["lower right", "upper left", "best"]) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        with look():
            ax.legend(handles, labels, loc=place)
