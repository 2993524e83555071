"""Draws images beside their heat maps, each method with the scale that its maps share."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from chestxray.explanation.overlay import overlay
from chestxray.report.figures.grids import _show, _tiles
from chestxray.report.figures.style import absent, shortened, styled

#: Side of an image, and room for the colour bars below the last row, in inches.
_TILE, _BAR = 2.3, 0.6
#: A row of the panel: the image's name, the explained class, pixels uint8 (height, width), each method's map in 0..1.
Row = tuple[str, str, np.ndarray, Sequence[np.ndarray]]


@styled
def explanation_panel(rows: Sequence[Row], methods: Sequence[tuple[str, str, float]]) -> Figure:
    """Return a figure with a row for each image and class: the image, and the map of each method over it.

    `methods`: name, unit, and the end of its scale and colour bar.
    """
    if not rows:
        return absent("No heat map to show.")
    figure, axes = _tiles(len(rows), 1 + len(methods), (_TILE, _TILE), above=0.28, below=_BAR)
    for across, (image, name, grey, maps) in zip(axes, rows, strict=True):
        _show(across[0], grey)
        across[0].set_title(shortened(f"{image}: {name}", 34), fontsize=7.5, pad=3, fontweight="normal")
        for ax, heat, (method, _, _) in zip(across[1:], maps, methods, strict=True):
            _show(ax, overlay(grey, heat))
            ax.set_title(method, fontsize=7.5, pad=3, fontweight="normal")
    for ax, (_, unit, highest) in zip(axes[-1][1:], methods, strict=True):
        place, inches = ax.get_position(), figure.get_figheight()
        bar = figure.add_axes((place.x0 + 0.1 * place.width, (_BAR - 0.1) / inches, 0.8 * place.width, 0.1 / inches))
        colours = mpl.cm.ScalarMappable(Normalize(0, highest or 1.0), "plasma")
        ticks = [0, highest / 2, highest] if highest else [0]
        figure.colorbar(colours, cax=bar, orientation="horizontal", ticks=ticks)
        bar.set_xticks(ticks, [f"{value:.2g}" for value in ticks] if highest else ["0: all maps are empty"])
        bar.tick_params(labelsize=7)
        bar.set_xlabel(unit, fontsize=7)
    return figure
