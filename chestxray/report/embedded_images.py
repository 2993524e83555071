"""Pictures as they stand in the page: inside it, so that the page is one file."""

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

#: A radiograph on the page is shown at most this wide; twice that is sharp on any screen.
_WIDEST = 640
#: Beyond this many bytes, a radiograph is shown as JPEG; the PNG stays in the run's folder.
_HEAVY = 64_000


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with its size in pixels and what it shows in words."""

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Tile:
    """A radiograph or heat map and what is known of it; ``predicted`` is None where nobody asked."""

    picture: Picture
    label: str
    path: str
    predicted: str | None = None
    probability: float | None = None

    @property
    def right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted == self.label


def figure(path: Path, alt: str) -> Picture:
    """A figure from its PNG file, unchanged."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        return Picture(_uri("png", content), alt, *image.size)


def training_tiles(run: Run, samples: Samples) -> list[Tile]:
    """A few training images of each class, as `training_samples` picks them."""
    return [
        Tile(_radiograph(samples[path], f"Training image, class {label}."), label, run.short(path))
        for label, paths in training_samples(run, samples).items()
        for path in paths
    ]


def test_tiles(run: Run, samples: Samples) -> list[Tile]:
    """Test images with the model's answers, as `test_samples` picks them."""
    rows = test_samples(run, samples).to_dict("records")
    return [_answered(run, samples[row["path"]], "Test image", row) for row in rows]


def heatmap_tiles(run: Run) -> list[Tile]:
    """The heat maps of the run's folder."""
    tiles = []
    for path, item in heatmap_files(run):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        tiles.append(_answered(run, pixels, "Radiograph and heat map of a test image", item))
    return tiles


def _answered(run: Run, pixels: np.ndarray, what: str, item: Mapping[str, Any]) -> Tile:
    verdict = "right" if item["label"] == item["predicted"] else "wrong"
    alt = f"{what}: true class {item['label']}, model said {item['predicted']}, which is {verdict}."
    return Tile(
        _radiograph(pixels, alt),
        item["label"],
        run.short(item["path"]),
        item["predicted"],
        item["probability"],
    )


def _radiograph(pixels: np.ndarray, alt: str) -> Picture:
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
