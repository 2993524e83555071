"""Compares models on findings: every pair for each finding, corrected over findings, and the mean over findings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data.index import Patients
from chestxray.data.multiple_testing import holm
from chestxray.errors import DataError, InputError, nearest
from chestxray.evaluation import class_means
from chestxray.evaluation.finding_means import DRAWN, Drawn, replicates_of
from chestxray.evaluation.finding_predictions import FindingPredictions, Known, require_same_findings
from chestxray.evaluation.intervals import Figure, Interval, around
from chestxray.evaluation.metrics import points
from chestxray.evaluation.paired import trainings
from chestxray.evaluation.paired.candidate_figures import Estimated, estimated, widened
from chestxray.evaluation.paired.comparison import METHODS, compare, lettered, paired
from chestxray.evaluation.paired.comparison_result import Comparison, Standing
from chestxray.evaluation.paired.training_variance import over_folds
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.support import behind, effective, supports
from chestxray.evaluation.weighted_metrics import Key


@dataclass(frozen=True)
class FindingsComparison:
    """``mean`` compares the means over the findings that are scored; ``findings`` has the comparison of each, whose
    ``p_holm`` are corrected over all pairs of all findings. ``not_scored`` says why of the others.
    """

    metric: str
    mean: Comparison
    findings: Mapping[str, Comparison]
    not_scored: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the whole comparison, ready for JSON."""
        return {
            "task": "findings",
            "metric": self.metric,
            "mean": self.mean.to_json(),
            "findings": {name: one.to_json() for name, one in self.findings.items()},
            "not_scored": dict(self.not_scored),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the models by their mean, the best first, with the columns model, value, low, high, letters."""
        return self.mean.to_frame()

    def pairs_to_frame(self) -> pd.DataFrame:
        """Return the pairs of each finding, as `Comparison.pairs_to_frame`, with the column finding first."""
        tables = [one.pairs_to_frame().assign(finding=name) for name, one in self.findings.items()]
        table = pd.concat(tables, ignore_index=True)
        return table[["finding", *table.columns.drop("finding")]]

    def _repr_html_(self) -> str:
        """Tables for a notebook: the comparison of the means, and the pairs by finding."""
        return self.mean._repr_html_() + self.pairs_to_frame().round(3).to_html(index=False, na_rep="")


def compare_findings(
    predictions: Mapping[str, FindingPredictions | Sequence[FindingPredictions]],
    metric: str = "auroc",
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> FindingsComparison:
    """Compare models on the same rows of a test of findings.

    For each finding every pair is compared as by `comparison.compare`, on the rows where it is known, and p-values are
    corrected (Holm) over all pairs of all findings. The means over findings are compared by one bootstrap that draws
    the same patients for all models and findings, corrected over pairs. Findings of too few patients are not scored.

    Args:
        predictions: the test of each model by its name, or of each of its trainings; two models or more.
        metric: auroc, auprc, sensitivity, specificity, precision or f1.
        replicates: number of bootstrap replicates.
        seed: of the random draws.

    Raises:
        InputError: another metric; fewer than two models.
        DataError: predictions that cannot be evaluated, or whose images, labels or findings differ; no finding can be
            scored.
    """
    if metric not in DRAWN:
        known = ", ".join(DRAWN)
        raise InputError(f"Unknown metric of findings.{nearest(metric, DRAWN)} Allowed: {known}. Received: {metric!r}.")
    if len(predictions) < 2:
        raise InputError(f"A comparison needs two models or more. Received: {len(predictions)}.")
    repeated = {name: (p,) if isinstance(p, FindingPredictions) else tuple(p) for name, p in predictions.items()}
    if empty := [name for name, tables in repeated.items() if not tables]:
        raise InputError(f"Every model needs the predictions of a training or more. Without any: {', '.join(empty)}.")
    first = next(iter(repeated.values()))[0]
    for model, tables in repeated.items():
        for table in tables:
            require_same_findings(first.findings, table.findings, f"The tests of the first model and of {model}")
    too_few = {name: Known.of(first.of_finding(name), name).too_few for name in first.findings}
    scored = [name for name, reason in too_few.items() if not reason]
    if not scored:
        raise DataError(f"No finding can be compared: {', '.join(f'{n} has {r}' for n, r in too_few.items())}.")
    of_each = {
        name: compare(
            {model: [table.of_finding(name) for table in tables] for model, tables in repeated.items()},
            metric,
            positive=name,
            replicates=replicates,
            seed=seed,
        )
        for name in scored
    }
    mean = _compared_means(repeated, of_each, metric, replicates, seed)
    return FindingsComparison(metric, mean, _corrected(of_each), {n: r for n, r in too_few.items() if r})


def _corrected(of_each: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Return the comparisons with p-values corrected over all their pairs."""
    p_holm = iter(holm([pair.p for one in of_each.values() for pair in one.pairs]))
    found = {}
    for name, one in of_each.items():
        pairs = tuple(dataclasses.replace(pair, p_holm=next(p_holm)) for pair in one.pairs)
        found[name] = lettered(dataclasses.replace(one, pairs=pairs))
    return found


def _compared_means(
    repeated: Mapping[str, Sequence[FindingPredictions]],
    of_each: Mapping[str, Comparison],
    metric: str,
    replicates: int,
    seed: int,
) -> Comparison:
    aligned = {name: {model: _aligned(tables, name) for model, tables in repeated.items()} for name in of_each}
    some = next(iter(aligned.values()))
    first = min((table for tables in some.values() for table in tables), key=lambda t: len(np.unique(t.clusters)))
    clusters, design = first.clusters, trainings.design(some)
    models = []
    for model in repeated:
        tables = {name: aligned[name][model] for name in of_each}
        figures = [next(s.figure for s in one.standings if s.model == model) for one in of_each.values()]
        models.append(_mean_of(model, tables, figures, metric, design, clusters, replicates, seed))
    models.sort(key=lambda one: (np.isnan(one.value), -one.value))
    standings = tuple(Standing(one.model, one.figures[metric], "", one.figures, one.repeats) for one in models)
    pairs = paired(models, design, metric, None, clusters, None)
    interval = Interval(method=METHODS[design], replicates=replicates)
    patients = Patients.of(first.rows)
    return lettered(Comparison(metric, None, standings, pairs, len(clusters), patients, interval, design))


def _aligned(tables: Sequence[FindingPredictions], name: str) -> tuple[Predictions, ...]:
    """Return all rows of one finding, by path; the label is ``""`` where it is not known."""
    found = [table.of_finding_everywhere(name) for table in tables]
    return tuple(
        Predictions(t.rows.sort_values("path", kind="stable").reset_index(drop=True), t.classes) for t in found
    )


def _mean_of(
    model: str,
    of_findings: Mapping[str, Sequence[Predictions]],
    figures: Sequence[Figure],
    metric: str,
    design: trainings.Design,
    clusters: np.ndarray,
    replicates: int,
    seed: int,
) -> Estimated:
    """Return one model with the mean of its findings in place of a figure, each finding in place of a class.

    `figures` are those of the findings with their own intervals.
    """
    places = [np.flatnonzero((tables[0].rows["label"] != "").to_numpy()) for tables in of_findings.values()]
    if design == "folds":
        return _mean_of_folds(model, of_findings, metric, places, clusters)
    # Rows of which nothing is known take no part in the draws.
    anywhere = np.unique(np.concatenate(places))
    codes = np.full(len(clusters), -1)
    codes[anywhere] = pd.factorize(clusters[anywhere])[0]
    drawn, values, support, freedom, count = {}, [], [], [], len(next(iter(of_findings.values())))
    for i, (tables, known) in enumerate(zip(of_findings.values(), places, strict=True)):
        own = codes[known]
        for k, table in enumerate(tables):
            truth, called, given = table.truth[known], table.predicted[known], table.probabilities[known]
            drawn[i * count + k] = Drawn.of(truth, called, given[:, 1], own)
            values.append(points(truth, called, given, 1)[1, metric])
            size = supports(truth, called, own, 2, 1)
            support.append(size[1, metric])
            freedom.append(class_means.freedoms(size, behind(truth, called, given, own))[1, metric])
    found = replicates_of(drawn, int(codes.max()) + 1, replicates=replicates, seed=seed)
    of_trainings = np.stack([found[key, metric] for key in drawn]).reshape(len(places), count, replicates)
    single = np.array(values).reshape(len(places), count)
    if metric == "precision":
        # A finding that is never predicted has no precision of its own; in the mean it is 0.
        of_trainings, single = np.nan_to_num(of_trainings), np.nan_to_num(single)
    least = np.array(support).reshape(len(places), count).min(axis=1)
    patients = effective(codes[anywhere])
    keys: list[Key] = [(i, metric) for i in range(len(places))]
    figure = class_means.mean(
        float(single.mean()),
        keys,
        dict(zip(keys, figures, strict=True)),
        dict(zip(keys, of_trainings.mean(axis=1), strict=True)),
        dict(zip(keys, least.tolist(), strict=True)),
        dict(zip(keys, np.array(freedom).reshape(len(places), count).min(axis=1).tolist(), strict=True)),
        of_same_rows=True,
    )
    tables = tuple(next(iter(of_findings.values())))
    if count > 1:
        means = single.mean(axis=0), of_trainings.mean(axis=0)
        figure = widened(figure, *means, patients, design, tables, (0.0, 1.0))
    return Estimated(
        model=model,
        tables=tables,
        figures={metric: figure},
        values=single.mean(axis=0),
        replicates=of_trainings.mean(axis=0),
        support=patients,
        by_class=of_trainings.mean(axis=1),
        class_supports=least,
        folds=np.empty(0),
        test_ratios=np.empty(0),
        largest=1.0,
        repeats=tuple(single.mean(axis=0).tolist()),
    )


def _mean_of_folds(
    model: str,
    of_findings: Mapping[str, Sequence[Predictions]],
    metric: str,
    places: Sequence[np.ndarray],
    clusters: np.ndarray,
) -> Estimated:
    """Return the same for a cross-validation in which each image was tested once: means over the findings that a fold
    can score.
    """
    found = []
    for tables, known in zip(of_findings.values(), places, strict=True):
        own = tuple(Predictions(t.rows.iloc[known].reset_index(drop=True), t.classes) for t in tables)
        (one,) = estimated({model: own}, "folds", metric, 1, clusters[known], replicates=0, seed=0)
        found.append(one)
    table = np.stack([one.folds for one in found])
    known_folds = np.isfinite(table).any(axis=0)
    folds = np.full(table.shape[1], np.nan)
    folds[known_folds] = np.nanmean(table[:, known_folds], axis=0)
    values = np.mean([one.values for one in found], axis=0)
    ratios = trainings.ratios_of_test_to_training(next(iter(of_findings.values()))[0])
    spread = over_folds(folds, ratios)
    return dataclasses.replace(
        found[0],
        tables=tuple(next(iter(of_findings.values()))),
        figures={metric: around(float(values.mean()), spread.error, spread.freedom + 1)},
        values=values,
        folds=folds,
        test_ratios=ratios,
        support=effective(clusters),
        repeats=tuple(values.tolist()),
    )
