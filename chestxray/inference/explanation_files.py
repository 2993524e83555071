"""Heat maps as files: the picture, the raw map and a JSON for each, on one scale for all maps of a method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chestxray.data.images.pixels import Box, UnreadableImage
from chestxray.data.images.reading import read
from chestxray.errors import DataError
from chestxray.explanation.overlay import marked, overlay
from chestxray.explanation.published_explanations import unit_of
from chestxray.inference.explaining import Explained, at_image, facts
from chestxray.inference.keras_engine import KerasEngine
from chestxray.inference.overlay_files import overlay_name
from chestxray.recipe import PIXEL_EXPLANATIONS
from chestxray.storage.files import replacing, write_json


@dataclass(frozen=True)
class Entry:
    """A map whose raw values are written: ``path`` of the image, ``name`` of the class, ``method``, and the files'
    name without suffix; ``record``: what its JSON will say, but for the scale; ``box``: the part of the image that the
    model saw, None for all of it.
    """

    path: str
    name: str
    method: str
    stem: str
    record: dict[str, Any]
    box: Box | None = None


@dataclass
class Files:
    """Writes the files of maps to ``folder``: raw maps as they come, then, when the highest values of all are known,
    pictures and JSON. Raw maps wait on disk, so that memory does not grow with the number of images.

    Raises:
        OutputError: the folder cannot be written to.
    """

    folder: Path
    engine: KerasEngine
    max_pixels: int
    layer: str | None = None
    #: What the run's checks say of each method's maps: ``passes``, ``doubtful`` or ``fails``.
    badges: Mapping[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    #: The highest value of each method's maps, and of those that they share a scale with.
    highest: dict[str, float] = field(default_factory=dict)

    def add(self, one: Explained) -> None:
        """Write the raw map ``<stem>.npy``, float32 (height, width), and keep what the JSON needs."""
        stem = Path(overlay_name(one.answer.path, f"{one.name} {one.method}")).stem
        with replacing(self.folder / f"{stem}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, one.raw)
        record = {
            **one.answer.to_json(),
            "explained": {"class": one.name, "probability": one.probability},
            "method": one.method,
            "layer": None if one.method in PIXEL_EXPLANATIONS else self.layer or self.engine.layer,
            "unit": unit_of(one.method),
            "checks": self.badges.get(one.method) or "not made",
        }
        self.entries.append(Entry(one.answer.path, one.name, one.method, stem, record, one.box))
        self.highest[one.method] = max(self.highest.get(one.method, 0.0), float(one.raw.max()))

    def heat(self, entry: Entry) -> np.ndarray:
        """Return the map of `entry`, float32 (height, width) in 0..1, on the scale of its method."""
        raw: np.ndarray = np.load(self.folder / f"{entry.stem}.npy", allow_pickle=False)
        highest = self.highest[entry.method]
        return raw / highest if highest > 0 else np.zeros_like(raw)

    def finish(self) -> Iterator[Entry]:
        """Write ``<stem>.png``, the image with the map over it at the image's own size, and ``<stem>.json`` of each
        map; yield it when it is written.

        Raises:
            DataError: an image is gone since its map was made.
        """
        last, pixels = "", np.empty((0, 0), np.uint8)
        for entry in self.entries:
            if entry.path != last:
                last, pixels = entry.path, self._pixels(entry.path)
            shape = (pixels.shape[0], pixels.shape[1])
            heat = at_image(self.heat(entry), shape, self.engine.fit, entry.box)
            with replacing(self.folder / f"{entry.stem}.png") as temporary:
                # Of pixels alone: what the file of the image says of the patient is not in the picture.
                drawn = overlay(pixels, heat)
                fails = self.badges.get(entry.method) == "fails"
                Image.fromarray(marked(drawn) if fails else np.ascontiguousarray(drawn)).save(temporary)
            raw = np.load(self.folder / f"{entry.stem}.npy", allow_pickle=False)
            scale = {"lowest": 0.0, "highest": self.highest[entry.method], "maps": self._count(entry.method)}
            found = facts(raw, shape, self.engine.fit, entry.box)
            files = {"picture": f"{entry.stem}.png", "raw": f"{entry.stem}.npy"}
            write_json(self.folder / f"{entry.stem}.json", entry.record | {"scale": scale, "map": found, **files})
            yield entry

    def _pixels(self, path: str) -> np.ndarray:
        try:
            return read(Path(path), max_pixels=self.max_pixels).pixels
        except UnreadableImage as error:
            raise DataError(f"{path} can no longer be read: {error}.") from error

    def _count(self, method: str) -> int:
        return sum(entry.method == method for entry in self.entries)

    def panel(self, methods: Sequence[str], most: int) -> list[tuple[str, str, np.ndarray, list[np.ndarray]]]:
        """Return up to `most` rows for a figure, image by image and class by class: the image's name, the class, the
        pixels, uint8 (height, width) at most 512 a side, and a map in 0..1 of each of `methods` at that size.
        """
        rows = []
        by_row: dict[tuple[str, str], dict[str, Entry]] = {}
        for entry in self.entries:
            by_row.setdefault((entry.path, entry.name), {})[entry.method] = entry
        for (path, name), found in list(by_row.items())[:most]:
            image = Image.fromarray(self._pixels(path))
            image.thumbnail((512, 512))
            grey = np.asarray(image)
            shape = (grey.shape[0], grey.shape[1])
            maps = [at_image(self.heat(found[method]), shape, self.engine.fit, found[method].box) for method in methods]
            rows.append((Path(path).name, name, grey, maps))
        return rows
