"""Near duplicates: copies of one radiograph with different pixels (recompressed, resized, cropped, rotated, mirrored).

Every film is described by a short vector (`descriptors`), films with similar vectors are candidates
(`neighbours`), and registration (`image_registration`) confirms or rejects them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from chestxray.data import neighbours
from chestxray.data.descriptors import FLIPS, POSES, described, signs, whiten
from chestxray.data.grouping import patient_keys
from chestxray.data.image_registration import SIDE, correlations, placement
from chestxray.data.index import Index
from chestxray.progress.bars import progress

# benchmarks/near_duplicates.md explains the thresholds.
#: Absolute cosine between two descriptors from which a pair is a candidate.
CANDIDATE = 0.62
#: Correlation from which a pair is one radiograph, and the same for images with a side of less than `SMALL` pixels.
CONFIRMED, CONFIRMED_SMALL = 0.88, 0.93
SMALL = 48
#: Correlation from which a pair of different patients should be inspected: it may be two films of one person.
ADVISED = 0.75
#: The false-alarm rate of the thresholds, in words for those who read the findings. It is counted by
#: children, because pairs of films are not independent of each other.
FALSE_ALARMS = (
    "Among 5,824 chest films of 3,053 children, no film was taken for one of another child. Counted by children, "
    "fewer than 1 in 1,000 has such a false match in a set of that size (95% confidence)."
)
#: Maximum number of candidates, the most similar ones, with which one film is compared: limits the time for a set of
#: blank pages.
_MOST_CANDIDATES = 16
_BLOCK = 256
#: Number of films whose neighbours are searched at a time, each in all poses and flips.
_QUERIES = 1_024
#: Pixels, uint8 (images, height, width), and the rows of them that are searched.
_Films = tuple[np.ndarray, np.ndarray]


def mark(index: Index, pixels: np.ndarray) -> Index:
    """Search a decoded index for near duplicates, and return it with columns for the results and ``brightness``.

    `pixels`: uint8 (rows, height, width), of which a few hundred images are in memory at a time. Rows
    with the same ``near_group`` show one radiograph, at least two of them with different pixels; it is
    ``""`` for all others. ``near_correlation`` is the highest correlation with another image of the
    group (NaN outside groups), ``brightness`` the mean grey value, 0 to 255. ``look_alike`` is the path
    of the most similar film that is not known to be of the same patient, ``look_alike_correlation``
    the correlation with it: at least `ADVISED`, and lower than for a copy.

    Drawn images are not searched: phantoms share one anatomy, and two of them may be as similar as two
    copies of a radiograph (0.93). If there are no other images, only ``brightness`` is added.
    """
    rows = index.rows.assign(brightness=np.nan)
    good = np.flatnonzero(rows["unreadable"] == "")
    rows.loc[good, "brightness"] = _brightness(pixels, good)
    good = good[~index.drawn.to_numpy()[good]]
    if not len(good):
        return index.replace(rows)
    rows = rows.assign(near_group="", near_correlation=np.nan, look_alike="", look_alike_correlation=np.nan)
    searched = rows.iloc[good].drop_duplicates("pixel_hash").index.to_numpy()
    found = pairs(pixels, searched, least=advised(pixels))
    copies = found["correlation"] >= confirmed(pixels)
    names = _groups(found[copies], len(rows))
    _assign(rows, good, "near_group", pd.Series(names, dtype=object))
    _assign(rows, good, "near_correlation", _best(found[copies])["correlation"])
    best = _best(_of_different(found[~copies], rows, names))
    _assign(rows, good, "look_alike", best["second"].map(rows["path"]))
    _assign(rows, good, "look_alike_correlation", best["correlation"])
    return index.replace(rows)


def confirmed(pixels: np.ndarray) -> float:
    """Return the correlation from which two images of `pixels`, uint8 (images, height, width), are one radiograph."""
    return CONFIRMED if min(pixels.shape[1:]) >= SMALL else CONFIRMED_SMALL


def advised(pixels: np.ndarray) -> float:
    """Return the correlation from which two images of `pixels` should be inspected; that of copies for small images."""
    return ADVISED if min(pixels.shape[1:]) >= SMALL else CONFIRMED_SMALL


def pairs(pixels: np.ndarray, rows: np.ndarray, *, least: float | None = None) -> pd.DataFrame:
    """Return the pairs of `rows` that show one radiograph: columns first, second (rows of `pixels`) and correlation.

    `pixels` as in `mark`; `least` is the lowest correlation of a pair (default: `confirmed`). Detects
    copies that were compressed, resized, changed in tone, inverted, mirrored or flipped upside down,
    cropped or padded by up to about 5% a side, rotated by up to about 6 degrees, or marked with text.
    """
    films = (pixels, np.asarray(rows))
    return _confirmed(_candidates(_described(films)), films, films, least)


def pairs_between(
    pixels: np.ndarray, rows: np.ndarray, others: np.ndarray, other_rows: np.ndarray, *, least: float | None = None
) -> pd.DataFrame:
    """Return the pairs of one of `rows` and one of `other_rows` that show one radiograph.

    The columns are first (a row of `pixels`), second (a row of `others`) and correlation. `pixels` and `others`
    are as in `mark`, with images of the same size. Pairs within `pixels` or within `others` are not searched;
    otherwise the pairs are those that `pairs` would find in both together.
    """
    films, further = (pixels, np.asarray(rows)), (others, np.asarray(other_rows))
    vectors = _described(films, further)
    return _confirmed(_candidates(vectors[:, : len(rows)], vectors[:, len(rows) :]), films, further, least)


def _described(*films: _Films) -> np.ndarray:
    """Return the whitened descriptors of the rows of all films, in order: float32 (poses, films, dimensions)."""
    parts = []
    with progress("Describing", sum(len(rows) for _, rows in films)) as advance:
        for pixels, rows in films:
            for start in range(0, len(rows), _BLOCK):
                parts.append(described(_small(pixels, rows[start : start + _BLOCK])))
                advance(parts[-1].shape[1])
    vectors = np.concatenate(parts, axis=1) if parts else np.zeros((len(POSES), 0, signs().shape[1]), np.float32)
    whiten(vectors)
    return vectors


def _candidates(vectors: np.ndarray, others: np.ndarray | None = None) -> pd.DataFrame:
    """Return the pairs of similar descriptors, each once: first, second, and the pose of one relative to the other.

    Pairs are within `vectors`, or between these and `others`, both (poses, films, dimensions). ``pose`` and
    ``flip`` are positions in `POSES` and `FLIPS`; ``turned`` is True if the second film is the posed one.
    """
    if others is None:
        found = _looked_up(vectors, neighbours.cells(vectors[0]))
        found = found[found["query"] != found["member"]]
        found = found.assign(turned=found["query"] > found["member"])
    else:
        there = _looked_up(others, neighbours.cells(vectors[0])).assign(turned=True)
        found = pd.concat([_looked_up(vectors, neighbours.cells(others[0])).assign(turned=False), there])
    ends = found[["query", "member"]].to_numpy()
    ends = np.where(found[["turned"]].to_numpy(), ends[:, ::-1], ends)
    found = found.assign(first=ends[:, 0], second=ends[:, 1]).sort_values("cosine", ascending=False, kind="stable")
    return found.drop_duplicates(["first", "second"]).sort_values(["first", "second"])


def _looked_up(vectors: np.ndarray, among: neighbours.Cells) -> pd.DataFrame:
    """Return the most similar members for each film in all poses and flips: query, member, cosine, pose, flip,
    inverted.
    """
    parts = []
    count, factors = vectors.shape[1], signs()
    with progress("Looking for copies", count) as advance:
        for start in range(0, count, _QUERIES):
            posed = vectors[:, None, start : start + _QUERIES] * factors[:, None]
            places, cosine = neighbours.alike(
                among, posed.reshape(-1, posed.shape[-1]), CANDIDATE, _MOST_CANDIDATES + 1
            )
            pose, flip, query = np.unravel_index(places[:, 0], posed.shape[:-1])
            part = pd.DataFrame({"query": start + query, "member": places[:, 1], "cosine": np.abs(cosine)})
            part = part.assign(pose=pose, flip=flip, inverted=cosine < 0)
            part = part.sort_values("cosine", ascending=False, kind="stable").drop_duplicates(["query", "member"])
            # One more, since a film is its own most similar member.
            parts.append(part.groupby("query").head(_MOST_CANDIDATES + 1))
            advance(posed.shape[2])
    columns = ["query", "member", "cosine", "pose", "flip", "inverted"]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


def _confirmed(candidates: pd.DataFrame, films: _Films, others: _Films, least: float | None) -> pd.DataFrame:
    """Return the candidates (positions in `films` and `others`) that registration confirms, as rows of pixels."""
    parts = [pd.DataFrame({"first": [], "second": [], "correlation": []}).astype({"first": int, "second": int})]
    with progress("Comparing", len(candidates)) as advance:
        for start in range(0, len(candidates), _BLOCK):
            some = candidates.iloc[start : start + _BLOCK]
            first, second = films[1][some["first"]], others[1][some["second"]]
            alike = _registered(some, _small(films[0], first), _small(others[0], second))
            parts.append(pd.DataFrame({"first": first, "second": second, "correlation": alike}))
            advance(len(some))
    found = pd.concat(parts)
    return found[found["correlation"] >= (confirmed(films[0]) if least is None else least)].reset_index(drop=True)


def _registered(candidates: pd.DataFrame, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlation (candidates,) of pairs of pictures, uint8 (candidates, SIDE, SIDE), after alignment from
    the poses of the candidates.
    """
    turned = candidates["turned"].to_numpy(dtype=bool)[:, None, None]
    posed, plain = np.where(turned, second, first), np.where(turned, first, second)
    for number, (upside_down, mirrored) in enumerate(FLIPS):
        own = (candidates["flip"] == number).to_numpy()
        plain[own] = plain[own][:, :: -1 if upside_down else 1, :: -1 if mirrored else 1]
    inverted = candidates["inverted"].to_numpy(dtype=bool)
    plain[inverted] = 255 - plain[inverted]
    rotation, scale = np.array(POSES)[candidates["pose"].to_numpy(dtype=int)].T
    return correlations(posed, plain, placement(rotation, scale))


