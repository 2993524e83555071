"""The nearest films of a film, by the cosine similarity of their features."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from chestxray.data.grouping import patient_keys
from chestxray.data.images.pixels import UnreadableImage
from chestxray.data.images.reading import read
from chestxray.data.index import COLUMNS
from chestxray.errors import DataError, InputError
from chestxray.inference.feature_table import FeatureTable
from chestxray.report.figures.neighbours import Tile

log = logging.getLogger(__name__)

#: Similarity from which two films of different patients or splits are marked. docs/features.md has what it finds.
POSSIBLE_COPY = 0.95
#: Columns of the result that are said of both films, and those of the result.
_OF_BOTH = ("label", "patient", "split", "source")
OUTPUT = (
    "film",
    "neighbour",
    "similarity",
    "possible_copy",
    *(f"{of}_{name}" for name in _OF_BOTH for of in ("film", "neighbour")),
)
#: Films and neighbours of a panel at most, and the side of an image in it, in pixels.
SHOWN, ACROSS, SIDE = 8, 5, 224


def nearest(among: FeatureTable, of: FeatureTable, count: int, *, copies_from: float = POSSIBLE_COPY) -> pd.DataFrame:
    """Return the `count` nearest films of `among` for each film of `of` that has features, the most similar first.

    The columns are `OUTPUT`. ``similarity`` is the cosine of the angle between two vectors, -1 to 1. A file is no
    neighbour of itself. ``possible_copy`` is True where the similarity is at least `copies_from` and the two are not
    known to be of one patient, or are in different splits: a hint, since films of two people may be as similar, and
    copies less.

    Raises:
        InputError: the two tables come from different networks.
        DataError: there are no films to search among, or none to search for.
    """
    from sklearn.neighbors import NearestNeighbors

    if among.origin["fingerprint"] != of.origin["fingerprint"]:
        raise InputError(
            "Features of two networks cannot be compared. Allowed: features of one run, or of one architecture with "
            f"the same weights and image size. Received: {_named(among)} and {_named(of)}."
        )
    films, others = of.readable, among.readable
    if not len(films) or not len(others):
        raise DataError("There are no films with features to search among, or none to search for.")
    # Two more: the film itself, and the same file in another set.
    model = NearestNeighbors(n_neighbors=min(count + 2, len(others)), metric="cosine", algorithm="brute")
    distances, places = model.fit(among.vectors[others]).kneighbors(of.vectors[films])
    left = of.rows.iloc[np.repeat(films, places.shape[1])].reset_index(drop=True)
    right = among.rows.iloc[others[places.ravel()]].reset_index(drop=True)
    similarity = np.clip(1 - distances.ravel(), -1, 1)
    found = pd.DataFrame({"film": left["path"], "neighbour": right["path"], "similarity": similarity})
    apart = (patient_keys(left) != patient_keys(right)) | (
        (left["split"] != right["split"]) & (left["split"] != "") & (right["split"] != "")
    )
    found["possible_copy"] = apart & (similarity >= copies_from)
    for name in _OF_BOTH:
        found[f"film_{name}"], found[f"neighbour_{name}"] = left[name], right[name]
    number = np.repeat(np.arange(len(films)), places.shape[1])
    other = found["film"] != found["neighbour"]
    kept = found[other].groupby(number[other], sort=True).head(count)
    return kept.reset_index(drop=True)[list(OUTPUT)]


def of_images(paths: Sequence[str], among: FeatureTable) -> FeatureTable:
    """Return the features of image files by the network behind `among`; those that cannot be read have none.

    Raises:
        InputError: that network has changed since.
        ChestXrayError: it cannot be opened.
    """
    from chestxray.inference import encoder
    from chestxray.inference.batch_prediction import decoded

    network = encoder.of_origin(among.origin)
    reasons: list[str] = []
    vectors = np.full((len(paths), network.width), np.nan, np.float32)
    size, fit = network.image_size, network.fit
    for part, pixels, why, _ in decoded(paths, size, fit, lungs=network.segmenter, batch_size=256):
        good = [len(reasons) + place for place, reason in enumerate(why) if not reason]
        if good:
            vectors[good] = encoder.encode(network, pixels)
        for path, reason in zip(part, why, strict=True):
            if reason:
                log.warning("Unreadable: %s: %s", path, reason)
        reasons += why
    rows = pd.DataFrame(dict.fromkeys(COLUMNS, ""), index=range(len(paths)), dtype=object)
    return FeatureTable(rows.assign(path=list(paths), unreadable=reasons), vectors, among.origin)


def possible_copies(found: pd.DataFrame) -> pd.DataFrame:
    """Return the marked pairs of `nearest`, each once, the most similar first."""
    marked = found[found["possible_copy"]].sort_values("similarity", ascending=False, kind="stable")
    pair = pd.Series([frozenset(pair) for pair in zip(marked["film"], marked["neighbour"], strict=True)], marked.index)
    return marked[~pair.duplicated()]


def tiles(found: pd.DataFrame) -> list[list[Tile]]:
    """Return the rows of a panel, a film and its neighbours each, for the `SHOWN` films with the most similar marked
    neighbours, then the most similar ones. Of two films that are each other's neighbours one is shown.
    """
    ordered = found.sort_values(["possible_copy", "similarity"], ascending=False, kind="stable")
    chosen: list[str] = []
    seen: set[str] = set()
    for row in ordered.itertuples():
        if row.film not in seen and len(chosen) < SHOWN:
            chosen.append(str(row.film))
            seen |= {str(row.film), str(row.neighbour)}
    panel = []
    for film in chosen:
        near = found[found["film"] == film].head(ACROSS)
        first = near.iloc[0]
        panel.append([Tile(_pixels(film), Path(film).name, first["film_label"], first["film_split"])])
        for one in near.itertuples():
            caption = Path(one.neighbour).name, one.neighbour_label, one.neighbour_split
            panel[-1].append(Tile(_pixels(one.neighbour), *caption, one.similarity, one.possible_copy))
    return panel


def _pixels(path: str) -> np.ndarray | None:
    try:
        return read(Path(path), size=(SIDE, SIDE), fit="pad").pixels
    except UnreadableImage as error:
        log.warning("Not in the panel: %s: %s", path, error)
        return None


def _named(table: FeatureTable) -> str:
    origin = table.origin
    size = "x".join(map(str, origin["image_size"]))
    return origin.get("run") or f"{origin['model']} with {origin['weights']} at {size}"
