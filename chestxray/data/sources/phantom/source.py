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
They are the fields of `Options`. An address that begins with ``findings`` is of chests with several findings, see
`findings_set`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from chestxray.data.index import Index
from chestxray.data.sources.phantom import findings_set
from chestxray.data.sources.phantom.drawing import VERSION, draw, images_of
from chestxray.data.sources.phantom.drawn_files import SPOILT, Record, drawn, png, spoil, write
from chestxray.data.sources.phantom.options import LICENCE, SPLIT_CYCLE, Options
from chestxray.errors import InputError
from chestxray.plugin import SourceOptions, SourcePlugin

T = TypeVar("T")


def load(address: str, options: SourceOptions) -> Index:
    """Draw the set that `address` describes, unless it was drawn before, and return its index.

    The rows have the columns ``drawn``, ``mask`` (path of the mask of the finding; ``""`` if there is
    none), ``lung_mask``, ``marker`` (yes or no), ``marker_mask`` (path of the mask of the marker, or
    ``""``) and ``planted`` (``""``, or the planted flaw: duplicate, duplicate_across, straddler, truncated,
    garbage, empty).

    Raises:
        InputError: an unknown or invalid option.
        OutputError: the cache's disk is full or cannot be written.

    >>> load("patients=12,size=48", SourceOptions(cache=Path("cache"))).classes  # doctest: +SKIP
    ('clear', 'consolidation', 'ground_glass', 'cavity')
    """
    if findings_set.meant(address):
        return findings_set.load(address, options)
    chosen = Options.parse(address, options)
    folder = options.cache.absolute() / "phantom" / key(chosen)

    def write_film(film: Film, folder: Path) -> Record:
        return _write_film(film, chosen, folder)

    records = drawn(plan(chosen), folder, write_film, ("path", "mask", "lung_mask", "marker_mask"), chosen.size)
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


def _write_film(film: Film, options: Options, folder: Path) -> Record:
    # A copy is drawn again: the same arguments give the same pixels.
    drawing = draw(
        seed=options.seed,
        patient=film.number,
        image=film.image,
        finding=film.finding,
        size=options.size,
        marker=film.marker,
    )
    content = png(drawing.pixels)
    readable = film.planted not in SPOILT
    write(folder / film.path, content if readable else spoil(content, film.planted))
    name = f"{_patient(options, film.number)}_{film.image}.png"
    mask = f"masks/{name}" if readable and film.finding != "clear" else ""
    lung_mask = f"lung_masks/{name}" if readable else ""
    marker_mask = f"marker_masks/{name}" if readable and film.marker else ""
    shapes = ((mask, drawing.finding), (lung_mask, drawing.lungs), (marker_mask, drawing.marker))
    for path, shape in shapes:
        if path:
            write(folder / path, png(shape.astype(np.uint8) * 255))
    return {
        "path": film.path,
        "label": film.label,
        "patient": film.patient,
        "split": film.split,
        "source": "phantom",
        "mask": mask,
        "lung_mask": lung_mask,
        "marker_mask": marker_mask,
        "marker": "yes" if film.marker else "no",
        "planted": film.planted,
    }


plugin = SourcePlugin(
    load=load,
    address_help="options such as images=640,size=96,marker=0.9, or nothing; findings,... of several findings a chest",
    licence=LICENCE,
)