def _of_different(found: pd.DataFrame, rows: pd.DataFrame, names: dict[int, str]) -> pd.DataFrame:
    """Return the pairs whose rows are not known to be of one patient and are not in one group of copies."""
    patient = patient_keys(rows)
    group = pd.Series(names, dtype=object).reindex(rows.index)
    first, second = found["first"], found["second"]
    same = patient.loc[first].to_numpy() == patient.loc[second].to_numpy()
    return found[~same & ~(group.loc[first].to_numpy() == group.loc[second].to_numpy())]


def _best(found: pd.DataFrame) -> pd.DataFrame:
    """Return the most similar other row (second) and the correlation for each row in a pair, by row."""
    both = pd.concat([found, found.rename(columns={"first": "second", "second": "first"})])
    best = both.sort_values("correlation", ascending=False, kind="stable").drop_duplicates("first")
    return best.set_index("first")


def _assign(rows: pd.DataFrame, good: np.ndarray, column: str, values: pd.Series) -> None:
    """Assign the values of `column` found for some rows to all rows with the same pixels, in place."""
    by_hash = dict(zip(rows["pixel_hash"].loc[values.index], values, strict=True))
    given = rows.loc[good, "pixel_hash"].map(by_hash)
    rows.loc[good, column] = given.where(given.notna(), rows.loc[good, column])


def _groups(found: pd.DataFrame, count: int) -> dict[int, str]:
    """Return the name of the group of each row in a pair; groups are the connected components of the pairs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = (found["first"].to_numpy(), found["second"].to_numpy())
    graph = coo_matrix((np.ones(len(found), dtype=bool), ends), shape=(count, count))
    codes = connected_components(graph, directed=False)[1]
    members = np.unique(np.concatenate(ends))
    numbers = pd.factorize(codes[members])[0]
    return {int(row): f"near-{number}" for row, number in zip(members, numbers, strict=True)}


def _brightness(pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.array([pixels[row].mean() for row in rows], dtype=np.float64)


def _small(pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the rows resized for comparison: uint8 (rows, SIDE, SIDE)."""
    # Bilinear with the support scaled to the reduction: an area average. A row may occur many times.
    each, places = np.unique(rows, return_inverse=True)
    small = [np.asarray(Image.fromarray(pixels[row]).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for row in each]
    return np.stack(small)[places]
