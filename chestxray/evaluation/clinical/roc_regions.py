"""Specificity at given sensitivities, and the partial AUROC.

Both are read off the ROC curve of the test itself, its corners joined by straight lines. They compare
rankings: no threshold chosen beforehand reaches exactly these points. Figures at the chosen threshold are in
`operating_points`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chestxray.evaluation.bootstrap import resamples
from chestxray.evaluation.intervals import Figure, logit_t
from chestxray.evaluation.support import effective
from chestxray.evaluation.weighted_metrics import Ranking, ratio

#: Sensitivities at which the specificity is reported, and the largest 1 - specificity of the partial area.
SENSITIVITIES = (0.9, 0.95)
MOST_FALSE = 0.1


def regions(
    scores: np.ndarray,
    positive: np.ndarray,
    clusters: np.ndarray,
    *,
    sensitivities: Sequence[float] = SENSITIVITIES,
    most_false: float = MOST_FALSE,
    replicates: int = 2000,
    seed: int = 0,
) -> tuple[list[Figure], Figure]:
    """Return the specificity at each of `sensitivities`, and the partial AUROC up to a false positive rate
    `most_false`, standardised (McClish 1989): 0.5 for a random score, 1 for a perfect one.

    `scores` float (rows,), `positive` bool (rows,), `clusters` codes of the patients, int (rows,). Without
    rows of both kinds all parts are None.
    """
    if positive.all() or not positive.any():
        return [Figure(None, None, None) for _ in sensitivities], Figure(None, None, None)
    ranking = Ranking.of(scores, positive)
    codes = np.unique(clusters, return_inverse=True)[1]

    def at(weights: np.ndarray) -> np.ndarray:
        false, true = _corners(ranking, weights)
        found = [1 - _false_at(false, true, wanted) for wanted in sensitivities]
        return np.stack([*found, _standardised(_area(false, true, most_false), most_false)])

    values = at(np.ones((1, len(scores))))[:, 0]
    drawn = np.concatenate([at(weights) for weights in resamples(codes, replicates, seed)], axis=1)
    support = min(effective(codes[positive]), effective(codes[~positive]))
    spans = [(0.0, 1.0)] * len(sensitivities) + [(float(_standardised(np.zeros(1), most_false)[0]), 1.0)]
    figures = [
        logit_t(float(value), replicated, support, span)
        for value, replicated, span in zip(values, drawn, spans, strict=True)
    ]
    return figures[:-1], figures[-1]


def _corners(ranking: Ranking, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the ROC curve from (0, 0) to (1, 1) for each row of `weights`: false and true positive
    rates, both (replicates, corners); NaN where either kind has no weight.
    """
    ranked = np.pad(np.cumsum(weights.take(ranking.order, axis=1), axis=1), ((0, 0), (1, 0)))
    hits = np.pad(np.cumsum(weights.take(ranking.positives, axis=1), axis=1), ((0, 0), (1, 0)))
    # The curve is level between two groups of equal score with a positive row: their ends are all its corners.
    places = np.stack([ranking.starts, ranking.ends], axis=1).ravel()
    counts = np.stack([ranking.positive_starts, ranking.positive_ends], axis=1).ravel()
    true = hits.take(counts, axis=1)
    false = ranked.take(places, axis=1) - true
    positive = hits[:, -1:]
    negative = ranked[:, -1:] - positive
    true, false = (np.pad(part, ((0, 0), (1, 1))) for part in (true, false))
    true[:, -1:], false[:, -1:] = positive, negative
    both = (positive > 0) & (negative > 0)
    return ratio(false, np.where(both, negative, 0) + 0 * false), ratio(true, np.where(both, positive, 0) + 0 * true)


def _false_at(false: np.ndarray, true: np.ndarray, wanted: float) -> np.ndarray:
    """Return the least false positive rate, (replicates,), at which the true positive rate is `wanted`."""
    rows = np.arange(len(true))
    after = np.maximum(np.argmax(true >= wanted - 1e-12, axis=1), 1)
    x0, x1, y0, y1 = (part[rows, place] for part in (false, true) for place in (after - 1, after))
    return x0 + (x1 - x0) * np.clip(ratio(wanted - y0, y1 - y0), 0, 1)


def _area(false: np.ndarray, true: np.ndarray, limit: float) -> np.ndarray:
    """Return the area below the curve up to `limit`, (replicates,)."""
    x0, x1, y0, y1 = false[:, :-1], false[:, 1:], true[:, :-1], true[:, 1:]
    width = np.minimum(x1, limit) - np.minimum(x0, limit)
    end = y0 + (y1 - y0) * np.nan_to_num(ratio(width, x1 - x0))
    return (width * (y0 + end) / 2).sum(axis=1)


def _standardised(area: np.ndarray, limit: float) -> np.ndarray:
    least, most = limit**2 / 2, limit
    return (1 + (area - least) / (most - least)) / 2
