"""Heat maps of image files in a run's own words: which class is explained, what the map says, and where it lies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chestxray.data.images.pixels import Box, Fit, corners
from chestxray.errors import InputError, nearest
from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.decision.rule import Decision
from chestxray.inference import keras_engine
from chestxray.inference.answer import answered
from chestxray.inference.batch_prediction import decoded
from chestxray.inference.engine import Engine
from chestxray.inference.heat_maps import is_even
from chestxray.inference.image_answer import ImageAnswer
from chestxray.inference.keras_engine import KerasEngine, load_engine
from chestxray.recipe import GRADCAM, PIXEL_EXPLANATIONS

#: In place of a class's name: the one decided on, or the most probable finding; and all of them.
TOP, ALL = "top", "all"
#: All of an image.
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Explained:
    """A raw map of one class, or finding, of one image.

    ``answer``: what the run says of the image; ``name`` and ``probability``, calibrated: of the explained class;
    ``method``; ``raw``: float32 (height, width) at the size of the model's input, in the method's unit; ``box``: the
    part of the image that the model saw, None where it saw all of it.
    """

    answer: ImageAnswer
    name: str
    probability: float
    method: str
    raw: np.ndarray
    box: Box | None = None


def engine_of(folder: Path) -> KerasEngine:
    """Return the engine of the run in `folder`.

    Raises:
        InputError, DataError: as `keras_engine.load_engine`; an ensemble, whose members' maps have no common unit.
    """
    engine = load_engine(folder)
    if not isinstance(engine, KerasEngine):
        raise InputError(f"A run with a model of its own is explained. Received: {folder}, an ensemble: name a member.")
    return engine


def check(engine: KerasEngine, methods: Sequence[str], wanted: str, layer: str | None) -> None:
    """Raise an `InputError` for what `explained` would refuse of its options, before any image is read; a `PluginError`
    for a layer that the network does not have or that is no feature map.
    """
    from chestxray import registry
    from chestxray.explanation import methods as own
    from chestxray.recipe import EXPLANATIONS

    for method in methods:
        if method not in EXPLANATIONS:
            registry.find(registry.EXPLANATIONS, method, EXPLANATIONS)
        else:
            own.check(method, layer or engine.layer)
        if layer is not None and method in PIXEL_EXPLANATIONS:
            raise InputError(f"{method} takes the gradient or the answer itself and has no layer. Received: {layer!r}.")
    if layer is not None:
        engine.check_layer(layer)
    check_name(engine, wanted)


def check_name(engine: Engine, wanted: str, *, several: bool = True) -> None:
    """Raise `InputError` unless `wanted` is a class or finding of `engine`, `TOP` or, for `several`, `ALL`."""
    allowed = (*engine.classes, TOP, *([ALL] if several else []))
    if wanted not in allowed:
        what = "finding" if isinstance(engine.decision, FindingDecision) else "class"
        raise InputError(
            f"{what} must be one of {', '.join(allowed)}.{nearest(wanted, engine.classes)} Received: {wanted!r}."
        )


def explained(
    engine: KerasEngine,
    paths: Sequence[str],
    *,
    methods: Sequence[str] = (GRADCAM,),
    wanted: str = TOP,
    layer: str | None = None,
    max_pixels: int,
    batch_size: int = 32,
) -> Iterator[ImageAnswer | Explained]:
    """Yield the maps of each file of `paths`, class by class and method by method, or its answer where it cannot be
    read. An image that is refused or abstained from is explained all the same: its answer says so.

    Raises as `check` and `methods.raw_maps`.
    """
    for part, pixels, reasons, boxes in decoded(
        paths, engine.image_size, engine.fit, lungs=engine.segmenter, batch_size=batch_size, max_pixels=max_pixels
    ):
        outputs = engine.run(pixels) if len(pixels) else None
        answers = answered(part, reasons, outputs, engine)
        yield from (answer for answer in answers if answer.unreadable)
        if outputs is not None:
            readable = [answer for answer in answers if not answer.unreadable]
            yield from maps_of_read(engine, readable, pixels, outputs.probabilities, methods, wanted, layer, boxes)


def maps_of_read(
    engine: KerasEngine,
    answers: Sequence[ImageAnswer],
    pixels: np.ndarray,
    probabilities: np.ndarray,
    methods: Sequence[str],
    wanted: str,
    layer: str | None,
    boxes: Sequence[Box | None] | None = None,
) -> Iterator[Explained]:
    """Yield the maps of images that are read, ``pixels`` uint8 (n, height, width), with their answers and
    probabilities (n, classes); arguments as of `explained`. ``boxes``: the part of each image that is shown.
    """
    rows, numbers = _chosen(engine, probabilities, wanted)
    maps = {method: engine.raw_maps(method, pixels[rows], numbers, layer) for method in methods}
    for place, (row, number) in enumerate(zip(rows, numbers, strict=True)):
        probability = round(float(probabilities[row, number]), 7)
        for method in methods:
            box = None if boxes is None else boxes[row]
            yield Explained(answers[row], engine.classes[number], probability, method, maps[method][place], box)


def of_ensemble(
    engine: Engine, answer: ImageAnswer, pixels: np.ndarray, probabilities: np.ndarray, wanted: str
) -> Explained:
    """Return gradcam's map of one image by an ensemble: the mean over its members, each map as a share of its model's
    scale. Arguments as of `maps_of_read`. Raises `InputError` where no member has maps.
    """
    _, (number,) = _chosen(engine, probabilities, wanted)
    raw = keras_engine.maps_of(engine, pixels, int(number))[0]
    return Explained(answer, engine.classes[number], round(float(probabilities[0, number]), 7), GRADCAM, raw)


def _chosen(engine: Engine, probabilities: np.ndarray, wanted: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that are explained and the number of the class that each is explained for."""
    count = len(engine.classes)
    if wanted == ALL:
        return np.repeat(np.arange(len(probabilities)), count), np.tile(np.arange(count), len(probabilities))
    rows = np.arange(len(probabilities))
    if wanted != TOP:
        return rows, np.full(len(rows), engine.classes.index(wanted))
    rule = engine.decision
    if isinstance(rule, FindingDecision):
        return rows, probabilities.argmax(axis=1)
    assert isinstance(rule, Decision), "a rule is of classes or of findings"
    return rows, np.asarray(rule.decided(probabilities))


