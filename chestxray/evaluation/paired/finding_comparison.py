"""Compares models on findings: every pair for each finding, corrected over findings, and the mean over findings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from chestxray import registry
from chestxray.data.multiple_testing import holm
from chestxray.errors import DataError, InputError, nearest
from chestxray.evaluation.finding_means import DRAWN
from chestxray.evaluation.finding_predictions import TRUTH, FindingPredictions, Known, require_same_findings
from chestxray.evaluation.paired import finding_mean_comparison, trainings
from chestxray.evaluation.paired.comparison import check_margin, compare, lettered, require_same_images
from chestxray.evaluation.paired.comparison_result import Comparison
from chestxray.evaluation.paired.findings_comparison_result import FindingsComparison
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.published_metrics import of_name
from chestxray.evaluation.weighted_metrics import HEADLINE


def compare_findings(
    predictions: Mapping[str, FindingPredictions | Sequence[FindingPredictions]],
    metric: str = "auroc",
    *,
    margin: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> FindingsComparison:
    """Compare models on the same rows of a test of findings.

    The means over findings are compared by one bootstrap that draws the same patients for all models and findings, with
    p-values corrected over the pairs (Holm). For each finding every pair is compared as by `comparison.compare`, on the
    rows where it is known, with p-values corrected over all pairs of all findings. Findings of too few patients are
    not scored.

    Args:
        predictions: the test of each model by its name, or of each of its trainings; two models or more.
        metric: auroc, auprc, sensitivity, specificity, precision or f1, or the name of a plugin's (`MetricPlugin`).
        margin: the non-inferiority margin of the mean, above 0 and below 1.
        replicates: number of bootstrap replicates.
        seed: of the random draws.

    Raises:
        InputError: another metric; fewer than two models; an impossible margin.
        DataError: predictions that cannot be evaluated, or whose images, labels or findings differ; no finding can be
            scored.
    """
    check_metric_of_findings(metric)
    check_margin(margin)
    if len(predictions) < 2:
        raise InputError(f"A comparison needs two models or more. Received: {len(predictions)}.")
    repeated = {name: (p,) if isinstance(p, FindingPredictions) else tuple(p) for name, p in predictions.items()}
    if empty := [name for name, tables in repeated.items() if not tables]:
        raise InputError(f"Every model needs the predictions of a training or more. Without any: {', '.join(empty)}.")
    aligned = align_findings(repeated)
    first = next(iter(aligned.values()))[0]
    too_few = {name: Known.of(first.of_finding(name), name).too_few for name in first.findings}
    scored = [name for name, reason in too_few.items() if not reason]
    if not scored:
        raise DataError(f"No finding can be compared. {'; '.join(f'{n}: {r}' for n, r in too_few.items())}.")
    of_each = {
        name: compare(
            {model: [of_finding(table, name) for table in tables] for model, tables in aligned.items()},
            metric,
            positive=name,
            replicates=replicates,
            seed=seed,
        )
        for name in scored
    }
    mean = finding_mean_comparison.compared(aligned, of_each, metric, margin, replicates=replicates, seed=seed)
    return FindingsComparison(metric, mean, _corrected(of_each), {n: r for n, r in too_few.items() if r})


def check_metric_of_findings(metric: str) -> None:
    """Raise `InputError` unless models can be compared on findings by `metric`, `PluginError` for a broken one."""
    installed = [entry.name for entry in registry.entries(registry.METRICS) if entry.name not in HEADLINE]
    if metric not in (*DRAWN, *installed):
        names = (*DRAWN, *installed)
        known = ", ".join(names)
        raise InputError(f"Unknown metric of findings.{nearest(metric, names)} Allowed: {known}. Received: {metric!r}.")
    of_name(metric)


def align_findings(
    repeated: Mapping[str, Sequence[FindingPredictions]],
) -> dict[str, tuple[FindingPredictions, ...]]:
    """Return the tables of each model with rows and findings in the same order.

    Raises:
        DataError: tables whose images, labels or findings differ.
    """
    whose, first = next((model, tables[0]) for model, tables in repeated.items())
    start = _sorted(first, first.findings)
    found = {}
    for model, tables in repeated.items():
        of_model = []
        for table in tables:
            require_same_findings(first.findings, table.findings, f"The tests of {whose} and of {model}")
            one = _sorted(table, first.findings)
            require_same_images(whose, start.rows, model, one.rows)
            _require_same_truth(whose, start, model, one)
            of_model.append(one)
        found[model] = tuple(of_model)
    return found


def of_finding(table: FindingPredictions, name: str) -> Predictions:
    """One finding as a task of two classes, on the rows where it is known.

    Of the images that a fold was trained on, those count in which the finding is known, as of its test: their share is
    that of all images.
    """
    own = table.of_finding(name)
    if trainings.TRAINED_ON not in own.rows or not len(own.rows):
        return own
    known = len(own.rows) / len(table.rows)
    return Predictions(
        own.rows.assign(**{trainings.TRAINED_ON: own.rows[trainings.TRAINED_ON] * known}),
        own.classes,
    )


def _sorted(table: FindingPredictions, findings: tuple[str, ...]) -> FindingPredictions:
    return FindingPredictions(table.rows.sort_values("path", kind="stable").reset_index(drop=True), findings)


def _require_same_truth(first: str, here: FindingPredictions, second: str, there: FindingPredictions) -> None:
    """Raise `DataError` where something is known to one and not to the other, as with other choices for uncertain
    findings; both have the same rows.
    """
    for name in here.findings:
        one, other = (table.rows[TRUTH + name].to_numpy(dtype=np.float64) for table in (here, there))
        unlike = ~((one == other) | (np.isnan(one) & np.isnan(other)))
        if unlike.any():
            raise DataError(
                f"{first} and {second} have different labels of {name} for {int(unlike.sum())} images, so that they "
                f"cannot be compared; see {here.rows['path'][unlike].iloc[0]}. The choice for uncertain findings must "
                "be the same."
            )


def _corrected(of_each: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Return the comparisons with p-values corrected over all their pairs."""
    p_holm = iter(holm([pair.p for one in of_each.values() for pair in one.pairs]))
    found = {}
    for name, one in of_each.items():
        pairs = tuple(dataclasses.replace(pair, p_holm=next(p_holm)) for pair in one.pairs)
        found[name] = lettered(dataclasses.replace(one, pairs=pairs))
    return found
