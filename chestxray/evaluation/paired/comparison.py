"""Compares the predictions of models on the same rows: differences with intervals, p-values and a ranking."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from chestxray.data.index import Patients
from chestxray.data.multiple_testing import holm
from chestxray.errors import DataError, InputError, nearest
from chestxray.evaluation.evaluate import check, headline_class
from chestxray.evaluation.intervals import METHOD, Interval
from chestxray.evaluation.paired import trainings
from chestxray.evaluation.paired.candidate_figures import Estimated, estimated
from chestxray.evaluation.paired.candidate_tests import tested
from chestxray.evaluation.paired.comparison_result import Comparison, Margin, Pair, Standing
from chestxray.evaluation.paired.letters import letters
from chestxray.evaluation.paired.p_value_function import DifferenceTest
from chestxray.evaluation.paired.paired_tests import accuracy_test, auroc_test
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.published_metrics import lower_is_better, of_name
from chestxray.evaluation.weighted_metrics import HEADLINE

#: Method of the intervals, by the design of the trainings.
METHODS = {
    "one": METHOD,
    "seeds": f"{METHOD}, with seeds drawn at random",
    "folds": "corrected resampled t over folds",
    "folds of one test": f"{METHOD}, with folds drawn at random",
}


def compare(
    predictions: Mapping[str, Predictions | Sequence[Predictions]],
    metric: str = "auroc",
    *,
    positive: str | None = None,
    margin: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare models on the same rows of a test, each pair by a paired test.

    A pair's interval and its p-value come from one method: DeLong's test for the AUROC of two classes and
    McNemar's mid-p for accuracy, both clustered by patient where patients have several rows, and for other
    figures a bootstrap in which each replicate draws the same patients for all models. p-values are corrected
    over all pairs (Holm). p-values and intervals refer to these trained models.

    Where a model was trained several times, its figure is the mean over the trainings. These are a random sample,
    as the patients are (`training_variance`): seeds, or the folds of a cross-validation, given by the column
    ``fold`` of the predictions. In a cross-validation in which each image was tested once, figures are means over
    the folds. ``Standing.repeats`` holds the figure of each training; ``Comparison.scope`` says which population
    p-values and intervals refer to.

    Args:
        predictions: the test of each model by its name, or of each of its trainings; two models or more.
        metric: one of `HEADLINE`, or the name of a plugin's (`MetricPlugin`).
        positive: of two classes, the one for which sensitivity, specificity, precision, F1, AUROC and AUPRC are
            computed; default: the abnormal one.
        margin: the non-inferiority margin, the largest difference without clinical relevance, above 0 and below 1;
            with it, non-inferiority and equivalence are tested.
        replicates: number of bootstrap replicates.
        seed: of the random draws.

    Raises:
        InputError: an unknown metric or class; fewer than two models; an impossible margin.
        DataError: predictions that cannot be evaluated, or whose images, labels or classes differ.

    >>> compare({"vgg16": one, "resnet50": other}).to_frame()  # doctest: +SKIP
          model  value    low   high letters
    0  resnet50  0.961  0.941  0.974       a
    1     vgg16  0.957  0.936  0.971       a
    """
    of_name(metric)  # said before anything is computed
    check_margin(margin)
    if len(predictions) < 2:
        raise InputError(f"A comparison needs two models or more. Received: {len(predictions)}.")
    repeated = {name: (p,) if isinstance(p, Predictions) else tuple(p) for name, p in predictions.items()}
    if empty := [name for name, tables in repeated.items() if not tables]:
        raise InputError(f"Every model needs the predictions of one training or more. Without any: {', '.join(empty)}.")
    flat = align({_label(n, i, len(t)): table for n, t in repeated.items() for i, table in enumerate(t)})
    tables = iter(flat.values())
    aligned = {name: tuple(next(tables) for _ in t) for name, t in repeated.items()}
    some = next(iter(flat.values()))
    chosen = headline_class(some.classes, positive)
    # Where the tables group patients differently, the fewest and so largest groups are the conservative choice.
    known = min(flat.values(), key=lambda p: len(np.unique(p.clusters)))
    clusters = known.clusters
    design = trainings.design(aligned)
    models = estimated(aligned, design, metric, chosen, clusters, replicates=replicates, seed=seed)
    return lettered(
        Comparison(
            metric=metric,
            positive=None if chosen is None else some.classes[chosen],
            standings=tuple(_standing(c, metric) for c in models),
            pairs=paired(models, design, metric, chosen, clusters, margin),
            rows=len(clusters),
            patients=Patients.of(known.rows),
            interval=Interval(method=METHODS[design], replicates=replicates),
            design=design,
            margin=margin,
        )
    )


def lettered(comparison: Comparison) -> Comparison:
    """Return the comparison with the letters that its pairs give the models."""
    order = {standing.model: i for i, standing in enumerate(comparison.standings)}
    different = [(order[pair.first], order[pair.second]) for pair in comparison.pairs if pair.apart]
    marked = zip(comparison.standings, letters(len(order), different), strict=True)
    standings = tuple(dataclasses.replace(standing, letters=marks) for standing, marks in marked)
    return dataclasses.replace(comparison, standings=standings)


