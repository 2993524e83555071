"""The common style of all figures: colours, fonts, axes, and saving as PNG."""

from __future__ import annotations

import functools
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from chestxray.storage.files import replacing

P = ParamSpec("P")
T = TypeVar("T")

DOTS_PER_INCH = 150
#: The colours of Okabe and Ito, distinguishable with any colour vision; without their yellow, which is
#: hardly visible on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: Line styles: after every seven classes the colours repeat with the next style.
STROKES = ("-", "--", "-.", ":")
SPLIT_COLOURS = {"train": "#0072B2", "validation": "#E69F00", "test": "#009E73"}
RIGHT, WRONG = "#00795A", "#B84A00"
INK, FAINT = "#222222", "#6B6B6B"
LONGEST_NAME = 26

# Matplotlib's settings are shared by all threads.
_ONE_AT_A_TIME = threading.RLock()
_RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "text.color": INK,
    # A class may be called "a$b$": it is a name, not a formula.
    "text.parse_math": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.fontsize": 9,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "#E3E3E3",
    "lines.linewidth": 1.8,
}


@contextmanager
def look() -> Iterator[None]:
    """Apply this style within the block, whatever the user's matplotlibrc says, and restore the settings afterwards."""
    with _ONE_AT_A_TIME, mpl.rc_context(_RC), warnings.catch_warnings():
        # Class names in a script that DejaVu lacks are drawn as boxes; the page shows them in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Return `draw` wrapped so that it runs within `look`."""

    @functools.wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        with look():
            return draw(*args, **kwargs)

    return inner


class Drawing(Figure):
    """A figure that a notebook displays although pyplot does not manage it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with look():
            self.savefig(buffer, format="png")
        return buffer.getvalue()


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of `width` by `height` inches and its axes (one, or an array of them)."""
    figure = blank(width, height, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def blank(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """Return an empty figure of `width` by `height` inches."""
    figure = Drawing(figsize=(width, height), dpi=DOTS_PER_INCH, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG, completely or not at all. Raises the errors of `chestxray.storage.files.replacing`."""
    with replacing(path) as temporary, look():
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)


def line_style(i: int) -> dict[str, Any]:
    """Return colour and line style of the i-th class, as keyword arguments of ``plot``."""
    return {"color": PALETTE[i % len(PALETTE)], "linestyle": STROKES[i // len(PALETTE) % len(STROKES)]}


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name on one line, truncated to `longest` characters, to fit beside an axis."""
    text = " ".join(str(name).split()) or "(no name)"
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    # Matplotlib omits labels that start with an underscore from legends.
    return " " + text if text.startswith("_") else text


def unit_square(ax: Axes, x: str, y: str) -> None:
    """Set both axes to 0..1 with equal scale, and a small margin so that a curve on the edge is visible."""
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.set_yticks(np.linspace(0, 1, 6))


def plain_text(ax: Axes) -> None:
    """Turn off mathtext in the labels of `ax`, since class names in them are not formulas."""
    for text in (ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()):
        text.set_parse_math(False)


def draw_absent(ax: Axes, reason: str) -> None:
    """Write `reason`, why there is nothing to draw, on `ax`."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, reason, ha="center", va="center", color=FAINT, transform=ax.transAxes)


def absent(reason: str) -> Figure:
    """Return a small figure that states `reason`, why there is nothing to draw."""
    figure, ax = canvas(5.4, 1.4)
    draw_absent(ax, reason)
    return figure
