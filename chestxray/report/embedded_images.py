"""Encodes images as data URIs, so that the report is a single file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chestxray.report.run_figures import Samples, heatmap_files, test_samples, training_samples
from chestxray.runs.run_folder import Run

#: Maximum width in pixels of an embedded radiograph.
_WIDEST = 640
#: Size in bytes above which a radiograph is embedded as JPEG; the PNG stays in the run's folder.
_HEAVY = 64_000


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with its alternative text and its size in pixels."""

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Tile:
    """A radiograph or heat map with its label; ``predicted`` is None for training images, which have no prediction.
    ``kinds`` are the reasons for which a heat map is in the panel.
    """

    picture: Picture
    label: str
    path: str
    predicted: str | None = None
    probability: float | None = None
    kinds: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted == self.label


def figure(path: Path, alt: str) -> Picture:
    """Return a figure's PNG file, unchanged, with `alt` as its alternative text."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        return Picture(_uri("png", content), alt, *image.size)


def training_tiles(run: Run, samples: Samples) -> list[Tile]:
    """Return a few training images of each class, as picked by `training_samples`."""
    return [
        Tile(picture_of(samples[path], f"Training image, class {label}."), label, run.short(path))
        for label, paths in training_samples(run, samples).items()
        for path in paths
    ]


def test_tiles(run: Run, samples: Samples) -> list[Tile]:
    """Return test images with the model's predictions, as picked by `test_samples`."""
    rows = test_samples(run, samples).to_dict("records")
    return [_answered(run, samples[row["path"]], "Test image", row) for row in rows]


def heatmap_tiles(run: Run) -> list[tuple[str, Tile]]:
    """Return the heat maps in the run's folder with the predictions they explain, each after the class or finding that
    it is shown under.
    """
    tiles = []
    for path, item in heatmap_files(run):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        tiles.append((item["group"], _answered(run, pixels, "Radiograph and heat map of a test image", item)))
    return tiles


def _answered(run: Run, pixels: np.ndarray, what: str, item: Mapping[str, Any]) -> Tile:
    verdict = "right" if item["label"] == item["predicted"] else "wrong"
    alt = f"{what}: true class {item['label']}, model said {item['predicted']}, which is {verdict}."
    return Tile(
        picture_of(pixels, alt),
        item["label"],
        run.short(item["path"]),
        item["predicted"],
        item["probability"],
        tuple(item.get("kinds", ())),
    )


def picture_of(pixels: np.ndarray, alt: str) -> Picture:
    """Return uint8 pixels, (height, width), (height, width, 1) or (height, width, 3), with their alternative text."""
    array = np.asarray(pixels)
    image = Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)
    if image.width > _WIDEST:
        image = image.resize((_WIDEST, max(1, round(image.height * _WIDEST / image.width))))
    content = _encoded(image, "PNG", optimize=True)
    if len(content) <= _HEAVY:
        return Picture(_uri("png", content), alt, *image.size)
    return Picture(_uri("jpeg", _encoded(image, "JPEG", quality=90)), alt, *image.size)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
