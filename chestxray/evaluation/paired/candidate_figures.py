"""Figures of compared models, each from one or several trainings, with intervals over patients and trainings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from chestxray.evaluation import published_metrics
from chestxray.evaluation.bootstrap import bootstrap
from chestxray.evaluation.calibration.calibration_error import calibration_error
from chestxray.evaluation.estimation import Scored, estimate
from chestxray.evaluation.evaluate import headline_class
from chestxray.evaluation.intervals import LEVEL, Figure, around
from chestxray.evaluation.metrics import points
from chestxray.evaluation.paired import trainings
from chestxray.evaluation.paired.training_variance import Spread, over_folds, over_folds_of_one_test, over_seeds
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.support import supports
from chestxray.evaluation.weighted_metrics import HEADLINE, Key, Table

#: Name of a mean over classes -> the figure of single classes that it averages.
_MEAN_OF = {"balanced_accuracy": "sensitivity", "f1_macro": "f1"}
#: Figures that are means over classes where there are more than two.
_AVERAGED = ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc")


@dataclass(frozen=True)
class Estimated:
    """The figures of one model on the test, from its trainings, whose predictions are ``tables``.

    ``values``, float (trainings,), is the compared figure of each training, ``replicates``, float (trainings,
    replicates), the same in each bootstrap replicate, ``support`` its effective number of patients, and ``largest``
    its greatest possible value minus its least. Where the compared figure is a mean over classes, ``by_class``, float
    (classes, replicates), holds the replicates of each class and ``class_supports``, float (classes,), their
    effective numbers of patients; both are empty otherwise. ``of_same_rows`` says that these are of the same patients,
    as findings are, so that they are correlated. In a cross-validation, ``folds``, float (folds,), is the
    mean over seeds in each fold and ``test_ratios`` the result of `trainings.ratios_of_test_to_training`; both are
    empty otherwise.

    ``figures`` holds all of `HEADLINE` and the compared figure. ``repeats`` holds the value that is shown for each
    training: the compared figure or, for the expected calibration error, the one corrected for bias (differences need
    no correction, since both models have the bias).
    """

    model: str
    tables: tuple[Predictions, ...]
    figures: Mapping[str, Figure]
    values: np.ndarray
    replicates: np.ndarray
    support: float
    by_class: np.ndarray
    class_supports: np.ndarray
    folds: np.ndarray
    test_ratios: np.ndarray
    largest: float
    repeats: tuple[float | None, ...]
    of_same_rows: bool = False

    @property
    def value(self) -> float:
        """The compared figure: the mean over the trainings; NaN where it cannot be computed."""
        return float(self.values.mean())

    def spread(self) -> Spread:
        """Return the standard error of ``value`` over patients and seeds."""
        covariance = covariance_of_replicates(self.replicates) * inflation(self.support)
        return over_seeds([self.values], [1], covariance, self.support - 1)


def estimated(
    aligned: Mapping[str, Sequence[Predictions]],
    design: trainings.Design,
    metric: str,
    chosen: int | None,
    clusters: np.ndarray,
    *,
    replicates: int,
    seed: int,
) -> list[Estimated]:
    """Return every model with its figures, the best by `metric` first, models without that figure last.

    `aligned` are the trainings of each model on the same rows in the same order; the other arguments are
    those of `comparison.compare`, `chosen` is the number of the positive class, `clusters` are codes of the
    patients, int (rows,).
    """
    metrics = published_metrics.of_name(metric)
    if design == "folds":
        found = [
            _cross_validated(model, tables, metric, chosen, clusters, metrics) for model, tables in aligned.items()
        ]
    else:
        parts = [(p.truth, p.predicted, p.probabilities) for tables in aligned.values() for p in tables]
        drawn = bootstrap([Table.of(*part, chosen) for part in parts], clusters, replicates=replicates, seed=seed)
        given = iter(drawn)
        found = [
            _repeated(
                model,
                tables,
                [next(given) for _ in tables],
                design,
                metric,
                chosen,
                clusters,
                replicates,
                seed,
                metrics,
            )
            for model, tables in aligned.items()
        ]
    sign = 1 if published_metrics.lower_is_better(metric) else -1
    return sorted(found, key=lambda one: (math.isnan(one.value), sign * one.value))


def cross_validated(table: Predictions, positive: str | None, metrics: Sequence[str] = ()) -> Mapping[str, Figure]:
    """Return every figure of `HEADLINE` and of the plugins `metrics` as the mean over the folds of one
    cross-validation, with its interval.

    `table` has the fold of each row in a column, see `trainings.marked`. Raises as `headline_class`.
    """
    chosen = headline_class(table.classes, positive)
    further = published_metrics.loaded(metrics)
    return _cross_validated("", (table,), "auroc", chosen, table.clusters, further).figures


def _repeated(
    model: str,
    tables: Sequence[Predictions],
    replicated: Sequence[Mapping[Key, np.ndarray]],
    design: trainings.Design,
    metric: str,
    chosen: int | None,
    clusters: np.ndarray,
    draws: int,
    seed: int,
    metrics: Sequence[published_metrics.Metric] = (),
) -> Estimated:
    """Return the figures of a model whose trainings were all tested on the same rows."""
    classes = len(tables[0].classes)
    of_model = [(p.truth, p.predicted, p.probabilities) for p in tables]
    values = [points(*part, chosen) for part in of_model]
    supported = [supports(part[0], part[1], clusters, classes, chosen) for part in of_model]
    scored = [Scored(*parts) for parts in zip(*zip(*of_model, strict=True), values, replicated, strict=True)]
    estimates = estimate(scored, clusters, chosen, replicates=draws, seed=seed)
    of_plugins = [
        published_metrics.measured(metrics, part[0], part[2], clusters, chosen, replicates=draws, seed=seed)
        for part in of_model
    ]
    values = [one | dict(more.values) for one, more in zip(values, of_plugins, strict=True)]
    replicated = [dict(one) | dict(more.replicates) for one, more in zip(replicated, of_plugins, strict=True)]
    supported = [one | dict(more.support) for one, more in zip(supported, of_plugins, strict=True)]
    known = dict(estimates.figures) | published_metrics.figures(metrics, of_plugins, of_model[0][0], chosen)
    figures: dict[str, Figure] = {}
    for name in (*HEADLINE, *(one.name for one in metrics)):
        key = (None, name)
        support = min(one[key] for one in supported)
        single = np.array([one[key] for one in values])
        replicates = np.stack([one[key] for one in replicated])
        figure = known[key]
        if len(tables) > 1:
            figure = widened(
                figure, single, replicates, support, design, tables, published_metrics.bounds(key, classes, metrics)
            )
        figures[name] = figure
    own = (None, metric)
    averaged = _classes_of(metric, chosen, metrics)
    present = [k for k in range(classes) if averaged and (of_model[0][0] == k).any()]
    by_class = [np.mean([one[k, averaged] for one in replicated], axis=0) for k in present]
    least, greatest = published_metrics.bounds(own, classes, metrics)
    return Estimated(
        model=model,
        tables=tuple(tables),
        figures=figures,
        values=np.array([one[own] for one in values]),
        replicates=np.stack([one[own] for one in replicated]),
        support=min(one[own] for one in supported),
        # A class that is never predicted has no precision of its own; in the mean it is 0.
        by_class=np.nan_to_num(by_class) if averaged == "precision" else np.array(by_class),
        class_supports=np.array([min(one[k, averaged] for one in supported) for k in present]),
        folds=np.empty(0),
        test_ratios=np.empty(0),
        largest=greatest - least,
        repeats=_finite_or_none([one[own] for one in values])
        if metric != "ece"
        else tuple(error.corrected.value for error in estimates.calibration_errors),
    )


def _cross_validated(
    model: str,
    tables: Sequence[Predictions],
    metric: str,
    chosen: int | None,
    clusters: np.ndarray,
    metrics: Sequence[published_metrics.Metric] = (),
) -> Estimated:
    """Return the figures of a cross-validated model, each of whose folds was tested on rows of its own."""
    classes = len(tables[0].classes)
    parts, test_ratios = (
        trainings.parts(tables[0]),
        np.mean([trainings.ratios_of_test_to_training(table) for table in tables], axis=0),
    )
    found = [
        [
            points(p.truth[rows], p.predicted[rows], p.probabilities[rows], chosen)
            | published_metrics.points(metrics, p.truth[rows], p.probabilities[rows], chosen)
            for rows in parts
        ]
        for p in tables
    ]
    support = supports(tables[0].truth, tables[0].predicted, clusters, classes, chosen)
    for one in metrics:
        support |= one.supports(tables[0].truth, clusters, classes, chosen)
    figures, values = {}, {}
    for name in (*HEADLINE, *(one.name for one in metrics)):
        key = (None, name)
        values[name] = np.array([[fold[key] for fold in table] for table in found])
        if name == "ece":
            values[name] = np.array([[_unbiased(p, rows, clusters) for rows in parts] for p in tables])
        spread = over_folds(values[name].mean(axis=0), test_ratios)
        least, greatest = published_metrics.bounds(key, classes, metrics)
        ended = min(spread.value - least, greatest - spread.value) <= 1e-12
        figures[name] = around(
            spread.value, spread.error, support[key] if ended else spread.freedom + 1, (least, greatest)
        )
    least, greatest = published_metrics.bounds((None, metric), classes, metrics)
    own = values[metric]
    known = np.isfinite(own).all(axis=0)
    return Estimated(
        model=model,
        tables=tuple(tables),
        figures=figures,
        values=own[:, known].mean(axis=1) if known.any() else np.full(len(own), np.nan),
        replicates=np.empty((len(tables), 0)),
        support=support[None, metric],
        by_class=np.empty((0, 0)),
        class_supports=np.empty(0),
        folds=own.mean(axis=0),
        test_ratios=test_ratios,
        largest=greatest - least,
        repeats=_finite_or_none(own.mean(axis=1)),
    )


def _unbiased(table: Predictions, rows: np.ndarray, clusters: np.ndarray) -> float:
    """Return the expected calibration error of some rows, corrected for the bias of small numbers."""
    probabilities = table.probabilities[rows]
    right = probabilities.argmax(axis=1) == table.truth[rows]
    patients = np.unique(clusters[rows], return_inverse=True)[1]
    error = calibration_error(probabilities.max(axis=1), right, patients, replicates=1000, seed=0)
    return math.nan if error.corrected.value is None else error.corrected.value


def _finite_or_none(values: Iterable[float]) -> tuple[float | None, ...]:
    return tuple(float(value) if np.isfinite(value) else None for value in values)


def _classes_of(metric: str, chosen: int | None, metrics: Sequence[published_metrics.Metric]) -> str:
    """Return the figure of single classes that `metric` is the mean of, "" where it is not a mean over classes."""
    averaged = (*_AVERAGED, *(one.name for one in metrics if one.plugin.per == "class"))
    return _MEAN_OF.get(metric, metric if chosen is None and metric in averaged else "")


def inflation(support: float) -> float:
    """Return m / (m - 1): drawing `support` = m patients understates the variance by (m - 1) / m."""
    return support / (support - 1) if support > 1 else math.nan


def covariance_of_replicates(replicates: np.ndarray) -> np.ndarray:
    """Return the covariance of the rows of float (figures, replicates), over the replicates in which all are finite."""
    finite = replicates[:, np.isfinite(replicates).all(axis=0)]
    if finite.shape[1] < 2:
        return np.full((len(replicates),) * 2, np.nan)
    return np.atleast_2d(np.cov(finite))


def widened(
    figure: Figure,
    values: np.ndarray,
    replicates: np.ndarray,
    support: float,
    design: trainings.Design,
    tables: Sequence[Predictions],
    limits: tuple[float, float],
) -> Figure:
    """Return `figure`, whose interval is over patients alone, with an interval over patients and trainings."""
    covariance = covariance_of_replicates(replicates) * inflation(support)
    if figure.value is None or figure.low is None or figure.high is None or not np.isfinite(covariance).all():
        return figure
    if design == "folds of one test":
        gathered = covariance_of_replicates(trainings.by_fold(tables, replicates)) * inflation(support)
        spread = over_folds_of_one_test(trainings.by_fold(tables, values), gathered, support - 1)
    else:
        spread = over_seeds([values], [1], covariance, support - 1)
    alone = math.sqrt(max(float(covariance.mean()), 0.0)) * _quantile(support - 1)
    least, greatest = limits
    if not alone > 0 or min(figure.value - least, greatest - figure.value) <= 1e-12:
        return figure
    times = max(1.0, spread.error * _quantile(spread.freedom) / alone)
    low, high = (_moved(figure.value, end, times, limits) for end in (figure.low, figure.high))
    return Figure(figure.value, low, high)


def _moved(value: float, end: float, times: float, limits: tuple[float, float]) -> float:
    """Return `end` moved away from `value` to `times` its distance on the logit scale."""
    least, greatest = limits
    middle, edge = (_logit((x - least) / (greatest - least)) for x in (value, end))
    moved = middle + times * (edge - middle)
    return least + (greatest - least) * 0.5 * (1 + math.tanh(moved / 2))


def _logit(share: float) -> float:
    inside = min(max(share, 1e-15), 1 - 1e-15)
    return math.log(inside / (1 - inside))


def _quantile(freedom: float) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom)) if freedom > 0 else math.inf
