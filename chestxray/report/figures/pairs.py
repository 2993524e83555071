"""Draws contact sheets of images that show the same radiograph, for visual inspection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from chestxray.data.audit import Audit
from chestxray.data.index import Index
from chestxray.report.figures.grids import _show, _tiles
from chestxray.report.figures.style import FAINT, WRONG, absent, save, shortened, styled

MOST_GROUPS, MOST_MEMBERS = 16, 4


@dataclass(frozen=True)
class Member:
    """One image of a group: pixels uint8 (height, width), file name, split (``place``) and class."""

    pixels: np.ndarray
    name: str
    place: str
    label: str


@styled
def contact_sheet(groups: Sequence[Sequence[Member]], across: int = 0) -> Figure:
    """Return a figure with up to two groups per row; at most `MOST_GROUPS` groups and `MOST_MEMBERS` images of each.

    The first `across` groups, which span several splits, and groups with several classes are framed in colour.
    """
    if not groups:
        return absent("No copies.")
    shown = [list(group[:MOST_MEMBERS]) for group in groups[:MOST_GROUPS]]
    each = max(map(len, shown))
    beside = 1 if len(shown) == 1 or each > 2 else 2
    figure, axes = _tiles(-(-len(shown) // beside), beside * each, (1.75, 1.75), above=0.5)
    for ax in axes.flat:
        ax.set_axis_off()
    for number, (group, whole) in enumerate(zip(shown, groups, strict=False)):
        row, column = divmod(number, beside)
        grave = number < across or len({member.label for member in whole}) > 1
        for ax, member in zip(axes[row, column * each :], group, strict=False):
            ax.set_axis_on()
            _show(ax, member.pixels)
            caption = f"{number + 1}: {shortened(member.name, 24)}\n{shortened(member.label, 24)}"
            ax.set_title(f"{caption}\n{member.place}", fontsize=7.5, fontweight="normal", pad=3)
            ax.spines[:].set(visible=True, color=WRONG if grave else FAINT, linewidth=2 if grave else 0.5)
    return figure


def write_contact_sheets(found: Audit, index: Index, pixels: np.ndarray, folder: Path) -> list[Path]:
    """Write ``exact_duplicates.png``, ``near_duplicates.png`` and ``look_alikes.png``; return their paths.

    Groups across splits come first. `pixels`: uint8 (rows, height, width), corresponding to the rows of `index`. A
    sheet without groups is not written.
    """
    rows = index.rows
    row_of = {path: i for i, path in enumerate(rows["path"])}
    left_out = rows["audit"] if "audit" in rows else rows["path"].map(lambda _: "")

    def member(path: str) -> Member:
        i = row_of[path]
        place = "left out" if left_out[i] else rows["split"][i] or "no split"
        return Member(pixels[i], Path(path).name, place, rows["label"][i])

    pairs = [(tuple(pair["paths"]), pair["across_splits"]) for pair in found.look_alikes]
    drawn = []
    for name, groups, across in (
        ("exact_duplicates", found.duplicates, found.duplicates_across_splits),
        ("near_duplicates", found.near or (), found.near_across_splits),
        ("look_alikes", [pair for pair, _ in pairs], [pair for pair, straddling in pairs if straddling]),
    ):
        ordered = [*across, *(group for group in groups if group not in set(across))][:MOST_GROUPS]
        if not ordered:
            continue
        sheet = contact_sheet([[member(path) for path in group] for group in ordered], len(across))
        save(sheet, folder / f"{name}.png")
        drawn.append(folder / f"{name}.png")
    return drawn
