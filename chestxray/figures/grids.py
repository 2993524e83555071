"""Radiographs side by side: samples, test images with the model's answers, heat maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chestxray.figures.style import RIGHT, WRONG, absent, canvas, shortened, styled

_TILE = 1.75  # inches


@dataclass(frozen=True)
class Answer:
    """What the model said of an image, and what is true."""

    label: str
    predicted: str
    probability: float | None

    @property
    def right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.label == self.predicted


@styled
def sample_grid(samples: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """A row a class, a few images each: uint8 (height, width) or (height, width, 1 or 3)."""
    if not any(samples.values()):
        return absent("No sample image.")
    columns = max(map(len, samples.values()))
    figure, axes = canvas(
        0.5 + _TILE * columns, 0.2 + _TILE * len(samples), rows=len(samples), columns=columns, squeeze=False
    )
    for row, (name, images) in zip(axes, samples.items(), strict=True):
        for i, ax in enumerate(row):
            _bare(ax)
            if i < len(images):
                _show(ax, images[i])
        row[0].set_ylabel(shortened(name, 22), fontsize=9.5, visible=True)
    return figure


@styled
def answer_grid(images: Sequence[np.ndarray], answers: Sequence[Answer], columns: int = 4) -> Figure:
    """Images, or heat maps laid over them, with the model's answers; wrong ones are framed, and
    say so in words.
    """
    if not images:
        return absent("No image to show.")
    # Heat maps stand beside their radiographs in one wide image: fewer to a row, each as high.
    aspect = min(float(np.mean([image.shape[0] / image.shape[1] for image in images])), 1.0)
    columns = max(min(round(columns * aspect), len(images)), 1)
    rows = math.ceil(len(images) / columns)
    width, height = 0.2 + _TILE / aspect * columns, 0.2 + (_TILE + 0.55) * rows
    figure, axes = canvas(width, height, rows, columns, squeeze=False)
    for ax in axes.flat:
        _bare(ax)
    for ax, image, answer in zip(axes.flat, images, answers, strict=False):
        _show(ax, image)
        _caption(ax, answer)
    return figure


def _caption(ax: Axes, answer: Answer) -> None:
    colour = RIGHT if answer.right else WRONG
    share = "" if answer.probability is None else f" {answer.probability:.2f}"
    ax.set_title(
        f"{'✓ right' if answer.right else '✗ WRONG'}\nsaid {shortened(answer.predicted, 17)}{share}"
        f"\nis {shortened(answer.label, 20)}",
        fontsize=7.5, color=colour, fontweight="normal", pad=3,
    )  # fmt: skip
    ax.spines[:].set(visible=True, color=colour, linewidth=1 if answer.right else 3)


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _show(ax: Axes, image: np.ndarray) -> None:
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.ndim == 2 else {}
    ax.imshow(pixels, **grey)