def facts(raw: np.ndarray, shape: tuple[int, int], fit: Fit, box: Box | None = None) -> dict[str, Any]:
    """Return what a raw map says of an image of `shape` (height, width) in pixels, in JSON types.

    ``even``: whether it has one value everywhere, so that it shows no place; ``highest_at`` is [row, column] of the
    highest value in the image's own pixels, None in an even map; ``strongest_tenth``: the share of the map's sum that
    lies in its strongest tenth of pixels, .1 in an even map.
    ``seen`` is the part of the image that the model was given, `box`: [top, left, bottom, right] in its own pixels.
    """
    left, top, right, bottom = corners(box or WHOLE, shape[1], shape[0])
    total = float(raw.sum(dtype=np.float64))
    tenth = np.sort(raw, axis=None)[::-1][: max(raw.size // 10, 1)]
    at = None
    if not is_even(raw):
        row, column = np.unravel_index(int(raw.argmax()), raw.shape)
        part = seen((bottom - top, right - left), (raw.shape[0], raw.shape[1]), fit)
        at = [top + part.row_of(int(row) + 0.5), left + part.column_of(int(column) + 0.5)]
    return {
        "shape": list(raw.shape),
        "highest": float(raw.max()),
        "mean": float(raw.mean(dtype=np.float64)),
        "empty": total == 0,
        "even": is_even(raw),
        "highest_at": at,
        "seen": [top, left, bottom, right],
        "strongest_tenth": float(tenth.sum(dtype=np.float64) / total) if total > 0 else None,
    }


@dataclass(frozen=True)
class Seen:
    """How an image of ``shape`` (height, width) lies in a map of the model's input: row r of the map is row
    (r - ``top``) * ``height`` of the image, and so for columns.
    """

    shape: tuple[int, int]
    top: float
    left: float
    height: float
    width: float

    def row_of(self, row: float) -> int:
        """Return the image's row, 0 to height - 1, at a row of the map."""
        return int(min(max((row - self.top) * self.height, 0), self.shape[0] - 1))

    def column_of(self, column: float) -> int:
        """Return the image's column, 0 to width - 1, at a column of the map."""
        return int(min(max((column - self.left) * self.width, 0), self.shape[1] - 1))


def seen(shape: tuple[int, int], size: tuple[int, int], fit: Fit) -> Seen:
    """Return how an image of `shape` lies in a map of `size`, both (height, width), by the way it was fitted."""
    steps = shape[0] / size[0], shape[1] / size[1]
    if fit == "stretch":
        return Seen(shape, 0, 0, *steps)
    step = max(steps) if fit == "pad" else min(steps)
    inside = shape[0] / step, shape[1] / step
    return Seen(shape, (size[0] - inside[0]) / 2, (size[1] - inside[1]) / 2, step, step)


def at_image(heat: np.ndarray, shape: tuple[int, int], fit: Fit, box: Box | None = None) -> np.ndarray:
    """Return `heat`, float32 (map height, map width), at an image of `shape` (height, width): what the model saw
    where, 0 where the image was cropped off, or lies outside of `box`, the part that the model was given. Enlarged
    linearly.
    """
    if box is not None:
        x, y, x_end, y_end = corners(box, shape[1], shape[0])
        whole = np.zeros(shape, np.float32)
        whole[y:y_end, x:x_end] = at_image(heat, (y_end - y, x_end - x), fit)
        return whole
    part = seen(shape, (heat.shape[0], heat.shape[1]), fit)
    left, top, right, bottom = part.left, part.top, part.left + shape[1] / part.width, part.top + shape[0] / part.height
    if fit == "crop":
        # A frame of zeros around the map takes the place of what the model did not see.
        rows, columns = math.ceil(max(-top, 0)), math.ceil(max(-left, 0))
        heat = np.pad(heat, ((rows, rows), (columns, columns)))
        left, top, right, bottom = left + columns, top + rows, right + columns, bottom + rows
    # Rounding may lead past the border by a hair.
    inside = max(left, 0), max(top, 0), min(right, heat.shape[1]), min(bottom, heat.shape[0])
    enlarged = Image.fromarray(heat).resize((shape[1], shape[0]), Image.Resampling.BILINEAR, box=inside)
    return np.asarray(enlarged)
