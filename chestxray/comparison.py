"""Predictions of many models on the same rows -> Comparison: which of them differ, and by how much."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from chestxray.bootstrap import bootstrap
from chestxray.errors import DataError, InputError, nearest
from chestxray.evaluation import check, headline_class, span, supports
from chestxray.index import Patients
from chestxray.intervals import LEVEL, Figure, Interval, logit_t, standard_error
from chestxray.paired import ALPHA, PairedTest, accuracy_test, auroc_test, holm, letters
from chestxray.points import points
from chestxray.prediction import Predictions
from chestxray.standings import Comparison, Pair, Standing
from chestxray.weighted import HEADLINE, LOSSES, Table


@dataclass(frozen=True)
class _Contender:
    model: str
    tables: tuple[Predictions, ...]
    values: np.ndarray
    replicates: np.ndarray
    support: float
    figures: Mapping[str, Figure]

    @property
    def value(self) -> float:
        return float(self.values.mean())


def compare(
    predictions: Mapping[str, Predictions | Sequence[Predictions]],
    metric: str = "auroc",
    *,
    positive: str | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare models on the same rows of a test, each pair by a paired test.

    Differences have intervals from a bootstrap in which each replicate draws the same patients for all
    models. The p-value is DeLong's for the AUROC of two classes, McNemar's for accuracy, both clustered
    by patient where patients have several rows, and the bootstrap's for everything else (a mean of
    AUROCs over more than two classes too). Holm's correction goes over all pairs.

    Where a model was trained several times, with several seeds say, its figure is the mean over the
    trainings, taken anew in every replicate, and the p-value of its pairs is the bootstrap's. Intervals
    and p-values then speak of other patients and these trainings; ``repeats`` shows how these spread.

    Args:
        predictions: the test of each model by its name, or of each of its trainings; two models or more.
        metric: one of `HEADLINE`.
        positive: of two classes, the one that sensitivity and its kin speak of; default: the abnormal one.
        replicates: number of bootstrap replicates.
        seed: fixes the draws.

    Raises:
        InputError: an unknown metric or class; fewer than two models.
        DataError: predictions that cannot be evaluated, or that are of other images, labels or classes.

    >>> compare({"vgg16": one, "resnet50": other}).to_frame()  # doctest: +SKIP
          model  value    low   high letters
    0  resnet50  0.961  0.941  0.974       a
    1     vgg16  0.957  0.936  0.971       a
    """
    check_metric(metric)
    if len(predictions) < 2:
        raise InputError(f"A comparison needs two models or more. Received: {len(predictions)}.")
    repeated = {name: (p,) if isinstance(p, Predictions) else tuple(p) for name, p in predictions.items()}
    if empty := [name for name, tables in repeated.items() if not tables]:
        raise InputError(f"Every model needs the predictions of a training or more. Without any: {', '.join(empty)}.")
    flat = align({_label(n, i, len(t)): table for n, t in repeated.items() for i, table in enumerate(t)})
    tables = iter(flat.values())
    aligned = {name: tuple(next(tables) for _ in t) for name, t in repeated.items()}
    some = next(iter(flat.values()))
    chosen = headline_class(some.classes, positive)
    # Where the tables know the patients differently, the fewest and so largest groups are the careful choice.
    known = min(flat.values(), key=lambda p: len(np.unique(p.clusters)))
    clusters = known.clusters
    contenders = _contenders(aligned, metric, chosen, clusters, replicates, seed)
    pairs = _pairs(contenders, metric, chosen, clusters)
    order = {c.model: i for i, c in enumerate(contenders)}
    different = [(order[p.first], order[p.second]) for p in pairs if p.p_holm is not None and p.p_holm < ALPHA]
    shared = letters(len(contenders), different)
    return Comparison(
        metric=metric,
        positive=None if chosen is None else some.classes[chosen],
        standings=tuple(_standing(c, metric, marks) for c, marks in zip(contenders, shared, strict=True)),
        pairs=pairs,
        rows=len(clusters),
        patients=Patients.of(known.rows),
        interval=Interval(replicates=replicates),
    )


def _label(model: str, training: int, trainings: int) -> str:
    return model if trainings == 1 else f"{model} (training {training + 1} of {trainings})"


def _standing(contender: _Contender, metric: str, marks: str) -> Standing:
    values = tuple(None if math.isnan(value) else float(value) for value in contender.values)
    return Standing(contender.model, contender.figures[metric], marks, contender.figures, values)


def check_metric(metric: str) -> None:
    """Raises `InputError` unless `metric` is one of `HEADLINE`."""
    if metric not in HEADLINE:
        known = ", ".join(HEADLINE)
        raise InputError(f"Unknown metric.{nearest(metric, HEADLINE)} Allowed: {known}. Received: {metric!r}.")