def _label(model: str, training: int, trainings: int) -> str:
    return model if trainings == 1 else f"{model} (training {training + 1} of {trainings})"


def _standing(candidate: Estimated, metric: str) -> Standing:
    return Standing(candidate.model, candidate.figures[metric], "", candidate.figures, candidate.repeats)


def check_metric(metric: str) -> None:
    """Raise `InputError` unless `metric` is one of `HEADLINE`."""
    if metric not in HEADLINE:
        known = ", ".join(HEADLINE)
        raise InputError(f"Unknown metric.{nearest(metric, HEADLINE)} Allowed: {known}. Received: {metric!r}.")


def align(predictions: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """Return the predictions with rows and classes in the same order.

    Raises:
        DataError: predictions that cannot be evaluated, or whose images, labels or classes differ.
    """
    aligned: dict[str, Predictions] = {}
    for model, table in predictions.items():
        check(table)
        rows = table.rows.sort_values("path", kind="stable").reset_index(drop=True)
        first, other = next(iter(aligned.items()), (model, table))
        if set(table.classes) != set(other.classes):
            raise DataError(
                f"{first} and {model} have different classes, so that they cannot be compared. "
                f"{first}: {', '.join(other.classes)}. {model}: {', '.join(table.classes)}."
            )
        aligned[model] = Predictions(rows, other.classes)
        require_same_images(first, aligned[first].rows, model, rows)
        _require_same_labels(first, aligned[first].rows, model, rows)
    if not len(next(iter(aligned.values())).rows):
        raise DataError("The predictions have no rows, so that models cannot be compared.")
    return aligned


def require_same_images(first: str, here: pd.DataFrame, second: str, there: pd.DataFrame) -> None:
    """Raise `DataError` unless the rows of two models are of the same images."""
    paths, others = set(here["path"]), set(there["path"])
    if paths != others or len(here) != len(there):
        odd = sorted(paths ^ others) or sorted(there["path"])
        raise DataError(
            f"{first} and {second} were tested on different images, so that they cannot be compared: "
            f"{len(paths - others)} only by {first}, {len(others - paths)} only by {second}, "
            f"{len(here)} and {len(there)} rows; see {odd[0]}."
        )


def _require_same_labels(first: str, here: pd.DataFrame, second: str, there: pd.DataFrame) -> None:
    unlike = here["label"].to_numpy() != there["label"].to_numpy()
    if unlike.any():
        raise DataError(
            f"{first} and {second} have different labels for {int(unlike.sum())} images, so that they "
            f"cannot be compared; see {here['path'][unlike].iloc[0]}."
        )


def check_margin(margin: float | None) -> None:
    """Raise `InputError` unless `margin` is None, or above 0 and below 1."""
    if margin is not None and not 0 < margin < 1:
        raise InputError(f"margin must be above 0 and below 1, such as 0.02. Received: {margin}.")


def paired(
    candidates: Sequence[Estimated],
    design: trainings.Design,
    metric: str,
    chosen: int | None,
    clusters: np.ndarray,
    margin: float | None,
) -> tuple[Pair, ...]:
    """Return the test of every pair of models, corrected over all pairs; arguments as of `estimated`."""
    tests = []
    for one, other in itertools.combinations(candidates, 2):
        classical = _classical(one.tables[0], other.tables[0], metric, chosen, clusters) if design == "one" else None
        tests.append((one.model, other.model, classical or tested(one, other, design)))
    corrected = holm([test.p for *_, test in tests])
    margins = _margins([test for *_, test in tests], metric, margin)
    return tuple(
        Pair(first, second, test.figure(), test.name, test.p, p_holm, within)
        for (first, second, test), p_holm, within in zip(tests, corrected, margins, strict=True)
    )


def _margins(tests: Sequence[DifferenceTest], metric: str, margin: float | None) -> list[Margin | None]:
    """Return the non-inferiority tests of both models of each pair, corrected over all of them (Holm)."""
    if margin is None:
        return [None] * len(tests)
    # The first is worse by the margin where the difference is so far below 0, of a loss so far above.
    loss = lower_is_better(metric)
    first = [test.below(margin) if loss else test.above(-margin) for test in tests]
    second = [test.above(-margin) if loss else test.below(margin) for test in tests]
    corrected = holm([*first, *second])
    half = len(tests)
    return [Margin(*four) for four in zip(first, second, corrected[:half], corrected[half:], strict=True)]


def _classical(
    one: Predictions, other: Predictions, metric: str, chosen: int | None, clusters: np.ndarray
) -> DifferenceTest | None:
    """Return DeLong's or McNemar's test for two tables, None where neither applies to `metric`."""
    if metric == "accuracy":
        return accuracy_test(one.predicted == one.truth, other.predicted == other.truth, clusters)
    if metric == "auroc" and chosen is not None:
        scores = [table.probabilities[:, chosen] for table in (one, other)]
        return auroc_test(one.truth == chosen, scores[0], scores[1], clusters)
    return None
