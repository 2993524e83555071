"""Draws the training history: loss and accuracy by epoch, or of a linear probe alone by the strength of its penalty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from chestxray.report.figures.style import FAINT, PALETTE, absent, canvas, draw_absent, styled

PHASES = {"probe": "linear probe", "head": "head alone", "finetune": "fine-tuning", "full": "whole network"}
#: Columns of a history that can be drawn, with their axis labels.
MEASURES = {"loss": "Loss", "accuracy": "Accuracy (share right)", "auroc": "Mean AUROC (no unit)"}
#: The phase whose rows are no epochs but strengths of a linear probe, by C.
PROBE = "probe"
_NOTHING = "No epoch was recorded."
_SHADES = ("#F1F4F7", "#FFFFFF")


def best_epoch(history: pd.DataFrame) -> int | None:
    """Return the row number of the epoch whose weights were kept; None if no loss is known.

    This is the epoch of the last phase with the highest mean AUROC of validation where the training went by it, which
    only then is in the history; else with the lowest validation loss, or with the lowest training loss if there was no
    validation.
    """
    if history.empty:
        return None
    last = (history["phase"] == history["phase"].iloc[-1]).to_numpy()
    for column, sign in (("val_auroc", -1), ("val_loss", 1), ("loss", 1)):
        values = sign * history[column].to_numpy(dtype=float) if column in history else np.full(len(history), np.nan)
        if (usable := last & np.isfinite(values)).any():
            return int(np.argmin(np.where(usable, values, np.inf)))
    return None


def went_by(history: pd.DataFrame) -> tuple[str, str]:
    """Return the column of `history` that `best_epoch` goes by, and what it is best in."""
    if "val_auroc" in history:
        return "val_auroc", "the highest mean AUROC of validation"
    return "val_loss", "the lowest validation loss"


def divided(history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of a linear probe, one per C, and those of epochs; either may be empty."""
    probed = history["phase"] == PROBE
    return history[probed].reset_index(drop=True), history[~probed].reset_index(drop=True)


@styled
def training_curves(history: pd.DataFrame) -> Figure:
    """Return a figure of loss (above), accuracy (below) and, where it is known, mean AUROC over all epochs, drawn by
    `draw_history`; of a linear probe that no epoch followed over its strengths.
    """
    if history.empty:
        return absent(_NOTHING)
    probe, epochs = divided(history)
    history = probe if epochs.empty else epochs
    drawn = [name for name in MEASURES if name != "auroc" or "val_auroc" in history]
    figure, axes = canvas(5.4, 2.8 * len(drawn), rows=len(drawn), sharex=True)
    for ax, column in zip(axes, drawn, strict=True):
        draw_history(ax, history, column, named=column == "loss")
        ax.set_xlabel("" if column != drawn[-1] else ax.get_xlabel())
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


@styled
def draw_history(ax: Axes, history: pd.DataFrame, column: str, *, named: bool = True) -> None:
    """Draw one of `MEASURES` over all epochs, for training and validation images.

    The phases are shaded, and the epoch whose weights were kept is marked (of a linear probe, its C). `history` has one
    row per epoch: ``phase``, ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``. `named`: whether to write the
    names of the phases above the axes.
    """
    if history.empty:
        draw_absent(ax, _NOTHING)
        return
    _phases(ax, history["phase"].astype(str).tolist(), named=named)
    _curves(ax, history, column)
    best = best_epoch(history)
    probed = (history["phase"] == PROBE).all()
    if best is not None:
        kept = f"C = {history['C'].iloc[best]:g}" if probed else f"epoch {best + 1}"
        ax.axvline(best + 1, color=FAINT, linestyle=":", linewidth=1.5, label=f"kept: {kept}")
    ax.set(xlabel="Epoch (number)", ylabel=MEASURES[column], xlim=(0.5, len(history) + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if probed:
        ax.set_xlabel("Inverse strength of the penalty, C (no unit)")
        ax.set_xticks(range(1, len(history) + 1, 2), [f"{c:.0e}" for c in history["C"].iloc[::2]])


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
