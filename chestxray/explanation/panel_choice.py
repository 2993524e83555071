"""Which test images the panel of heat maps shows.

Some are drawn at random before any answer is looked at: the same ones for every model with the same test images, so
that `compare` can put the models' maps side by side. A panel of the best-looking cases would flatter a model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import Predictions

RANDOM, MOST, LEAST = "random", "most certain", "least certain"
#: Kinds of images of a class, and of a finding, in the order in which they are shown.
CLASS_KINDS = (RANDOM, "right", "wrong", MOST, LEAST)
FINDING_KINDS = (RANDOM, "found", "false alarm", "missed", MOST, LEAST)


@dataclass(frozen=True)
class Choice:
    """An image of the panel: its row in the predictions, the number of the class or finding that its map explains, the
    class or finding that it is shown under, and the kinds that it was chosen for.
    """

    row: int
    explained: int
    group: str
    kinds: tuple[str, ...]


def of_classes(predictions: Predictions, each: int, seed: int) -> list[Choice]:
    """Return up to `each` images of every true class and each of `CLASS_KINDS`; the decided class is explained.

    Right and wrong ones are drawn with `seed`. Most and least certain are the answers given with the highest
    and the lowest probability.
    """
    truth, said, paths = predictions.truth, predictions.predicted, predictions.rows["path"].to_numpy()
    probability = predictions.probabilities[np.arange(len(said)), said]
    chosen = []
    for number, name in enumerate(predictions.classes):
        own, right = truth == number, truth == said
        groups = {
            RANDOM: _drawn(own, paths, each, (number,)),
            "right": _drawn(own & right, paths, each, (seed, number, 1)),
            "wrong": _drawn(own & ~right, paths, each, (seed, number, 2)),
            MOST: _lowest(own, -probability, each),
            LEAST: _lowest(own, probability, each),
        }
        chosen += [Choice(row, int(said[row]), name, kinds) for row, kinds in _merged(groups).items()]
    return chosen


def of_findings(predictions: FindingPredictions, each: int, seed: int) -> list[Choice]:
    """Return up to `each` images of every finding and each of `FINDING_KINDS`, which is explained, where it is known.

    Random ones have the finding. Found ones, false alarms and missed ones are drawn with `seed`. Most certain are those
    with the highest probability of the finding, least certain those nearest to where its decision changes.
    """
    paths, chosen = predictions.rows["path"].to_numpy(), []
    for number, name in enumerate(predictions.findings):
        truth, said = predictions.truth[:, number], predictions.predicted[:, number]
        probability = predictions.probabilities[:, number]
        groups = {
            RANDOM: _drawn(truth == 1, paths, each, (number,)),
            "found": _drawn((truth == 1) & said, paths, each, (seed, number, 1)),
            "false alarm": _drawn((truth == 0) & said, paths, each, (seed, number, 2)),
            "missed": _drawn((truth == 1) & ~said, paths, each, (seed, number, 3)),
            MOST: _lowest(~np.isnan(truth), -probability, each),
            LEAST: _lowest(~np.isnan(truth), np.abs(probability - _boundary(probability, said)), each),
        }
        chosen += [Choice(row, number, name, kinds) for row, kinds in _merged(groups).items()]
    return chosen


def _boundary(probability: np.ndarray, said: np.ndarray) -> float:
    """Return where the decision changes: between the highest probability of "absent" and the lowest of "present"."""
    ends = [part for part in (probability[~said].max(initial=-1), probability[said].min(initial=2)) if 0 <= part <= 1]
    return float(np.mean(ends)) if ends else 0.5


def _drawn(among: np.ndarray, paths: np.ndarray, each: int, seed: Iterable[int]) -> list[int]:
    """Return up to `each` rows of `among`, drawn at random whatever the order of the rows is."""
    rows = np.flatnonzero(among)
    rows = rows[np.argsort(paths[rows], kind="stable")]
    return sorted(np.random.default_rng(list(seed)).permutation(rows)[:each].tolist())


def _lowest(among: np.ndarray, key: np.ndarray, each: int) -> list[int]:
    rows = np.flatnonzero(among)
    return rows[np.argsort(key[rows], kind="stable")][:each].tolist()


def _merged(groups: dict[str, list[int]]) -> dict[int, tuple[str, ...]]:
    """Return the kinds of each row, in the order in which rows first appear."""
    found: dict[int, tuple[str, ...]] = {}
    for kind, rows in groups.items():
        for row in rows:
            found[row] = (*found.get(row, ()), kind)
    return found
