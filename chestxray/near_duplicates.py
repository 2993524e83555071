"""The same radiograph twice, though its pixels differ: compressed anew, resized, cropped, brightened.

Every image becomes a short description, its cosine transform without the coarse shape that all
chests share (after Zauner 2010, with numbers in place of bits). Images whose descriptions agree
are candidates, and `registration` confirms or refuses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from chestxray.decoded import progress
from chestxray.index import Index
from chestxray.registration import SIDE, correlations

# The thresholds are those of benchmarks/near_duplicates.py on the 5,824 different films of Kermany's
# set (children, one view; 224 pixels): of 16.9 million pairs of different patients none is flagged,
# the highest correlation being 0.80 (by the look of it one child under two numbers), while of 300
# edited copies all are found after JPEG of quality 50 and resizing to 90%, 99% after brightening into
# the white and 98% with 3% cropped from each side. At 32 pixels that highest correlation is 0.92.
_FREQUENCIES = 16
#: Cosine between two descriptions from which a pair is looked at.
CANDIDATE = 0.66
#: Correlation from which a pair is one radiograph, and the one for images of less than `SMALL` pixels.
CONFIRMED, CONFIRMED_SMALL = 0.88, 0.93
SMALL = 48
#: What the thresholds let through, in words for those who read the findings.
FALSE_ALARMS = (
    "Of 16.9 million pairs of chest films of different children, none was taken for one film "
    "(with 95% confidence fewer than 2 in 10 million are)."
)
#: One image is compared with this many at most, the likeliest: a set of blank pages stays possible.
_MOST_CANDIDATES = 16
#: A picture of one grey has nothing to compare; grey values of standard deviation.
_LEAST_CONTRAST = 2.0
_BLOCK = 256
#: Each image is also described with this share cut off every edge, so that crops twice as large are met half-way.
_ZOOM = 0.015
#: uint8 (images, height, width), and those rows of it that are looked at.
_Films = tuple[np.ndarray, np.ndarray]


def mark(index: Index, pixels: np.ndarray) -> Index:
    """Add the columns ``near_group``, ``near_correlation`` and ``brightness`` to a decoded index.

    `pixels`: uint8 (rows, height, width), of which a few hundred are in memory at a time. Rows
    with the same ``near_group`` show one radiograph, at least two of them with different pixels;
    it is empty for all others. ``near_correlation`` is the highest correlation with another of the
    group (not a number outside groups), ``brightness`` the mean grey, 0 to 255.

    Drawn images are not searched: phantoms share one anatomy, and two of them may be as like as two
    copies of a radiograph (0.93). Where there is nothing else, the first two columns are left out.
    """
    rows = index.rows.assign(brightness=np.nan)
    good = np.flatnonzero(rows["unreadable"] == "")
    rows.loc[good, "brightness"] = _brightness(pixels, good)
    good = good[~index.drawn.to_numpy()[good]]
    if not len(good):
        return index.replace(rows)
    rows = rows.assign(near_group="", near_correlation=np.nan)
    found = pairs(pixels, rows.iloc[good].drop_duplicates("pixel_hash").index.to_numpy())
    if found.empty:
        return index.replace(rows)
    groups = _groups(found, len(rows))
    by_hash = {rows["pixel_hash"][place]: name for place, name in groups.items()}
    rows.loc[good, "near_group"] = rows.loc[good, "pixel_hash"].map(by_hash).fillna("")
    both = pd.concat([found[["first", "correlation"]].rename(columns={"first": "second"}), found])
    best = both.groupby("second")["correlation"].max()
    by_hash = {rows["pixel_hash"][place]: value for place, value in best.items()}
    rows.loc[good, "near_correlation"] = rows.loc[good, "pixel_hash"].map(by_hash).astype(float)
    return index.replace(rows)


def pairs(pixels: np.ndarray, rows: np.ndarray, *, least: float | None = None) -> pd.DataFrame:
    """Pairs of `rows` that show one radiograph: columns first, second (rows), correlation.

    `pixels` as of `mark`; `least` is the lowest correlation of a pair (default: `CONFIRMED`). Found
    are copies whose edges differ by up to about 4% of the side; in images that were padded to their
    size, fewer of those that are cropped.
    """
    films = (pixels, np.asarray(rows))
    return _confirmed(_candidates(*_described(films)), films, films, least)


def pairs_between(
    pixels: np.ndarray, rows: np.ndarray, others: np.ndarray, other_rows: np.ndarray, *, least: float | None = None
) -> pd.DataFrame:
    """Pairs of one of `rows` with one of `other_rows` that show one radiograph: columns first, second, correlation.

    `pixels` and `others` are as of `mark` and of one size; ``first`` is a row of `pixels`, ``second`` one of
    `others`. Pairs within either are not looked for. Found is what `pairs` would find.
    """
    films, further = (pixels, np.asarray(rows)), (others, np.asarray(other_rows))
    described = _described(films, further)
    here, there = ([part[side] for part in described] for side in (slice(len(rows)), slice(len(rows), None)))
    return _confirmed(_candidates_between(here, there), films, further, least)


def _confirmed(blocks: Iterable[np.ndarray], films: _Films, others: _Films, least: float | None) -> pd.DataFrame:
    """Of candidates, places (candidates, 2) in `films` and `others`, those that registration confirms, as rows."""
    parts = []
    with progress("Looking for copies", len(films[1])) as advance:
        for number, block in enumerate(blocks):
            for start in range(0, len(block), _BLOCK):
                some = block[start : start + _BLOCK]
                first, second = films[1][some[:, 0]], others[1][some[:, 1]]
                sides = ((films[0], first), (others[0], second))
                alike = correlations(*(np.stack([_small(pixels[row]) for row in side]) for pixels, side in sides))
                parts.append(pd.DataFrame({"first": first, "second": second, "correlation": alike}))
            # A block of candidates is of a block of films.
            advance(min(_BLOCK, len(films[1]) - number * _BLOCK))
    found = pd.concat(parts) if parts else pd.DataFrame(columns=["first", "second", "correlation"])
    if least is None:
        least = CONFIRMED if min(films[0].shape[1:]) >= SMALL else CONFIRMED_SMALL
    return found[found["correlation"] >= least].reset_index(drop=True)


def _described(*films: _Films) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (rows of all films, 255), whole and with the edges cut off; zero where blank."""
    parts = [_transforms(*some) for some in films]
    plain, zoomed = (np.concatenate(side) for side in zip(*parts, strict=True))
    scale = _usual(plain)
    for part in (plain, zoomed):
        part /= scale
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-6)
    return plain, zoomed


