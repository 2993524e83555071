"""Compares models on the same images by paired tests: runs, or probabilities from any program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from chestxray.api.runs import Run
from chestxray.errors import InputError
from chestxray.evaluation import arrays
from chestxray.evaluation.paired import comparison, finding_comparison
from chestxray.evaluation.paired.comparison_result import Comparison
from chestxray.evaluation.paired.findings_comparison_result import FindingsComparison
from chestxray.storage import remote


@overload
def compare(
    models: Mapping[str, Any],
    y_true: Any,
    *,
    findings: Sequence[str],
    groups: Any = None,
    metric: str = "auroc",
    margin: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> FindingsComparison: ...


@overload
def compare(
    models: Mapping[str, Any],
    y_true: Any,
    *,
    groups: Any = None,
    classes: Sequence[str] | None = None,
    metric: str = "auroc",
    positive: str | None = None,
    margin: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison: ...


@overload
def compare(
    models: Mapping[str, Run | str | Path] | Sequence[Run | str | Path],
    *,
    metric: str = "auroc",
    positive: str | None = None,
    margin: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison | FindingsComparison: ...


def compare(
    models: Mapping[str, Any] | Sequence[Run | str | Path],
    y_true: Any = None,
    *,
    groups: Any = None,
    classes: Sequence[str] | None = None,
    findings: Sequence[str] | None = None,
    metric: str = "auroc",
    positive: str | None = None,
    margin: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison | FindingsComparison:
    """Compare models on the same test images: each pair by a paired test, with Holm's correction over the pairs.

    Runs of findings are compared by the mean over findings and for each finding, corrected over all findings and
    pairs; the result is then a `FindingsComparison`.

    Args:
        models: runs or their folders, as ``[run_a, run_b]`` (named as `chestxray compare` names them) or
            ``{name: run}``; or the probabilities of each model by its name, as `evaluate` takes them.
        y_true: (n,), only with probabilities: the true classes, as in `evaluate`. Runs include their own.
        groups: (n,), only with probabilities: the patients, as in `evaluate`.
        classes: only with probabilities: the names of the classes, as in `evaluate`.
        findings: only with probabilities: the names of the findings, as in `evaluate`, with a threshold of 0.5.
        metric: the measure to compare, such as auroc, accuracy or sensitivity.
        positive: the positive class of two, for sensitivity, specificity and similar measures; default: that of the
            runs, else the abnormal class.
        margin: the largest irrelevant difference, for tests of non-inferiority and equivalence.
        replicates: number of bootstrap replicates.
        seed: seed of the random draws.

    Raises:
        InputError: there are fewer than two models, the metric is unknown, the margin is impossible, the runs have
            different positive classes, or an argument is not a run; for arrays, see `evaluate`.
        DataError: the tests have different images, labels or classes; the message names the first difference.
    """
    named = models if isinstance(models, Mapping) else None
    listed = list(models.values()) if isinstance(models, Mapping) else _listed(models)
    if y_true is None:
        if groups is not None or classes is not None or findings is not None:
            raise InputError("groups, classes and findings are for probabilities, beside y_true; runs bring their own.")
        names = None if named is None else list(map(str, named))
        return _of_runs(listed, names, metric, positive=positive, margin=margin, replicates=replicates, seed=seed)
    if named is None or any(isinstance(one, Run | str | Path) for one in listed):
        raise InputError(
            "With y_true, models must be probabilities by the model's name, as {name: y_prob}. Received: "
            f"{_received(listed if named is None else [one for one in listed if isinstance(one, Run | str | Path)])}."
        )
    if findings is not None:
        if classes is not None or positive is not None:
            raise InputError("classes and positive are for one class an image; with findings leave them out.")
        given = {
            str(name): arrays.finding_table(y_true, one, findings=findings, groups=groups)
            for name, one in named.items()
        }
        return finding_comparison.compare_findings(given, metric, margin=margin, replicates=replicates, seed=seed)
    tables = {
        str(name): arrays.from_arrays(y_true, given, groups=groups, classes=classes) for name, given in named.items()
    }
    return comparison.compare(tables, metric, positive=positive, margin=margin, replicates=replicates, seed=seed)


def _of_runs(
    listed: list[Any], names: list[str] | None, metric: str, *, positive: str | None, **options: Any
) -> Comparison | FindingsComparison:
    from chestxray.studies import candidates

    if odd := [one for one in listed if not isinstance(one, Run | str | Path)]:
        raise InputError(
            "Without y_true, models must be runs or their folders, as [run_a, run_b]; probabilities need y_true. "
            f"Received: {_received(odd)}."
        )
    folders = [one.folder if isinstance(one, Run) else remote.opened(one) for one in listed]
    found = candidates.of_runs(folders, task=None)
    positive = positive or (candidates.positive_of(found) if found else None)
    tests = [contender.tests for contender in found.values()]
    named = dict(zip(list(found) if names is None else names, tests, strict=True))
    return candidates.compare_tests(named, metric, positive=positive, **options)


def _listed(models: Any) -> list[Any]:
    if isinstance(models, str | bytes | Path | Run) or not isinstance(models, Sequence):
        raise InputError(
            "models must be a list of runs, or probabilities by the model's name, as {name: y_prob}. Received: "
            f"{type(models).__name__}."
        )
    return list(models)


def _received(values: Sequence[Any]) -> str:
    return ", ".join(sorted({type(value).__name__ for value in values})) or "nothing"
