"""The source ``phantom``: chest phantoms, drawn on the spot and with no download.

A demonstration and a test bed, not radiographs: nothing learnt from it says anything about
patients. It shows what the rest of chestxray does, and since it is known where every finding lies
and which flaws were planted, it tests heat maps, audits and controls.

Films have ribs, collar bones, spine, mediastinum, heart, vessels, diaphragm and soft tissue.
Anatomy, pose (shift, turn, scale, breath), exposure, contrast, blur and grain vary by patient and
a little by image. A patient has 1 to 4 images, one label and one finding, always at the same
place:

- ``clear``: nothing added;
- ``consolidation``: one dense patch with dark branching lines, anywhere in either lung;
- ``ground_glass``: fine mottling along the outer edge of both lungs;
- ``cavity``: a ring with a dark middle in the upper part of one lung.

Place, size and strength of a finding vary, and breasts and muscle cast shadows as broad in every
class: brightness at a fixed place says little (a linear model on the pixels reaches a macro AUROC of
.57 to .73 over ten seeds), while a convolutional network learns the textures and shapes from scratch in minutes.

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
#: Splits of a class's patients in turn: 9, 2 and 4 of 15, and each of the three among the first 3.
SPLIT_CYCLE = tuple({"R": "train", "V": "validation", "T": "test"}[letter] for letter in "RTVRRTRRTRVRRTR")
#: How an unreadable file comes to be, in turn.
SPOILT = ("truncated", "garbage", "empty")

log = logging.getLogger(__name__)


def load(address: str, options: SourceOptions) -> Index:
    """Draw the set that `address` describes, or open it where it was drawn before.

    The rows have the columns ``drawn``, ``mask`` (where the finding is; ``""`` where there is none),
    ``lung_mask``, ``marker`` (yes or no) and ``planted`` (``""``, or the flaw that the row is:
    duplicate, duplicate_across, straddler, truncated, garbage, empty).

    Raises:
        InputError: an unknown or unusable option.
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
    """Names a set by all that decides its pixels, the version of the drawing included."""
    content = json.dumps([VERSION, dataclasses.asdict(options)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


# What is drawn


@dataclass(frozen=True)
class Film:
    """One row of the set. `number` and `image` decide the anatomy, `patient` is what the row says."""

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
    """All films of a set, the sound ones first.

    Raises:
        InputError: more flaws than there are films to plant them on.
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
    # The seed is part of it: sets of two seeds, merged, have no patient in common.
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
    """`count` of `items`, evenly spread over them."""
    if count > len(items):
        raise InputError(f"phantom: {option} must be at most {len(items)}, the {what}. Received: {count}.")
    return [items[i * len(items) // count] for i in range(count)]


# Files


def _drawn_before(folder: Path) -> list[dict[str, str]] | None:
    """The records of a set that lies whole on disk, else None."""
    try:
        records = json.loads((folder / RECORDS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    named = (record[column] for record in records for column in ("path", "mask", "lung_mask"))
    return records if all((folder / name).is_file() for name in named if name) else None


def _draw_set(films: Sequence[Film], options: Options, folder: Path) -> list[dict[str, str]]:
    log.info("Drawing %d phantoms of %d pixels into %s", len(films), options.size, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Drawn aside and renamed when whole: neither a killed nor a second process shows half a set.
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
    """Give a finished set its name."""
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