def _transforms(pixels: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`_transformed` of the images (rows, 255), whole and with their edges cut off."""
    plain = np.empty((len(rows), _FREQUENCIES**2 - 1), dtype=np.float32)
    zoomed = np.empty_like(plain)
    edge = SIDE * _ZOOM
    for start in range(0, len(rows), _BLOCK):
        images = [_small(pixels[row]) for row in rows[start : start + _BLOCK]]
        closer = [_resized(Image.fromarray(image), (edge, edge, SIDE - edge, SIDE - edge)) for image in images]
        plain[start : start + _BLOCK] = _transformed(np.stack(images))
        zoomed[start : start + _BLOCK] = _transformed(np.stack(closer))
    return plain, zoomed


def _transformed(pictures: np.ndarray) -> np.ndarray:
    """The lowest cosine frequencies but the mean, (pictures, 255); zero where blank."""
    waves = np.cos(np.pi / SIDE * np.outer(np.arange(_FREQUENCIES), np.arange(SIDE) + 0.5)).astype(np.float32)
    waves[0] /= np.sqrt(2)
    found = (waves @ pictures.astype(np.float32) @ waves.T).reshape(len(pictures), -1)[:, 1:]
    return np.where(pictures.std(axis=(1, 2))[:, None] < _LEAST_CONTRAST, 0, found)


def _usual(found: np.ndarray) -> np.ndarray:
    """How large each frequency (255,) usually is in this set. Divided by it, the shape that all
    chests share counts no more than the rest, and a tenth as many pairs need looking at.
    """
    # In few images what is small by chance would count for much. Radiographs have amplitudes that
    # fall with the frequency to the power 1.4 to 1.6: that stands in for a hundred more of them.
    frequency = np.hypot(*np.mgrid[:_FREQUENCIES, :_FREQUENCIES]).ravel()[1:]
    expected = frequency**-3.0
    energy = np.einsum("ij,ij->j", found, found, dtype=np.float64)
    total = max(energy.sum() / max(len(found), 1), 1.0)
    mean = (energy + 100 * total * expected / expected.sum()) / (len(found) + 100)
    return np.sqrt(mean).astype(np.float32)


def _candidates(plain: np.ndarray, zoomed: np.ndarray) -> Iterator[np.ndarray]:
    """Places (candidates, 2) of descriptions that agree, block by block, each pair once."""
    for start in range(0, len(plain), _BLOCK):
        here = slice(start, start + _BLOCK)
        cosine = plain[here] @ plain[start:].T
        np.maximum(cosine, zoomed[here] @ plain[start:].T, out=cosine)
        np.maximum(cosine, plain[here] @ zoomed[start:].T, out=cosine)
        # Each image with those after it alone.
        cosine[np.tril_indices(len(cosine), m=cosine.shape[1])] = 0
        yield start + _likeliest(cosine)


def _candidates_between(here: Sequence[np.ndarray], there: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Places (candidates, 2), the first of a description in `here`, the second of one in `there` that agrees."""
    (plain, zoomed), (other, other_zoomed) = here, there
    for start in range(0, len(plain), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosine = plain[block] @ other.T
        np.maximum(cosine, zoomed[block] @ other.T, out=cosine)
        np.maximum(cosine, plain[block] @ other_zoomed.T, out=cosine)
        yield _likeliest(cosine) + np.array([start, 0])


def _likeliest(cosine: np.ndarray) -> np.ndarray:
    """Places (candidates, 2) of what agrees, with `_MOST_CANDIDATES` at most in a row. `cosine` is changed."""
    if cosine.shape[1] > _MOST_CANDIDATES:
        least = np.partition(cosine, -_MOST_CANDIDATES, axis=1)[:, -_MOST_CANDIDATES, None]
        cosine[cosine < least] = 0
    return np.argwhere(cosine > CANDIDATE)


def _groups(found: pd.DataFrame, count: int) -> dict[int, str]:
    """Row -> name of its group, of rows that hang together through pairs."""
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


def _small(image: np.ndarray) -> np.ndarray:
    return _resized(Image.fromarray(image))


def _resized(image: Image.Image, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    # Bilinear with the support scaled to the reduction: an area average.
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))
