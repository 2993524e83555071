"""Means over findings, with intervals that know how the findings of one patient go together.

All findings are tested on the same patients, of whom each finding is known in some. One bootstrap over all patients
gives the figures of all findings in the same draws, whose covariance is that of the findings; a finding of few
patients, or at an end of its range, adds the width of its own interval (`class_means.mean`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chestxray.evaluation import class_means, published_metrics
from chestxray.evaluation.bootstrap import BLOCK, by_patient, draws
from chestxray.evaluation.bootstrap_t import mean_losses
from chestxray.evaluation.estimation import mean_if_alike
from chestxray.evaluation.evaluate import Estimated
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.support import effective
from chestxray.evaluation.weighted_metrics import Key, Ranking, squared_errors, threshold_figures

#: The figures of which there is a mean over findings, in the order of reports.
MEANS = ("auroc", "auprc", "sensitivity", "specificity", "precision", "f1", "brier", "ece")
#: Of these, those whose interval comes from the joint bootstrap.
DRAWN = ("auroc", "auprc", "sensitivity", "specificity", "precision", "f1")


@dataclass(frozen=True)
class Part:
    """One finding: its figures, and the numbers in the whole table of the rows that they are of, int (rows,)."""

    estimated: Estimated
    places: np.ndarray


def means(
    parts: Sequence[Part],
    clusters: np.ndarray,
    *,
    replicates: int,
    seed: int,
    metrics: Sequence[published_metrics.Metric] = (),
) -> dict[str, Figure]:
    """Return the mean of each of `MEANS`, and of the `metrics` of plugins, over findings with its 95% interval; all are
    None without findings.

    A finding that is never predicted has precision 0 here, as in means over classes.

    Args:
        parts: the findings; the finding is the second class.
        clusters: codes of the patients, int (all rows,).
        replicates: number of bootstrap replicates.
        seed: of the random draws.
        metrics: further figures.
    """
    names = (*MEANS, *(metric.name for metric in metrics))
    if not parts:
        return dict.fromkeys(names, Figure(None, None, None))
    # Rows of which nothing is known take no part in the draws.
    places = np.unique(np.concatenate([part.places for part in parts]))
    codes = np.full(len(clusters), -1)
    codes[places] = _codes(clusters[places])
    drawn = joint_replicates(parts, codes, replicates=replicates, seed=seed, metrics=metrics)
    found: dict[Key, Figure] = {}
    support: dict[Key, float] = {}
    freedom: dict[Key, float] = {}
    values: dict[str, float] = {}
    for name in DRAWN:
        for i, part in enumerate(parts):
            estimates = part.estimated.estimates
            found[i, name] = estimates.figures[1, name]
            support[i, name], freedom[i, name] = estimates.support[1, name], estimates.freedom[1, name]
        own = [part.estimated.scored.values[1, name] for part in parts]
        values[name] = float(np.mean(np.nan_to_num(own) if name == "precision" else own))
    result = {
        name: class_means.mean(
            values[name],
            [(i, name) for i in range(len(parts))],
            found,
            drawn,
            support,
            freedom,
            of_same_rows=True,
        )
        for name in DRAWN
        if math.isfinite(values[name])
    }
    result["brier"] = _mean_loss(parts, codes, places, replicates=replicates, seed=seed)
    for metric in metrics:
        result[metric.name] = _mean_of(metric, parts, drawn)
    # The calibration errors have no replicates; fully correlated, their mean has the widest interval.
    result["ece"] = mean_if_alike([part.estimated.evaluation.test["ece"] for part in parts])
    return {name: result.get(name, Figure(None, None, None)) for name in names}


def _mean_of(metric: published_metrics.Metric, parts: Sequence[Part], drawn: Mapping[Key, np.ndarray]) -> Figure:
    """Return the mean of a plugin's figure over findings with its interval."""
    whole: Key = (None, metric.name)
    value = float(np.mean([part.estimated.measured.values[whole] for part in parts]))
    if not math.isfinite(value):
        return Figure(None, None, None)
    keys: list[Key] = [(i, metric.name) for i in range(len(parts))]
    own = zip(keys, parts, strict=True)
    support = {key: part.estimated.measured.support[whole] for key, part in own}
    found = {key: part.estimated.evaluation.test[metric.name] for key, part in zip(keys, parts, strict=True)}
    freedom = {key: size - 1 for key, size in support.items()}
    return class_means.mean(value, keys, found, drawn, support, freedom, of_same_rows=True, span=metric.plugin.bounds)


