"""The maps that a model has as it is, and how alike those of different images are: what changed maps are held against.

The level of random pairs is the baseline of Arun et al. (2021): where a change leaves the maps no more alike to what
they were than the maps of two different images are to each other, nothing of them is left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from chestxray.evaluation.bootstrap import draws
from chestxray.evaluation.figure_format import with_interval
from chestxray.evaluation.intervals import Figure, around, logit_t, satterthwaite, standard_error
from chestxray.evaluation.support import effective
from chestxray.explanation.map_check import Explain, MapCheck, Verdict
from chestxray.explanation.sanity.similarity import MEASURES, is_constant, similarities

#: Random pairs of maps (Arun 2021), replicates of the bootstrap, and fewest images that a verdict rests on.
PAIRS, REPLICATES, FEWEST = 50, 2000, 8
#: A rank correlation above this is no change, however alike random pairs are: a method that draws the same spot on
#: every film would otherwise pass.
MOST = 0.5
#: A figure for each of `MEASURES`.
Levels = Mapping[str, Figure]


@dataclass(frozen=True)
class Meaning:
    """What a verdict says of the maps: that they pass, or that they fail. Each ends a sentence."""

    passes: str
    fails: str


@dataclass(frozen=True)
class OwnMaps:
    """The maps of `model` for ``pixels``, uint8 (rows, height, width, channels), and ``classes``, int (rows,).

    Images with a constant map, ``empty`` in number, are left out: a change can take nothing from them. ``clusters`` are
    codes of the patients, int (rows,), and ``baseline`` is the level of random pairs of maps, of different patients
    and, while there are any, of the same class; None where there is no pair.
    """

    maps: np.ndarray
    pixels: np.ndarray
    classes: np.ndarray
    clusters: np.ndarray
    empty: int
    baseline: Levels | None
    seed: int

    @classmethod
    def of(
        cls,
        model: Any,
        explain: Explain,
        pixels: np.ndarray,
        classes: np.ndarray,
        *,
        patients: np.ndarray | None = None,
        seed: int = 0,
    ) -> OwnMaps:
        """Explain the images. `patients` are identifiers (rows,); None: each image is of a patient of its own."""
        maps = explain(model, pixels, classes)
        clusters = np.arange(len(pixels)) if patients is None else np.unique(patients, return_inverse=True)[1]
        shown = ~is_constant(maps)
        maps, classes, clusters = maps[shown], np.asarray(classes)[shown], clusters[shown]
        clusters = np.unique(clusters, return_inverse=True)[1]
        baseline = random_pairs(maps, classes, clusters, seed)
        return cls(maps, pixels[shown], classes, clusters, int((~shown).sum()), baseline, seed)

    def level(self, *changed: np.ndarray, drawn: bool = False) -> Levels:
        """Return how alike the own maps are to `changed` ones of the same images, (rows, height, width); of several
        changes the mean. With `drawn` the changes are random ones of many, such as networks with random weights, and
        the interval is over these too; otherwise it is over other images alone.
        """
        found = np.stack([similarities(self.maps, maps) for maps in changed])
        return {name: self._mean(found[..., i], drawn) for i, name in enumerate(MEASURES)}

    def _mean(self, values: np.ndarray, drawn: bool) -> Figure:
        """Return the mean of `values` (changes, rows) with its interval."""
        if (values > 1 - 1e-9).all():
            return Figure(1.0, 1.0, 1.0)  # not one map has changed
        weights = drawn_rows(self.clusters, self.seed)
        support = effective(self.clusters)
        error = standard_error(weights @ values.mean(axis=0) / weights.sum(axis=1), support)
        if drawn and error > 0:
            between = float(values.mean(axis=1).var(ddof=1)) / len(values)
            support = 1 + satterthwaite([error**2, between], [support - 1, len(values) - 1])
            error = math.sqrt(error**2 + between)
        return around(float(values.mean()), error, support, (-1.0, 1.0))

    def unable(self) -> str:
        """Return why no verdict rests on these maps, ``""`` if one does."""
        if self.baseline is None or len(np.unique(self.clusters)) < FEWEST:
            return (
                f"The map is empty or the same everywhere for {self.empty} of {len(self.maps) + self.empty} images; "
                f"the others are of {len(np.unique(self.clusters))} patients, and a verdict needs {FEWEST}."
            )
        return ""

    def check(
        self, name: str, changed: str, level: Levels, meaning: Meaning, more: str = "", **figures: Any
    ) -> MapCheck:
        """Return the check `name` of whether maps fall to the baseline, by `fallen`.

        `changed` begins the sentence, such as "With all weights random"; `more` ends it. `figures` are added to those
        that each check has.
        """
        assert self.baseline is not None, "`unable` says so"
        verdict = fallen(level, self.baseline)
        if verdict == "passes" and self.empty > len(self.maps):
            verdict = "doubtful"
        sentence = (
            f"{changed}, a map and the one before have a rank correlation of {_text(level)}; the maps of two patients, "
            f"of one class as far as there are such pairs, have {_text(self.baseline)}. "
            f"{_ending(verdict, level, self.baseline, meaning)}{more}"
        )
        if self.empty:
            sentence += (
                f" The {self.empty} of {len(self.maps) + self.empty} images whose map is empty or the same everywhere "
                "are left out."
            )
        return MapCheck(name, verdict, sentence, {**self.facts(), **as_json(level), **figures})

    def doubtful(self, name: str, reason: str) -> MapCheck:
        """Return the check `name` that could not be made for this `reason`."""
        return MapCheck(name, "doubtful", reason, self.facts())

    def facts(self) -> dict[str, Any]:
        """Return what the figures of each check have, in JSON types."""
        baseline = None if self.baseline is None else as_json(self.baseline)
        return {"images": len(self.maps), "empty": self.empty, "baseline": baseline}


def fallen(level: Levels, baseline: Levels) -> Verdict:
    """Return whether the likeness `level` has fallen to the `baseline`.

    Passes where the upper end of its interval is not above that of the baseline, in rank correlation and in structural
    similarity. Fails where the lower end of the rank correlation is above the upper end of the baseline, or above
    `MOST`: where all images have almost the same map, the baseline is no level to fall to. Doubtful otherwise, and
    where a rank correlation above the baseline would pass only because the baseline may be above `MOST` itself: the
    less is known of the level, the easier it would be to fall to. Structural similarity alone fails no method: two maps
    that are empty but for different spots are alike in it.
    """
    rank, pairs = level[MEASURES[0]], baseline[MEASURES[0]]
    if low(rank) > high(pairs) or low(rank) > MOST:
        return "fails"
    if _level_unknown(level, baseline):
        return "doubtful"
    below = all(high(level[name]) <= high(baseline[name]) for name in MEASURES)
    return "passes" if below and high(rank) <= MOST else "doubtful"


def _level_unknown(level: Levels, baseline: Levels) -> bool:
    rank, pairs = level[MEASURES[0]], baseline[MEASURES[0]]
    return rank.value is not None and pairs.value is not None and rank.value > pairs.value and high(pairs) > MOST


def _ending(verdict: Verdict, level: Levels, baseline: Levels, meaning: Meaning) -> str:
    """Return the sentence on a verdict of `fallen`, with the reason where the rank correlations do not show it."""
    (rank, pairs), (similar, of_pairs) = ((level[name], baseline[name]) for name in MEASURES)
    if verdict == "passes":
        above = rank.value is not None and pairs.value is not None and rank.value > pairs.value
        return f"The maps {'are not shown to stay above' if above else 'fall to'} that level: {meaning.passes}."
    if verdict == "fails":
        if low(rank) > high(pairs):
            return f"The maps do not fall to that level: {meaning.fails}."
        return f"Above {MOST} they have not changed enough, however alike the maps of all images are: {meaning.fails}."
    if high(rank) > high(pairs) or _level_unknown(level, baseline):
        return "Whether the maps fall to that level cannot be told from these images."
    if high(rank) > MOST:
        return f"However alike the maps of all images are, {MOST} must not be passed, and that cannot be told here."
    if high(similar) > high(of_pairs):
        of_both = (with_interval(figure.to_json(), 2) for figure in (similar, of_pairs))
        return "They fall to that level; in structural similarity, {} beside {}, this is not shown.".format(*of_both)
    return "They fall to that level where a map shows a place at all, which most do not."


def random_pairs(maps: np.ndarray, classes: np.ndarray, clusters: np.ndarray, seed: int) -> Levels | None:
    """Return how alike up to `PAIRS` random pairs of `maps` (rows, height, width) are, None where there is no pair.

    Pairs are of different patients, `clusters` (rows,), and of the same one of `classes` (rows,) as far as those go.
    """
    first, second = choose_pairs(classes, clusters, seed)
    if not len(first):
        return None
    return mean_of_pairs(similarities(maps[first], maps[second]), first, second, clusters, drawn_rows(clusters, seed))


def mean_of_pairs(
    found: np.ndarray, first: np.ndarray, second: np.ndarray, clusters: np.ndarray, weights: np.ndarray
) -> dict[str, Figure]:
    """Return the mean of `found`, likenesses (pairs, 2) of the rows `first` and `second`, with its interval.

    `weights` (replicates, rows) say how often each row is drawn. A pair is drawn as often as both of its rows; a row
    paired with itself as often as that row.
    """
    both = np.where(first == second, weights[:, first], weights[:, first] * weights[:, second])
    with np.errstate(invalid="ignore", divide="ignore"):
        replicates = both @ found / both.sum(axis=1, keepdims=True)
    support = effective(clusters[np.union1d(first, second)])
    return {
        # Maps of which not one has changed, as of the same weights.
        name: Figure(1.0, 1.0, 1.0)
        if (found[:, i] > 1 - 1e-9).all()
        else logit_t(float(found[:, i].mean()), replicates[:, i], support, (-1.0, 1.0))
        for i, name in enumerate(MEASURES)
    }


def choose_pairs(classes: np.ndarray, clusters: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the first and of the second map of each of the pairs of `random_pairs`, int (pairs,) each."""
    first, second = np.triu_indices(len(classes), k=1)
    apart = clusters[first] != clusters[second]
    first, second = first[apart], second[apart]
    shuffled = np.random.default_rng(seed).permutation(len(first))
    other = (classes[first] != classes[second])[shuffled]
    chosen = shuffled[np.argsort(other, kind="stable")][:PAIRS]
    return first[chosen], second[chosen]


def low(figure: Figure) -> float:
    """Return the lower end of an interval; the value where nothing varies."""
    return float(figure.low if figure.low is not None else figure.value or 0.0)


def high(figure: Figure) -> float:
    """Return the upper end of an interval; the value where nothing varies."""
    return float(figure.high if figure.high is not None else figure.value or 0.0)


def as_json(level: Levels) -> dict[str, Any]:
    """Return `level` in JSON types."""
    return {name: figure.to_json() for name, figure in level.items()}


def _text(level: Levels) -> str:
    return with_interval(level[MEASURES[0]].to_json(), 2)


def drawn_rows(clusters: np.ndarray, seed: int) -> np.ndarray:
    """Return how often each row is drawn in each replicate, float64 (replicates, rows)."""
    blocks = draws(int(clusters.max()) + 1, REPLICATES, seed)
    return np.concatenate([times[:, clusters] for times in blocks])
