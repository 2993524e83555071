"""Models on the same images: runs, or the probabilities of any program -> a paired comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chestxray.api.runs import Run
from chestxray.errors import InputError
from chestxray.evaluation import arrays
from chestxray.evaluation.paired import comparison
from chestxray.evaluation.paired.comparison_result import Comparison
from chestxray.evaluation.predictions import Predictions


def compare(
    models: Mapping[str, Any] | Sequence[Run | str | Path],
    y_true: Any = None,
    *,
    groups: Any = None,
    classes: Sequence[str] | None = None,
    metric: str = "auroc",
    positive: str | None = None,
    margin: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Models on the same test images, each pair by a paired test, with Holm's correction over the pairs.

    Args:
        models: runs or their folders, as ``[run_a, run_b]`` (named as `chestxray compare` names them) or
            ``{name: run}``; or the probabilities of each model by its name, as `evaluate` takes them.
        y_true: (n,), with probabilities alone: as `evaluate` takes it. Runs bring their own.
        groups: (n,), with probabilities alone: the patients, as `evaluate` takes them.
        classes: with probabilities alone: names of the classes, as `evaluate` takes them.
        metric: what is compared, such as auroc, accuracy or sensitivity.
        positive: of two classes, the one for which sensitivity, specificity, precision, F1, AUROC and AUPRC are
            computed; default: the runs', else the abnormal
            one.
        margin: how much worse a model may be without mattering: tests of non-inferiority and equivalence.
        replicates: number of bootstrap replicates.
        seed: fixes the draws.

    Raises:
        InputError: fewer than two models; an unknown metric, an impossible margin; runs of different positive
            classes; what is no run or, of arrays, as `evaluate`.
        DataError: tests of other images, labels or classes, of which the first is named.
    """
    named = models if isinstance(models, Mapping) else None
    listed = list(models.values()) if isinstance(models, Mapping) else _listed(models)
    if y_true is None:
        if groups is not None or classes is not None:
            raise InputError("groups and classes are for probabilities, beside y_true; runs bring their own.")
        tables, spoken = _of_runs(listed, None if named is None else list(named))
        positive = positive or spoken
    elif named is None or any(isinstance(one, Run | str | Path) for one in listed):
        raise InputError(
            "With y_true, models must be probabilities by the model's name, as {name: y_prob}. Received: "
            f"{_received(listed if named is None else [one for one in listed if isinstance(one, Run | str | Path)])}."
        )
    else:
        tables = {
            str(name): arrays.from_arrays(y_true, given, groups=groups, classes=classes)
            for name, given in named.items()
        }
    return comparison.compare(tables, metric, positive=positive, margin=margin, replicates=replicates, seed=seed)


def _of_runs(listed: list[Any], names: list[Any] | None) -> tuple[dict[str, Predictions], str | None]:
    from chestxray.studies import candidates

    if odd := [one for one in listed if not isinstance(one, Run | str | Path)]:
        raise InputError(
            "Without y_true, models must be runs or their folders, as [run_a, run_b]; probabilities need y_true. "
            f"Received: {_received(odd)}."
        )
    found = candidates.of_runs([one.folder if isinstance(one, Run) else one for one in listed])
    tables = [contender.tests[0] for contender in found.values()]
    chosen = list(map(str, names)) if names is not None else list(found)
    return dict(zip(chosen, tables, strict=True)), candidates.positive_of(found) if found else None


def _listed(models: Any) -> list[Any]:
    if isinstance(models, str | bytes | Path | Run) or not isinstance(models, Sequence):
        raise InputError(
            "models must be a list of runs, or probabilities by the model's name, as {name: y_prob}. Received: "
            f"{type(models).__name__}."
        )
    return list(models)


def _received(values: Sequence[Any]) -> str:
    return ", ".join(sorted({type(value).__name__ for value in values})) or "nothing"
