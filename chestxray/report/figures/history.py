"""How training went: loss and accuracy, epoch by epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from chestxray.report.figures.style import FAINT, PALETTE, absent, canvas, styled

PHASES = {"head": "head alone", "finetune": "fine-tuning", "full": "whole network"}
_SHADES = ("#F1F4F7", "#FFFFFF")


def best_epoch(history: pd.DataFrame) -> int | None:
    """Row of the epoch whose weights were kept: of the last phase, that of the lowest validation
    loss (of the lowest loss where none was validated). None where no loss is known.
    """
    if history.empty:
        return None
    last = (history["phase"] == history["phase"].iloc[-1]).to_numpy()
    for column in ("val_loss", "loss"):
        losses = history[column].to_numpy(dtype=float) if column in history else np.full(len(history), np.nan)
        if (usable := last & np.isfinite(losses)).any():
            return int(np.argmin(np.where(usable, losses, np.inf)))
    return None


@styled
def training_curves(history: pd.DataFrame) -> Figure:
    """Loss above accuracy over all epochs, train and validation, phases shaded, kept epoch marked.

    `history` has a row an epoch: ``phase``, ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``.
    """
    if history.empty:
        return absent("No epoch was recorded.")
    figure, axes = canvas(5.4, 5.6, rows=2, sharex=True)
    best = best_epoch(history)
    for ax, column, label in zip(axes, ("loss", "accuracy"), ("Loss", "Accuracy (share right)"), strict=True):
        _phases(ax, history["phase"].astype(str).tolist(), named=column == "loss")
        _curves(ax, history, column)
        if best is not None:
            ax.axvline(best + 1, color=FAINT, linestyle=":", linewidth=1.5, label=f"kept: epoch {best + 1}")
        ax.set_ylabel(label)
    axes[1].set_xlabel("Epoch (number)")
    axes[1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes[1].set_xlim(0.5, len(history) + 0.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def _curves(ax: Axes, history: pd.DataFrame, column: str) -> None:
    epochs = np.arange(1, len(history) + 1)
    marker: dict[str, Any] = {"marker": "o", "markersize": 4} if len(history) <= 30 else {}
    for name, label, colour in ((column, "train", PALETTE[0]), (f"val_{column}", "validation", PALETTE[1])):
        if name in history and history[name].notna().any():
            ax.plot(epochs, history[name].to_numpy(dtype=float), color=colour, label=label, **marker)


def _phases(ax: Axes, phases: list[str], *, named: bool) -> None:
    starts = [i for i, phase in enumerate(phases) if i == 0 or phase != phases[i - 1]]
    for k, (start, end) in enumerate(zip(starts, [*starts[1:], len(phases)], strict=True)):
        ax.axvspan(start + 0.5, end + 0.5, color=_SHADES[k % 2], zorder=0)
        if named:
            where = ((start + end + 1) / 2, 1.0)
            name = PHASES.get(phases[start], phases[start])
            # A short phase beside a long one has no room for its name on one line.
            text = name.replace(" ", "\n") if len(starts) > 1 and (end - start) / len(phases) < 0.3 else name
            ax.annotate(
                text, where, xycoords=ax.get_xaxis_transform(), xytext=(0, 3), textcoords="offset points",
                ha="center", va="bottom", fontsize=9, color=FAINT,
            )  # fmt: skip
