"""Draws grids of radiographs: samples, test images with the model's predictions, heat maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chestxray.report.figures.style import RIGHT, WRONG, absent, blank, shortened, styled

_TILE = 1.75  # inches


@dataclass(frozen=True)
class Prediction:
    """The true class of an image, and the model's prediction with its probability (None if not known)."""

    label: str
    predicted: str
    probability: float | None

    @property
    def right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.label == self.predicted


@styled
def sample_grid(samples: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """Return a grid with one row per class; images are uint8 (height, width) or (height, width, 1 or 3)."""
    if not any(samples.values()):
        return absent("No sample image.")
    columns = max(map(len, samples.values()))
    figure, axes = _tiles(len(samples), columns, (_TILE, _TILE), beside=0.3)
    for row, (name, images) in zip(axes, samples.items(), strict=True):
        for ax, image in zip(row, images, strict=False):
            _show(ax, image)
        row[0].set_ylabel(shortened(name, 22), fontsize=9.5)
    return figure


@styled
def prediction_grid(images: Sequence[np.ndarray], answers: Sequence[Prediction], columns: int = 4) -> Figure:
    """Return a grid of images or heat map overlays with the model's predictions as captions.

    Incorrect predictions have a thick frame and are labelled as wrong.
    """
    if not images:
        return absent("No image to show.")
    # A heat map and its radiograph are one wide image: fewer fit in a row, at the same height.
    aspect = min(float(np.mean([image.shape[0] / image.shape[1] for image in images])), 1.0)
    columns = max(min(round(columns * aspect), len(images)), 1)
    rows = math.ceil(len(images) / columns)
    figure, axes = _tiles(rows, columns, (_TILE / aspect, _TILE), above=0.5)
    for ax, image, answer in zip(axes.flat, images, answers, strict=False):
        _show(ax, image)
        _caption(ax, answer)
    return figure


def _tiles(
    rows: int, columns: int, size: tuple[float, float], beside: float = 0.0, above: float = 0.0, below: float = 0.0
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes (rows, columns) without decoration, for images.

    Each tile has the `size` (width, height) in inches, with `beside` inches left of each row, `above` inches over
    each tile and `below` inches under the last row. Positions are computed here: the layout engine takes seconds for
    fifty equal tiles.
    """
    gap = 0.08
    width, height = gap + beside + columns * (size[0] + gap), gap + rows * (size[1] + above + gap) + below
    figure = blank(width, height)
    axes = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        left = gap + beside + column * (size[0] + gap)
        bottom = height - (row + 1) * (size[1] + above + gap)
        place = (left / width, bottom / height, size[0] / width, size[1] / height)
        ax = figure.add_axes(place, xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.grid(visible=False)
        axes[row, column] = ax
    return figure, axes


def _caption(ax: Axes, answer: Prediction) -> None:
    colour = RIGHT if answer.right else WRONG
    share = "" if answer.probability is None else f" {answer.probability:.2f}"
    ax.set_title(
        f"{'✓ right' if answer.right else '✗ WRONG'}\nsaid {shortened(answer.predicted, 17)}{share}"
        f"\nis {shortened(answer.label, 20)}",
        fontsize=7.5, color=colour, fontweight="normal", pad=3,
    )  # fmt: skip
    ax.spines[:].set(visible=True, color=colour, linewidth=1 if answer.right else 3)


def _show(ax: Axes, image: np.ndarray) -> None:
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.ndim == 2 else {}
    ax.imshow(pixels, **grey)
