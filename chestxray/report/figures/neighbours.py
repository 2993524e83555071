"""Draws films beside their nearest ones, for visual inspection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from chestxray.report.figures.grids import _show, _tiles
from chestxray.report.figures.style import FAINT, INK, WRONG, absent, shortened, styled


@dataclass(frozen=True)
class Tile:
    """A film: pixels uint8 (height, width), None if the file is gone; its name, label and split; of a neighbour its
    ``similarity`` to the film that begins the row, and whether the two may be copies.
    """

    pixels: np.ndarray | None
    name: str
    label: str
    split: str
    similarity: float | None = None
    possible_copy: bool = False


@styled
def neighbour_panel(rows: Sequence[Sequence[Tile]]) -> Figure:
    """Return a figure with a film at the left of each row and its neighbours beside it; possible copies are framed in
    colour.
    """
    if not rows:
        return absent("No film to show.")
    figure, axes = _tiles(len(rows), max(map(len, rows)), (1.75, 1.75), above=0.62)
    for ax in axes.flat:
        ax.set_axis_off()
    for number, (across, row) in enumerate(zip(axes, rows, strict=True)):
        for ax, tile in zip(across, row, strict=False):
            ax.set_axis_on()
            if tile.pixels is None:
                ax.text(0.5, 0.5, "not available", ha="center", va="center", fontsize=7.5, transform=ax.transAxes)
            else:
                _show(ax, tile.pixels)
            head = f"film {number + 1}" if tile.similarity is None else f"{tile.similarity:.3f}"
            mark = "  possible copy" if tile.possible_copy else ""
            about = ", ".join(filter(None, (shortened(tile.label, 16), tile.split)))
            ax.set_title(
                f"{head}{mark}\n{shortened(tile.name, 24)}\n{about}", fontsize=7.5, pad=3, fontweight="normal",
                color=WRONG if tile.possible_copy else INK,
            )  # fmt: skip
            own = tile.similarity is None
            colour = WRONG if tile.possible_copy else INK if own else FAINT
            ax.spines[:].set(visible=True, color=colour, linewidth=2 if own or tile.possible_copy else 0.5)
    return figure