def joint_replicates(
    parts: Sequence[Part],
    codes: np.ndarray,
    *,
    replicates: int,
    seed: int,
    metrics: Sequence[published_metrics.Metric] = (),
) -> Mapping[Key, np.ndarray]:
    """Return each figure of each finding in the same draws of patients, each float64 (replicates,).

    `codes` are 0, 1, ... of the patients, int (all rows,).
    """
    found: dict[Key, np.ndarray] = {}
    rest: dict[int, Drawn] = {}
    for i, part in enumerate(parts):
        scored = part.estimated.scored
        if len(part.places) == int((codes >= 0).sum()):
            # Known in all rows: the draws were the same.
            found |= {(i, name): scored.replicates[1, name] for name in DRAWN}
            found |= {(i, one.name): part.estimated.measured.replicates[None, one.name] for one in metrics}
        else:
            given = scored.truth, scored.predicted, scored.probabilities[:, 1]
            rest[i] = Drawn.of(*given, codes[part.places], metrics)
    return found | dict(replicates_of(rest, int(codes.max()) + 1, replicates=replicates, seed=seed))


def replicates_of(
    drawn: Mapping[int, Drawn], patients: int, *, replicates: int, seed: int
) -> dict[tuple[int, str], np.ndarray]:
    """Return each of the figures `DRAWN`, and those of plugins that `drawn` has, in the same draws of `patients`,
    float64 (replicates,).
    """
    if not drawn:
        return {}
    blocks: dict[tuple[int, str], list[np.ndarray]] = defaultdict(list)
    for times in draws(patients, replicates, seed, max(1, BLOCK // max(len(one.codes) for one in drawn.values()))):
        for key, one in drawn.items():
            for name, values in one.figures(times).items():
                blocks[key, name].append(values)
    return {key: np.concatenate(values) for key, values in blocks.items()}


@dataclass(frozen=True)
class Drawn:
    """A finding on the rows where it is known, in draws of all patients: what means need and no more, so that it is
    quick. ``codes`` of the patients, int (rows,); ``cells``, of the confusion matrix by patient; ``truth``, int
    (rows,), and ``scores``, float (rows,), for ``metrics`` of plugins.
    """

    codes: np.ndarray
    cells: np.ndarray
    ranking: Ranking
    truth: np.ndarray
    scores: np.ndarray
    metrics: Sequence[published_metrics.Metric] = ()

    @classmethod
    def of(
        cls,
        truth: np.ndarray,
        predicted: np.ndarray,
        scores: np.ndarray,
        codes: np.ndarray,
        metrics: Sequence[published_metrics.Metric] = (),
    ) -> Drawn:
        """`truth` and `predicted` are 0 or 1, int (rows,), `scores` probabilities of 1, float (rows,)."""
        cells = by_patient(np.eye(4)[truth * 2 + predicted], codes)
        return cls(codes, cells, Ranking.of(scores, truth == 1), truth, scores, metrics)

    def figures(self, times: np.ndarray) -> dict[str, np.ndarray]:
        """Return each figure, (replicates,), for `times`, (replicates, patients), that each patient was drawn."""
        # Patients after the last one with a known row have no cells.
        confusion = (times[:, : len(self.cells)] @ self.cells).reshape(-1, 2, 2)
        weights = times.take(self.codes, axis=1)
        auroc, auprc = self.ranking.areas(weights)
        decided = {name: values[:, 1] for name, values in threshold_figures(confusion).items()}
        both = np.stack([1 - self.scores, self.scores], axis=1)
        published = {one.name: one.compute(self.truth, both, weights, 1)[None, one.name] for one in self.metrics}
        return {"auroc": auroc, "auprc": auprc} | decided | published


def _mean_loss(parts: Sequence[Part], codes: np.ndarray, places: np.ndarray, *, replicates: int, seed: int) -> Figure:
    """Return the mean of the Brier scores. Of rows where not every finding is known it is linear in the means of those
    that are, so that each row has a loss whose mean it is.
    """
    loss, total = np.zeros(len(codes)), 0.0
    for part in parts:
        own = squared_errors(part.estimated.scored.truth, part.estimated.scored.probabilities)[:, -1]
        loss[part.places] += (own - own.mean()) * len(places) / len(own)
        total += float(own.mean())
    rows = (loss[places] + total) / len(parts)
    (figure,) = mean_losses(
        rows[:, None],
        codes[places],
        support=effective(codes[places]),
        greatest=np.ones(1),
        replicates=replicates,
        seed=seed,
    )
    return figure


def _codes(clusters: np.ndarray) -> np.ndarray:
    """Codes 0, 1, ... in the order of first occurrence, as each finding's own draws have them."""
    names, first, inverse = np.unique(clusters, return_index=True, return_inverse=True)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(names))
    return rank[inverse]
