"""Predicts images given as files, arrays or tables, and explains predictions by heat maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from chestxray.errors import InputError
from chestxray.inference.answer import answered
from chestxray.inference.engine import Engine, Outputs
from chestxray.inference.image_answer import ImageAnswer

if TYPE_CHECKING:
    from PIL import Image

#: File paths, an array of grey pixels, or a table with the column ``path``.
Images: TypeAlias = str | Path | Iterable[str | Path] | np.ndarray | pd.DataFrame
_PIXELS = "An array of images must be (height, width) or (n, height, width) of grey pixels, uint8 or uint16"


@dataclass(frozen=True)
class Explanation:
    """The heat map of one image.

    ``pixels``: uint8 (height, width), the image as the model sees it; ``raw``: float32 (height, width) of 0 and more,
    in the unit of the ``method``: where the score of the class, or finding, ``name`` comes from. ``highest``: the end
    of the scale on which all maps of this model by this method are shown; None where the run states none. ``badge``:
    what the checks of these maps say, ``passes``, ``doubtful``, ``fails`` or ``not checked``; ``sentence``: in words.
    """

    answer: ImageAnswer
    pixels: np.ndarray
    raw: np.ndarray
    name: str
    method: str
    highest: float | None
    badge: str
    sentence: str

    @property
    def map(self) -> np.ndarray:
        """The map in 0..1 on the scale of the model, so that maps of several images can be compared; an empty map is
        all 0. Raises `InputError` where the run states no scale.
        """
        if self.highest is None:
            raise InputError(
                f"The run states no scale of the maps of {self.method}, only of those that its report shows. Allowed: "
                "scaled(highest) and overlay(highest=...), with the highest value of `raw` among several images."
            )
        return self.scaled(self.highest)

    def scaled(self, highest: float) -> np.ndarray:
        """Return the map in 0..1 on a scale that ends at `highest`, such as the highest value of several maps; of an
        end at 0 the map is empty.

        Raises:
            InputError: no number from 0 on.
        """
        if isinstance(highest, bool) or not isinstance(highest, Real) or not 0 <= highest < math.inf:
            raise InputError(f"highest must be a number from 0 on. Received: {highest!r}.")
        return np.clip(self.raw / highest, 0, 1) if highest > 0 else np.zeros_like(self.raw)

    def overlay(self, strength: float = 0.5, highest: float | None = None) -> Image.Image:
        """Return the image with the map as an overlay; `strength` (0 to 1) is the opacity where the map is `highest`,
        by default the end of the model's scale. It is marked where these maps fail their checks. Raises as `map`.
        """
        from PIL import Image

        from chestxray.explanation.overlay import marked, overlay

        drawn = overlay(self.pixels, self.map if highest is None else self.scaled(highest), strength)
        return Image.fromarray(marked(drawn) if self.badge == "fails" else drawn)

    def _repr_html_(self) -> str:
        """Return the overlay with the answer in words as HTML for a notebook."""
        import base64
        import html
        import io

        buffer, own = io.BytesIO(), float(self.raw.max())
        self.overlay(highest=own if self.highest is None else None).save(buffer, "PNG")
        picture = base64.b64encode(buffer.getvalue()).decode("ascii")
        end = "is its own, since the run states none" if self.highest is None else f"ends at {self.highest:.3g}"
        of = f"{self.method} of {self.name}, highest value {own:.3g}; the scale {end}"
        words = html.escape(f"{self.answer.words} Heat map: {of}. {self.sentence}")
        return f'<img width="320" alt="heat map" src="data:image/png;base64,{picture}"><p>{words}</p>'


def answers(
    engine: Engine, images: Images, batch_size: int, *, maps: bool, max_pixels: int
) -> Iterator[tuple[list[ImageAnswer], np.ndarray, Outputs | None]]:
    """Return an iterator over batches of `images`: the answers, the pixels of the readable images, the model outputs.

    The pixels are uint8 (n, height, width); the outputs are None if no image of the batch can be read.

    Raises:
        InputError: `images` are not images or are empty, or the batch size is invalid.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size must be a whole number from 1 on. Received: {batch_size!r}.")
    if isinstance(images, np.ndarray):
        return _of_arrays(engine, _films(images), batch_size, maps=maps)
    return _of_files(engine, _paths(images), batch_size, maps=maps, max_pixels=max_pixels)


