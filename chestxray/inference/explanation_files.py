"""Heat maps as files: the picture, the raw map and a JSON for each, on one scale for all maps of a method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chestxray.data.images.pixels import Box, UnreadableImage
from chestxray.data.images.reading import Radiograph, read
from chestxray.errors import DataError, first_line
from chestxray.explanation.overlay import marked, overlay
from chestxray.explanation.published_explanations import on_scale, scale_of, unit_of
from chestxray.inference.explaining import Explained, at_image, facts
from chestxray.inference.heat_maps import FAINT, is_even
from chestxray.inference.keras_engine import KerasEngine, fingerprint
from chestxray.inference.overlay_files import overlay_name
from chestxray.recipe import PIXEL_EXPLANATIONS
from chestxray.storage.files import replacing, write_json

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: How the names of a map's files end.
_ENDINGS = (".png", ".npy", ".json", ".dcm", "-map.dcm")


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
    """Writes the files of maps to ``folder``: raw maps as they come, then, when the scale of all is known,
    pictures and JSON. Raw maps wait on disk, so that memory does not grow with the number of images.

    ``dicom``: picture and raw map are written as DICOM too, which needs the extra ``dicom-output``.

    Raises:
        OutputError: the folder cannot be written to.
    """

    folder: Path
    engine: KerasEngine
    max_pixels: int
    layer: str | None = None
    #: What the run's checks say of each method's maps: ``passes``, ``doubtful`` or ``fails``.
    badges: Mapping[str, str] = field(default_factory=dict)
    dicom: bool = False
    entries: list[Entry] = field(default_factory=list)
    #: The end of the scale by method, where the run states one.
    stated: Mapping[str, float] = field(default_factory=dict)
    #: The highest value of each map, by method.
    peaks: dict[str, list[float]] = field(default_factory=dict)
    #: How many maps of each method are above 0 and the same everywhere.
    even: Counter[str] = field(default_factory=Counter)

    def add(self, one: Explained) -> None:
        """Write the raw map ``<stem>.npy``, float32 (height, width), and keep what the JSON needs."""
        stem = _stem(one.answer.path, one.name, one.method)
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
        self.peaks.setdefault(one.method, []).append(float(one.raw.max()))
        self.even[one.method] += bool(one.raw.max() > 0 and is_even(one.raw))

    def names(self, paths: Sequence[str], methods: Sequence[str]) -> set[str]:
        """Return the names of all files that may be written for `paths`, whichever class of an image is explained."""
        stems = [_stem(path, name, method) for path in paths for name in self.engine.classes for method in methods]
        return {f"{stem}{ending}" for stem in stems for ending in _ENDINGS}

    def highest(self, method: str) -> float:
        """Return the end of the scale of a method's maps: the one that the run states, else that of these maps."""
        return self.stated[method] if method in self.stated else scale_of(self.peaks[method])[0]

    def faint(self, method: str) -> int:
        """Return how many maps of a method are empty, or nearly so on its scale."""
        return sum(peak <= FAINT * self.highest(method) for peak in self.peaks[method])

    def heat(self, entry: Entry) -> np.ndarray:
        """Return the map of `entry`, float32 (height, width) in 0..1, on the scale of its method."""
        raw: np.ndarray = np.load(self.folder / f"{entry.stem}.npy", allow_pickle=False)
        return on_scale(raw, self.highest(entry.method))

    def finish(self) -> Iterator[Entry]:
        """Write ``<stem>.png``, the image with the map over it at the image's own size, and ``<stem>.json`` of each
        map, and for ``dicom`` ``<stem>.dcm``, the same picture, and ``<stem>-map.dcm``, the raw map at the image's own
        size; yield it when it is written.

        Raises:
            DataError: an image is gone since its map was made.
        """
        last, pixels, header = "", np.empty((0, 0), np.uint8), None
        for entry in self.entries:
            if entry.path != last:
                film = self._film(entry.path)
                last, pixels, header = entry.path, film.pixels, self._header(entry.path, film) if self.dicom else None
            shape = (pixels.shape[0], pixels.shape[1])
            # Of pixels alone: what the file of the image says of the patient is not in the picture.
            picture = overlay(pixels, at_image(self.heat(entry), shape, self.engine.fit, entry.box))
            picture = marked(picture) if self._fails(entry) else np.ascontiguousarray(picture)
            with replacing(self.folder / f"{entry.stem}.png") as temporary:
                Image.fromarray(picture).save(temporary)
            raw = np.load(self.folder / f"{entry.stem}.npy", allow_pickle=False)
            scale = {"lowest": 0.0, "highest": self.highest(entry.method), "maps": self._count(entry.method)}
            found = facts(raw, shape, self.engine.fit, entry.box)
            files: dict[str, Any] = {"picture": f"{entry.stem}.png", "raw": f"{entry.stem}.npy"}
            if header is not None:
                whole = at_image(raw, shape, self.engine.fit, entry.box)
                files["dicom"] = self._write_dicom(entry, header, picture, whole)
            write_json(self.folder / f"{entry.stem}.json", entry.record | {"scale": scale, "map": found, **files})
            yield entry

    def discard(self) -> None:
        """After a failure, delete the files of the maps that have no JSON yet."""
        for entry in self.entries:
            if not (self.folder / f"{entry.stem}.json").exists():
                for ending in _ENDINGS:
                    (self.folder / f"{entry.stem}{ending}").unlink(missing_ok=True)

    def _header(self, path: str, film: Radiograph) -> Dataset:
        from chestxray.data.images import dicom_identity

        try:
            return dicom_identity.identity(Path(path), film)
        except (UnreadableImage, OSError) as error:
            raise DataError(f"{path} can no longer be read: {first_line(error)}.") from error

    def _write_dicom(self, entry: Entry, header: Dataset, picture: np.ndarray, raw: np.ndarray) -> dict[str, str]:
        from chestxray.inference import dicom_maps

        about = dicom_maps.MapOf(
            name=entry.name,
            method=entry.method,
            layer=entry.record["layer"],
            unit=entry.record["unit"],
            model=self._model,
            fails=self._fails(entry),
            highest=self.highest(entry.method),
            number=self.engine.classes.index(entry.name) + 1,
        )
        files = {"picture": f"{entry.stem}.dcm", "map": f"{entry.stem}-map.dcm"}
        dicom_maps.write_picture(self.folder / files["picture"], picture, header, about)
        dicom_maps.write_map(self.folder / files["map"], raw, header, about)
        return files

    @cached_property
    def _model(self) -> str:
        return f"{self.engine.name} {fingerprint(self.engine.folder)}"

    def _fails(self, entry: Entry) -> bool:
        return self.badges.get(entry.method) == "fails"

    def _film(self, path: str) -> Radiograph:
        try:
            return read(Path(path), max_pixels=self.max_pixels)
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
            image = Image.fromarray(self._film(path).pixels)
            image.thumbnail((512, 512))
            grey = np.asarray(image)
            shape = (grey.shape[0], grey.shape[1])
            maps = [at_image(self.heat(found[method]), shape, self.engine.fit, found[method].box) for method in methods]
            rows.append((Path(path).name, name, grey, maps))
        return rows


def _stem(path: str, name: str, method: str) -> str:
    # Of a name letters and digits are kept.
    return Path(overlay_name(path, f"{name} {method.replace('++', '-plus-plus')}")).stem