def align(predictions: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """The same predictions with rows and classes in one order.

    Raises:
        DataError: they cannot be evaluated, or are not of the same images, labels and classes.
    """
    aligned: dict[str, Predictions] = {}
    for model, table in predictions.items():
        check(table)
        rows = table.rows.sort_values("path", kind="stable").reset_index(drop=True)
        first, other = next(iter(aligned.items()), (model, table))
        if set(table.classes) != set(other.classes):
            raise DataError(
                f"{first} and {model} know different classes, so they do not compare. "
                f"{first}: {', '.join(other.classes)}. {model}: {', '.join(table.classes)}."
            )
        aligned[model] = Predictions(rows, other.classes)
        _require_same_rows(first, aligned[first].rows, model, rows)
    if not len(next(iter(aligned.values())).rows):
        raise DataError("There are no rows to compare models on.")
    return aligned


def _require_same_rows(first: str, here: pd.DataFrame, second: str, there: pd.DataFrame) -> None:
    paths, others = set(here["path"]), set(there["path"])
    if paths != others or len(here) != len(there):
        odd = sorted(paths ^ others) or sorted(there["path"])
        raise DataError(
            f"{first} and {second} were tested on different images, so they do not compare: "
            f"{len(paths - others)} only by {first}, {len(others - paths)} only by {second}, "
            f"{len(here)} and {len(there)} rows; see {odd[0]}."
        )
    unlike = here["label"].to_numpy() != there["label"].to_numpy()
    if unlike.any():
        raise DataError(
            f"{first} and {second} have different labels for {int(unlike.sum())} images, so they do not "
            f"compare; see {here['path'][unlike].iloc[0]}."
        )


def _contenders(
    aligned: Mapping[str, Sequence[Predictions]],
    metric: str,
    chosen: int | None,
    clusters: np.ndarray,
    replicates: int,
    seed: int,
) -> list[_Contender]:
    """Every model with its figures and their replicates, the best first, those without figure last."""
    parts = [(p.truth, p.predicted, p.probabilities) for tables in aligned.values() for p in tables]
    drawn = iter(bootstrap([Table.of(*part, chosen) for part in parts], clusters, replicates=replicates, seed=seed))
    known = iter(parts)
    contenders = []
    for model, tables in aligned.items():
        of_model = [next(known) for _ in tables]
        replicated = [next(drawn) for _ in tables]
        classes = len(tables[0].classes)
        values = [points(*part, chosen) for part in of_model]
        supported = [supports(part[0], part[1], clusters, classes, chosen) for part in of_model]
        means: dict[str, np.ndarray] = {}
        figures: dict[str, Figure] = {}
        for name in HEADLINE:
            key = (None, name)
            means[name] = np.mean([one[key] for one in replicated], axis=0)
            support = min(one[key] for one in supported)
            value = float(np.mean([one[key] for one in values]))
            figures[name] = logit_t(value, means[name], support, span(key, classes))
        own = (None, metric)
        contenders.append(
            _Contender(
                model=model,
                tables=tuple(tables),
                values=np.array([one[own] for one in values]),
                replicates=means[metric],
                support=min(one[own] for one in supported),
                figures=figures,
            )
        )
    sign = 1 if metric in LOSSES else -1
    return sorted(contenders, key=lambda c: (math.isnan(c.value), sign * c.value))


def _pairs(contenders: Sequence[_Contender], metric: str, chosen: int | None, clusters: np.ndarray) -> tuple[Pair, ...]:
    found = []
    for one, other in itertools.combinations(contenders, 2):
        gap, test = _gap(one, other)
        if len(one.tables) == len(other.tables) == 1:
            test = _classical(one.tables[0], other.tables[0], metric, chosen, clusters) or test
        found.append((one.model, other.model, gap, test))
    corrected = holm([test.p for *_, test in found])
    return tuple(
        Pair(first, second, gap, test.name, test.p, p_holm)
        for (first, second, gap, test), p_holm in zip(found, corrected, strict=True)
    )


def _classical(
    one: Predictions, other: Predictions, metric: str, chosen: int | None, clusters: np.ndarray
) -> PairedTest | None:
    """The test of the books for two tables, None where there is none for this figure."""
    if metric == "accuracy":
        return accuracy_test(one.predicted == one.truth, other.predicted == other.truth, clusters)
    if metric == "auroc" and chosen is not None:
        scores = [table.probabilities[:, chosen] for table in (one, other)]
        return auroc_test(one.truth == chosen, scores[0], scores[1], clusters)
    return None


def _gap(one: _Contender, other: _Contender) -> tuple[Figure, PairedTest]:
    """Difference of two models with its interval, and the test that goes with it."""
    name = "paired bootstrap clustered by patient"
    value = one.value - other.value
    if math.isnan(value):
        return Figure(None, None, None), PairedTest(None, name)
    support = min(one.support, other.support)
    error = standard_error(one.replicates - other.replicates, support)
    if not error > 1e-12:
        return Figure(value, None, None), PairedTest(1.0 if abs(value) < 1e-12 else None, name)
    half = float(stats.t.ppf((1 + LEVEL) / 2, support - 1)) * error
    p = float(2 * stats.t.sf(abs(value) / error, support - 1))
    return Figure(value, value - half, value + half), PairedTest(p, name)