def _of_arrays(
    engine: Engine, films: np.ndarray, batch_size: int, *, maps: bool
) -> Iterator[tuple[list[ImageAnswer], np.ndarray, Outputs | None]]:
    for start in range(0, len(films), batch_size):
        part = _fitted(films[start : start + batch_size], engine)
        names = [str(start + i) for i in range(len(part))]
        outputs = engine.run(part, maps=maps)
        yield answered(names, [""] * len(part), outputs, engine), part, outputs


def _of_files(
    engine: Engine, paths: Sequence[str], batch_size: int, *, maps: bool, max_pixels: int
) -> Iterator[tuple[list[ImageAnswer], np.ndarray, Outputs | None]]:
    from chestxray.inference import batch_prediction

    for batch in batch_prediction.predicted(engine, paths, batch_size=batch_size, maps=maps, max_pixels=max_pixels):
        given = answered(batch.paths, batch.reasons, batch.outputs, engine)
        yield given, batch.pixels, batch.outputs


def _paths(images: Any) -> list[str]:
    if isinstance(images, (str, Path)):
        return [str(images)]
    if isinstance(images, pd.DataFrame):
        if "path" not in images:
            raise InputError(f"A table of images must have the column path. Received: {', '.join(map(str, images))}.")
        images = images["path"]
    if not isinstance(images, Iterable):
        raise InputError(f"images must be paths, or one array of pixels. Received: {type(images).__name__}.")
    paths = list(images)
    if odd := sorted({type(one).__name__ for one in paths if not isinstance(one, (str, Path))}):
        raise InputError(f"images must be paths, or one array of pixels. Received: a list of {', '.join(odd)}.")
    if not paths:
        raise InputError("images must be at least one. Received: none.")
    return [str(path) for path in paths]


def _films(images: np.ndarray) -> np.ndarray:
    """Return `images` as (n, height, width), uint8 or uint16, of any size; raise `InputError` if they are not."""
    films = images[np.newaxis] if images.ndim == 2 else images
    if films.ndim != 3 or films.dtype not in (np.uint8, np.uint16) or not films.size:
        raise InputError(f"{_PIXELS}. Received: {images.shape}, {images.dtype}.")
    if images.ndim == 3 and images.shape[2] in (3, 4) and images.shape[1] > 4:
        # As radiographs they would be 3 or 4 pixels wide, and the model would predict them.
        raise InputError(
            f"{_PIXELS}. Received: {images.shape}, which looks like one image in colour; "
            "np.asarray(Image.open(path).convert('L')) is grey."
        )
    return films


def _fitted(films: np.ndarray, engine: Engine) -> np.ndarray:
    """Return the films resized to the model's input size, uint8 (n, height, width), cut to their lungs if the model's
    are.
    """
    from PIL import Image

    from chestxray.data import lung_boxes
    from chestxray.data.images.pixels import corners, fitted, scaled_to_uint8

    deep = films.dtype != np.uint8
    images = [Image.fromarray(scaled_to_uint8(film) if deep else film) for film in films]
    if engine.segmenter is not None:
        small = [np.asarray(fitted(image, (lung_boxes.SIDE, lung_boxes.SIDE), "stretch")) for image in images]
        boxes = engine.segmenter.boxes(np.stack(small))
        lung_boxes.say_unknown(boxes)
        images = [
            image if box is None else image.crop(corners(box, image.width, image.height))
            for image, box in zip(images, boxes, strict=True)
        ]
    return np.stack([np.asarray(fitted(image, engine.image_size, engine.fit)) for image in images])
