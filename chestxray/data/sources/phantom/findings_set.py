"""Phantoms of which one chest may have several findings: ``phantom:findings``, ``findings-a`` and ``findings-b``.

The address begins with the name of the set; options follow: ``phantom:findings,patients=60,size=64``. They are the
fields of `FindingsOptions`. Of the patients (each with 1 to 4 images)

- 25% have cardiomegaly, 25% a consolidation, 25% a nodule, 15% a cavity, independently of each other;
- 45% of those with cardiomegaly have an effusion, and 20% of the others: the two occur together;
- 2 of 31 have a pneumothorax, a rare finding.

A finding lies at one place in all images of a patient. Consolidations, effusions and pneumothoraces come and go: they
are on three in four of the images. Some findings are drawn faintly; these, and a tenth as large a share of those that
are absent, are labelled uncertain. Some labels are missing. Both happen at random.

``findings-a`` and ``findings-b`` are two hospitals, with patients of their own, whose labels speak of different
findings (`LABELLED`) though all of them are drawn. With ``complete=true`` the same images have all labels, and a
finding counts as present however faint it is: that is what a training on incomplete labels is to be compared with.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from chestxray.data.column_kinds import MASK
from chestxray.data.findings import ABSENT, FINDING, PRESENT, UNCERTAIN, UNKNOWN
from chestxray.data.index import Index
from chestxray.data.sources.phantom.drawing import VERSION, draw_findings, images_of
from chestxray.data.sources.phantom.drawn_files import Record, drawn, png, write
from chestxray.data.sources.phantom.findings import COEXISTING
from chestxray.data.sources.phantom.options import LABELLED, LICENCE, SPLIT_CYCLE, FindingsOptions
from chestxray.plugin import SourceOptions

#: Prefix of the fields of a record, which no index has, that say whether a finding was drawn.
_DRAWN = "drawn:"
#: Of the patients; that of effusions depends on cardiomegaly.
_PREVALENCE = {"Cardiomegaly": 0.25, "Cavity": 0.15, "Consolidation": 0.25, "Nodule": 0.25}
_EFFUSION, _EFFUSION_WITH_CARDIOMEGALY = 0.2, 0.45
#: By number, so that small sets have some too; no divisor of the cycle of splits.
_RARE, _RARE_CYCLE = 2, 31
_COME_AND_GO, _SHOWN = ("Consolidation", "Effusion", "Pneumothorax"), 0.75
_FAINT = 0.35
#: Between the numbers of the patients of two sets, which fix their anatomy.
_APART = 1_000_000


def meant(address: str) -> bool:
    """Return whether the address names one of these sets."""
    return address.partition(",")[0].strip() in LABELLED


def load(address: str, options: SourceOptions) -> Index:
    """Draw the set that `address` describes, unless it was drawn before, and return its index of findings.

    The rows have the columns ``drawn``, ``mask:NAME`` for each finding (path of its mask; ``""`` if it is not
    there), ``lung_mask``, ``marker`` (yes or no) and ``marker_mask`` (path of the mask of the marker, or ``""``).

    Raises:
        InputError: an unknown or invalid option.
        OutputError: the cache's disk is full or cannot be written.

    >>> load("findings-a,patients=12,size=48", SourceOptions(cache=Path("cache"))).classes  # doctest: +SKIP
    ('Cardiomegaly', 'Consolidation', 'Effusion')
    """
    name, _, rest = (part.strip() for part in address.partition(","))
    chosen = FindingsOptions.parse(rest, options)
    folder = options.cache.absolute() / "phantom" / _key(name, chosen)

    def write_film(film: Film, folder: Path) -> Record:
        return _write_film(film, chosen, folder)

    masks = [MASK + finding for finding in COEXISTING]
    rows = pd.DataFrame(
        drawn(plan(name, chosen), folder, write_film, ("path", "lung_mask", "marker_mask", *masks), chosen.size)
    )
    known = tuple(COEXISTING) if chosen.complete else LABELLED[name]
    for finding in COEXISTING:
        if chosen.complete:
            rows[FINDING + finding] = np.where(rows[_DRAWN + finding], PRESENT, ABSENT)
        elif finding not in known:
            rows = rows.drop(columns=FINDING + finding)
    rows = rows.drop(columns=[_DRAWN + finding for finding in COEXISTING])
    index = Index.from_findings(rows, known, name=_source(name), licence=LICENCE)
    return index.replace(index.rows.assign(drawn=True))


def _key(name: str, options: FindingsOptions) -> str:
    """Return the name of a set, which depends on all that determines its pixels and labels."""
    # The records have the labels and what was drawn.
    content = json.dumps([VERSION, name, dataclasses.asdict(dataclasses.replace(options, complete=False))])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _source(name: str) -> str:
    return name.replace("findings", "phantom")


@dataclass(frozen=True)
class Film:
    """One row of a set: ``strength`` of each finding that is drawn, and the label (a state) of each."""

    source: str
    number: int
    image: int
    patient: str
    split: str
    strength: dict[str, float]
    states: dict[str, int]
    marker: bool

    @property
    def file(self) -> str:
        return f"{self.patient}_{self.image}.png"


def plan(name: str, options: FindingsOptions) -> list[Film]:
    """Return all films of the set called `name`, one of `LABELLED`."""
    first = _APART * list(LABELLED).index(name)
    films: list[Film] = []
    for place in itertools.count():
        if place == options.patients if options.patients else len(films) >= options.images:
            break
        number = first + place
        ill = _ill(options.seed, number, place)
        split = SPLIT_CYCLE[place % len(SPLIT_CYCLE)] if options.splits == "official" else ""
        # With the set and the seed, so that merged sets have no patients in common.
        patient = f"{name.removeprefix('findings').lstrip('-')}s{options.seed}p{place:04d}"
        for image in range(images_of(options.seed, number)):
            rng = np.random.default_rng([options.seed, number, 10, image])
            strength, states = _labelled(ill, options, rng)
            share = options.marker if options.marked in strength else options.marker_elsewhere
            marker = bool(np.random.default_rng([options.seed, number, 6, image]).random() < share)
            films.append(Film(_source(name), number, image, patient, split, strength, states, marker))
    return films if options.patients else films[: options.images]


def _ill(seed: int, number: int, place: int) -> frozenset[str]:
    """Return the findings of a patient."""
    chance = dict(zip(COEXISTING, np.random.default_rng([seed, number, 9]).random(len(COEXISTING)), strict=True))
    found = {name for name, prevalence in _PREVALENCE.items() if chance[name] < prevalence}
    if chance["Effusion"] < (_EFFUSION_WITH_CARDIOMEGALY if "Cardiomegaly" in found else _EFFUSION):
        found.add("Effusion")
    if place % _RARE_CYCLE < _RARE:
        found.add("Pneumothorax")
    return frozenset(found)


def _labelled(
    ill: frozenset[str], options: FindingsOptions, rng: np.random.Generator
) -> tuple[dict[str, float], dict[str, int]]:
    """Return the strength of each finding in one image of a patient, and the label of every finding."""
    strength, states = {}, {}
    for name in COEXISTING:
        shown, unsure, missing = rng.random(3)
        there = name in ill and (name not in _COME_AND_GO or shown < _SHOWN)
        uncertain = unsure < (options.uncertain if there else options.uncertain / 10)
        if there:
            strength[name] = _FAINT if uncertain else 1.0
        states[name] = UNCERTAIN if uncertain else PRESENT if there else ABSENT
        if missing < options.unlabelled:
            states[name] = UNKNOWN
    return strength, states


def _write_film(film: Film, options: FindingsOptions, folder: Path) -> Record:
    drawing = draw_findings(
        seed=options.seed,
        patient=film.number,
        image=film.image,
        findings=film.strength,
        size=options.size,
        marker=film.marker,
    )
    record: Record = {
        "path": f"{film.split or 'images'}/{film.file}",
        "patient": film.patient,
        "split": film.split,
        "source": film.source,
        "lung_mask": f"lung_masks/{film.file}",
        "marker": "yes" if film.marker else "no",
        "marker_mask": f"marker_masks/{film.file}" if film.marker else "",
    }
    write(folder / record["path"], png(drawing.pixels))
    if film.marker:
        write(folder / record["marker_mask"], png(drawing.marker.astype(np.uint8) * 255))
    write(folder / record["lung_mask"], png(drawing.lungs.astype(np.uint8) * 255))
    for name in COEXISTING:
        record[FINDING + name] = film.states[name]
        record[_DRAWN + name] = name in film.strength
        record[MASK + name] = f"masks/{name}/{film.file}" if name in film.strength else ""
        if name in film.strength:
            write(folder / record[MASK + name], png(drawing.findings[name].astype(np.uint8) * 255))
    return record
