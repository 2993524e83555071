"""The source ``phantom``: chest phantoms, drawn when needed and without a download.

They are for demonstrations and tests, and are not radiographs: nothing learnt from them applies to
patients. Since the location of every finding and the planted flaws are known, they test heat maps,
audits and controls.

Films have ribs, clavicles, spine, mediastinum, heart, vessels, diaphragm and soft tissue. Anatomy,
pose (shift, rotation, scale, breathing), exposure, contrast, blur and grain vary by patient and a
little by image. A patient has 1 to 4 images, one label and one finding, always at the same
location:

- ``clear``: nothing added;
- ``consolidation``: one dense patch with dark branching lines, anywhere in either lung;
- ``ground_glass``: fine mottling along the outer edge of both lungs;
- ``cavity``: a ring with a dark centre in the upper part of one lung.

Location, size and strength of a finding vary, and breasts and muscle cause equally broad shadows in
every class: the brightness at a fixed location says little (a linear model on the pixels reaches a macro
AUROC of .57 to .73 over ten seeds), but a convolutional network learns the textures and shapes in minutes.

The address is a list of options, each with a default: ``phantom:images=640,size=96,marker=0.9``.
They are the fields of `Options`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from chestxray.data.index import Index
from chestxray.data.sources.phantom.drawing import VERSION, draw, images_of
from chestxray.data.sources.phantom.options import Options
from chestxray.errors import InputError
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.storage.files import explained

T = TypeVar("T")

LICENCE = "Procedurally drawn; no rights reserved (CC0-1.0)"
RECORDS = "records.json"
#: Splits of a class's patients in turn: 9 training, 2 validation and 4 test of 15, and one of each among the first 3.
SPLIT_CYCLE = tuple({"R": "train", "V": "validation", "T": "test"}[letter] for letter in "RTVRRTRRTRVRRTR")
#: The kinds of unreadable files, used in turn.
SPOILT = ("truncated", "garbage", "empty")

log = logging.getLogger(__name__)


def load(address: str, options: SourceOptions) -> Index:
    """Draw the set that `address` describes, unless it was drawn before, and return its index.

    The rows have the columns ``drawn``, ``mask`` (path of the mask of the finding; ``""`` if there is
    none), ``lung_mask``, ``marker`` (yes or no) and ``planted`` (``""``, or the planted flaw:
    duplicate, duplicate_across, straddler, truncated, garbage, empty).

    Raises:
        InputError: an unknown or invalid option.
        OutputError: the cache's disk is full or cannot be written.

    >>> load("patients=12,size=48", SourceOptions(cache=Path("cache"))).classes  # doctest: +SKIP
    ('clear', 'consolidation', 'ground_glass', 'cavity')
    """
    chosen = Options.parse(address, options)
    films = plan(chosen)
    folder = options.cache.absolute() / "phantom" / key(chosen)
    records = _drawn_before(folder)
    if records is None:
        with explained(folder):
            records = _draw_set(films, chosen, folder)
    for record in records:
        for column in ("path", "mask", "lung_mask"):
            record[column] = str(folder / record[column]) if record[column] else ""
    index = Index.from_records(records, name="phantom", classes=chosen.classes, licence=LICENCE)
    return index.replace(index.rows.assign(drawn=True))


def key(options: Options) -> str:
    """Return the name of a set, which depends on all that determines its pixels, including `VERSION`."""
    content = json.dumps([VERSION, dataclasses.asdict(options)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


# Planning the films


@dataclass(frozen=True)
class Film:
    """One row of the set. `number` and `image` determine the anatomy, `patient` is the identifier in the row."""

    number: int
    image: int
    patient: str
    label: str
    finding: str
    split: str
    marker: bool
    planted: str = ""

    @property
    def path(self) -> str:
        flaw = f"_{self.planted}" if self.planted else ""
        return f"{self.split or 'images'}/{self.label}/{self.patient}_{self.image}{flaw}.png"


def plan(options: Options) -> list[Film]:
    """Return all films of a set, those without planted flaws first.

    Raises:
        InputError: more flaws than there are films for them.
    """
    films: list[Film] = []
    for number in itertools.count():
        if number == options.patients if options.patients else len(films) >= options.images:
            break
        films += [_film(options, number, image) for image in range(images_of(options.seed, number))]
    if not options.patients:
        films = films[: options.images]
    return films + _straddlers(films, options) + _copies(films, options) + _spoilt(films, options)


def _film(options: Options, number: int, image: int) -> Film:
    which = number % len(options.classes)
    label, finding = options.classes[which], options.findings[which]
    split = SPLIT_CYCLE[number // len(options.classes) % len(SPLIT_CYCLE)]
    share = options.marker if label == options.marked else options.marker_elsewhere
    return Film(
        number=number,
        image=image,
        patient=_patient(options, number),
        label=label,
        finding=finding,
        split=split if options.splits == "official" else "",
        marker=bool(np.random.default_rng([options.seed, number, 6, image]).random() < share),
    )


def _patient(options: Options, number: int) -> str:
    # With the seed, so that merged sets of two seeds have no patients in common.
    return f"s{options.seed}p{number:04d}"


def _straddlers(films: Sequence[Film], options: Options) -> list[Film]:
    numbers = list(dict.fromkeys(film.number for film in films if film.split == "train"))
    chosen = _spread(numbers, options.straddlers, "straddlers", "training patients")
    images = {number: sum(film.number == number for film in films) for number in chosen}
    return [
        dataclasses.replace(_film(options, number, images[number]), split="test", planted="straddler")
        for number in chosen
    ]


def _copies(films: Sequence[Film], options: Options) -> list[Film]:
    training = [film for film in films if film.split == "train"]
    across = _spread(training, options.duplicates_across, "duplicates_across", "training images")
    rest = [film for film in films if film not in across]
    within = _spread(rest, options.duplicates, "duplicates", "images left to copy")
    unused = films[-1].number + 1
    return [dataclasses.replace(film, planted="duplicate") for film in within] + [
        dataclasses.replace(film, planted="duplicate_across", split="test", patient=_patient(options, unused + number))
        for number, film in enumerate(across)
    ]


def _spoilt(films: Sequence[Film], options: Options) -> list[Film]:
    chosen = _spread(films, options.unreadable, "unreadable", "images")
    return [dataclasses.replace(film, planted=how) for film, how in zip(chosen, itertools.cycle(SPOILT), strict=False)]


def _spread(items: Sequence[T], count: int, option: str, what: str) -> list[T]:
    """Return `count` of `items`, evenly spaced."""
    if count > len(items):
        raise InputError(f"phantom: {option} must be at most {len(items)}, the {what}. Received: {count}.")
    return [items[i * len(items) // count] for i in range(count)]


# Files


def _drawn_before(folder: Path) -> list[dict[str, str]] | None:
    """Return the records of a set that is complete on disk, else None."""
    try:
        records = json.loads((folder / RECORDS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    named = (record[column] for record in records for column in ("path", "mask", "lung_mask"))
    return records if all((folder / name).is_file() for name in named if name) else None


def _draw_set(films: Sequence[Film], options: Options, folder: Path) -> list[dict[str, str]]:
    log.info("Drawing %d phantoms of %d pixels into %s", len(films), options.size, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Drawn in another folder and renamed when complete, so that a killed or second process never leaves half a set.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        aside = Path(name) / "set"
        records = [_write_film(film, options, aside) for film in films]
        (aside / RECORDS).write_text(json.dumps(records), encoding="utf-8")
        _publish(aside, folder)
    return records


def _write_film(film: Film, options: Options, folder: Path) -> dict[str, str]:
    # A copy is drawn again: the same arguments give the same pixels.
    drawing = draw(
        seed=options.seed,
        patient=film.number,
        image=film.image,
        finding=film.finding,
        size=options.size,
        marker=film.marker,
    )
    content = _png(drawing.pixels)
    readable = film.planted not in SPOILT
    _write(folder / film.path, content if readable else _spoil(content, film.planted))
    name = f"{_patient(options, film.number)}_{film.image}.png"
    mask = f"masks/{name}" if readable and film.finding != "clear" else ""
    lung_mask = f"lung_masks/{name}" if readable else ""
    for path, shape in ((mask, drawing.finding), (lung_mask, drawing.lungs)):
        if path:
            _write(folder / path, _png(shape.astype(np.uint8) * 255))
    return {
        "path": film.path,
        "label": film.label,
        "patient": film.patient,
        "split": film.split,
        "source": "phantom",
        "mask": mask,
        "lung_mask": lung_mask,
        "marker": "yes" if film.marker else "no",
        "planted": film.planted,
    }


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _spoil(content: bytes, how: str) -> bytes:
    return {"truncated": content[: len(content) // 2], "garbage": content[:8] + b"\0" * 400, "empty": b""}[how]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _publish(aside: Path, folder: Path) -> None:
    """Move a complete set to its final folder."""
    try:
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        # Another process was first, or files of an earlier set were deleted. The files of a key are
        # the same whoever draws them, so replacing them one by one disturbs no reader.
        for path in sorted(path for path in aside.rglob("*") if path.is_file()):
            target = folder / path.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)


plugin = SourcePlugin(
    load=load, address_help="options such as images=640,size=96,marker=0.9, or nothing", licence=LICENCE
)
