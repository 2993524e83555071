"""Compares the means of models over findings: one bootstrap draws the same patients for all models and findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from chestxray.data.index import Patients
from chestxray.evaluation import class_means, published_metrics
from chestxray.evaluation.finding_means import DRAWN, Drawn, replicates_of
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.intervals import Figure, Interval, around
from chestxray.evaluation.metrics import points
from chestxray.evaluation.paired import trainings
from chestxray.evaluation.paired.candidate_figures import Estimated, widened
from chestxray.evaluation.paired.comparison import METHODS, lettered, paired
from chestxray.evaluation.paired.comparison_result import Comparison, Standing
from chestxray.evaluation.paired.training_variance import over_folds
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.published_metrics import Metric, bounds, lower_is_better
from chestxray.evaluation.support import behind, effective, supports
from chestxray.evaluation.weighted_metrics import Key


@dataclass(frozen=True)
class _Rows:
    """The test rows of all models: ``known``, int (rows,) of each finding, are the rows where it is known, ``codes``,
    int (all rows,), those of the patients; rows of which nothing is known have -1 and take no part in the draws.
    """

    known: Mapping[str, np.ndarray]
    codes: np.ndarray

    @classmethod
    def of(cls, tables: Sequence[FindingPredictions], findings: Sequence[str]) -> _Rows:
        # Where the tables group patients differently, the fewest and so largest groups are the conservative choice.
        clusters = min((table.clusters for table in tables), key=lambda codes: len(np.unique(codes)))
        truth = tables[0].truth[:, [tables[0].findings.index(name) for name in findings]]
        known = {name: np.flatnonzero(~np.isnan(column)) for name, column in zip(findings, truth.T, strict=True)}
        anywhere = np.unique(np.concatenate(list(known.values())))
        codes = np.full(len(clusters), -1)
        codes[anywhere] = pd.factorize(clusters[anywhere])[0]
        return cls(known, codes)

    @property
    def support(self) -> float:
        """Effective number of the patients of whom something is known."""
        return effective(self.codes[self.codes >= 0])


def compared(
    aligned: Mapping[str, Sequence[FindingPredictions]],
    of_each: Mapping[str, Comparison],
    metric: str,
    margin: float | None,
    *,
    replicates: int,
    seed: int,
) -> Comparison:
    """Return the comparison of the means over the findings of `of_each`, which has the comparison of each.

    A finding that is never predicted has precision 0 here, as in means over classes. `aligned` are the trainings of
    each model on the same rows in the same order; other arguments as of `finding_comparison.compare_findings`.
    """
    every = [table for tables in aligned.values() for table in tables]
    rows = _Rows.of(every, list(of_each))
    some = next(iter(of_each))
    whole = {model: [table.of_finding_everywhere(some) for table in tables] for model, tables in aligned.items()}
    design = trainings.design(whole)
    metrics = published_metrics.of_name(metric)
    models = []
    for model, tables in aligned.items():
        if design == "folds":
            models.append(_mean_of_folds(model, tables, whole[model], metric, rows, metrics))
            continue
        own = {name: next(s.figures for s in one.standings if s.model == model) for name, one in of_each.items()}
        scored = _scored(tables, rows, replicates, seed, metrics)
        models.append(_mean_of(model, scored, whole[model], own, metric, design, rows, metrics))
    sign = 1 if lower_is_better(metric) else -1
    models.sort(key=lambda one: (np.isnan(one.value), sign * one.value))
    # The paired tests take all else from the models.
    pairs = paired(models, design, metric, None, rows.codes, margin)
    standings = tuple(Standing(one.model, one.figures[metric], "", one.figures, one.repeats) for one in models)
    interval = Interval(method=METHODS[design], replicates=replicates)
    patients = Patients.of(every[0].rows[rows.codes >= 0])
    count = int((rows.codes >= 0).sum())
    return lettered(Comparison(metric, None, standings, pairs, count, patients, interval, design, margin))


def estimated_mean(
    model: str,
    tables: Sequence[FindingPredictions],
    own: Mapping[str, Mapping[str, Figure]],
    metric: str,
    *,
    replicates: int,
    seed: int,
) -> Estimated:
    """Return one model, of one training or several seeds, with the means over the findings of `own`, which has the
    figures of each. `tables` have the same rows in the same order.
    """
    rows = _Rows.of(tables, list(own))
    whole = [table.of_finding_everywhere(next(iter(own))) for table in tables]
    scored = _scored(tables, rows, replicates, seed)
    return _mean_of(model, scored, whole, own, metric, "seeds" if len(tables) > 1 else "one", rows)


@dataclass(frozen=True)
class _Scored:
    """A figure of every finding and training of one model: ``values``, ``support`` and ``freedom``, float (findings,
    trainings), and ``replicates``, float (findings, trainings, replicates). ``span`` has its least and greatest
    possible value.
    """

    values: np.ndarray
    support: np.ndarray
    freedom: np.ndarray
    replicates: np.ndarray
    span: tuple[float, float]

    @property
    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """The means over findings: of each training, float (trainings,), and in each draw of it."""
        return self.values.mean(axis=0), self.replicates.mean(axis=0)

    def figure(self, name: str, own: Sequence[Figure]) -> Figure:
        """Return the mean over findings and trainings with its interval over patients; `own` are those of findings."""
        keys: list[Key] = [(i, name) for i in range(len(self.values))]
        drawn, support, freedom = self.replicates.mean(axis=1), self.support.min(axis=1), self.freedom.min(axis=1)
        return class_means.mean(
            float(self.values.mean()),
            keys,
            dict(zip(keys, own, strict=True)),
            dict(zip(keys, drawn, strict=True)),
            dict(zip(keys, support.tolist(), strict=True)),
            dict(zip(keys, freedom.tolist(), strict=True)),
            of_same_rows=True,
            span=self.span,
        )


def _names(metrics: Sequence[Metric]) -> tuple[str, ...]:
    return (*DRAWN, *(metric.name for metric in metrics))


def _scored(
    tables: Sequence[FindingPredictions], rows: _Rows, replicates: int, seed: int, metrics: Sequence[Metric] = ()
) -> dict[str, _Scored]:
    """Return each figure of `DRAWN` and of the plugins `metrics` of one model."""
    drawn: dict[int, Drawn] = {}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in _names(metrics)}
    for name, known in rows.known.items():
        own = rows.codes[known]
        for table in tables:
            one = table.of_finding(name)
            given = one.truth, one.predicted, one.probabilities
            drawn[len(drawn)] = Drawn.of(given[0], given[1], given[2][:, 1], own, metrics)
            single, support = points(*given, 1), supports(given[0], given[1], own, 2, 1)
            freedom = class_means.freedoms(support, behind(*given, own))
            theirs = published_metrics.points(metrics, given[0], given[2], 1)
            for metric in metrics:
                size = metric.supports(given[0], own, 2, 1)[None, metric.name]
                found[metric.name].append((theirs[None, metric.name], size, size - 1))
            for figure in DRAWN:
                found[figure].append((single[1, figure], support[1, figure], freedom[1, figure]))
    draws = replicates_of(drawn, int(rows.codes.max()) + 1, replicates=replicates, seed=seed)
    shape = len(rows.known), len(tables)
    scored = {}
    for figure, each in found.items():
        values, sizes, free = np.array(each).T.reshape(3, *shape)
        of_draws = np.stack([draws[key, figure] for key in drawn]).reshape(*shape, replicates)
        if figure == "precision":
            # A finding that is never predicted has no precision of its own; in the mean it is 0.
            values, of_draws = np.nan_to_num(values), np.nan_to_num(of_draws)
        scored[figure] = _Scored(values, sizes, free, of_draws, bounds((None, figure), 2, metrics))
    return scored


def _mean_of(
    model: str,
    scored: Mapping[str, _Scored],
    whole: Sequence[Predictions],
    own: Mapping[str, Mapping[str, Figure]],
    metric: str,
    design: trainings.Design,
    rows: _Rows,
    metrics: Sequence[Metric] = (),
) -> Estimated:
    """Return one model with the mean over its findings in place of a figure, each finding in place of a class.

    `own` are the figures of each finding; `whole`, a table for each training, says the folds.
    """
    figures = {}
    for name, one in scored.items():
        figures[name] = one.figure(name, [figures_of[name] for figures_of in own.values()])
        if len(whole) > 1:
            figures[name] = widened(figures[name], *one.means, rows.support, design, whole, one.span)
    values, drawn = scored[metric].means
    least, greatest = bounds((None, metric), 2, metrics)
    return Estimated(
        model=model,
        tables=tuple(whole),
        figures=figures,
        values=values,
        replicates=drawn,
        support=rows.support,
        by_class=scored[metric].replicates.mean(axis=1),
        class_supports=scored[metric].support.min(axis=1),
        of_same_rows=True,
        folds=np.empty(0),
        test_ratios=np.empty(0),
        largest=greatest - least,
        repeats=tuple(values.tolist()),
    )


def _mean_of_folds(
    model: str,
    tables: Sequence[FindingPredictions],
    whole: Sequence[Predictions],
    metric: str,
    rows: _Rows,
    metrics: Sequence[Metric],
) -> Estimated:
    """Return the same for a cross-validation in which each image was tested once: the mean over the folds of the mean
    over the findings that each fold can score.
    """
    of_folds = trainings.parts(whole[0])
    ratios = np.mean([trainings.ratios_of_test_to_training(table) for table in whole], axis=0)
    found = {figure: np.full((len(tables), len(rows.known), len(of_folds)), np.nan) for figure in _names(metrics)}
    for i, table in enumerate(tables):
        for k, name in enumerate(rows.known):
            one = table.of_finding(name)
            for j, fold in enumerate(of_folds):
                own = np.isin(one.rows.index, fold)
                if own.any():
                    single = points(one.truth[own], one.predicted[own], one.probabilities[own], 1)
                    theirs = published_metrics.points(metrics, one.truth[own], one.probabilities[own], 1)
                    for further in metrics:
                        found[further.name][i, k, j] = theirs[None, further.name]
                    for figure in DRAWN:
                        found[figure][i, k, j] = single[1, figure]
                        if figure == "precision" and np.isfinite(single[1, "sensitivity"]):
                            found[figure][i, k, j] = np.nan_to_num(single[1, figure])
    figures: dict[str, Figure] = {}
    for figure in found:
        spread = over_folds(_means_of_known(found[figure]).mean(axis=0), ratios)
        limits = bounds((None, figure), 2, metrics)
        figures[figure] = around(spread.value, spread.error, spread.freedom + 1, limits)
    least, greatest = bounds((None, metric), 2, metrics)
    of_seeds = _means_of_known(found[metric])
    finite = np.isfinite(of_seeds).all(axis=0)
    values = of_seeds[:, finite].mean(axis=1) if finite.any() else np.full(len(tables), np.nan)
    return Estimated(
        model=model,
        tables=tuple(whole),
        figures=figures,
        values=values,
        replicates=np.empty((len(tables), 0)),
        support=rows.support,
        by_class=np.empty((0, 0)),
        class_supports=np.empty(0),
        of_same_rows=True,
        folds=of_seeds.mean(axis=0),
        test_ratios=ratios,
        largest=greatest - least,
        repeats=tuple(float(value) if np.isfinite(value) else None for value in values),
    )


def _means_of_known(values: np.ndarray) -> np.ndarray:
    """Return the means over findings of float (trainings, findings, folds), NaN where a fold can score none."""
    finite = np.isfinite(values)
    count = finite.sum(axis=1)
    return np.where(count > 0, np.where(finite, values, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
