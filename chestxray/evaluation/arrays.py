"""Evaluates and compares probabilities of any program, given as arrays, in the same way as runs of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import pandas as pd

from chestxray.data import findings as states
from chestxray.errors import InputError, first_line
from chestxray.evaluation import evaluate as evaluation
from chestxray.evaluation.finding_predictions import PREDICTED, FindingPredictions
from chestxray.evaluation.findings_evaluation import FindingsEvaluation, evaluate_findings
from chestxray.evaluation.predictions import Predictions


@overload
def evaluate(
    y_true: Any,
    y_prob: Any,
    *,
    groups: Any = None,
    classes: Sequence[str] | None = None,
    positive: str | None = None,
    threshold: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> evaluation.Evaluation: ...


@overload
def evaluate(
    y_true: Any,
    y_prob: Any,
    *,
    findings: Sequence[str],
    groups: Any = None,
    threshold: float | Sequence[float] | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> FindingsEvaluation: ...


def evaluate(
    y_true: Any,
    y_prob: Any,
    *,
    groups: Any = None,
    classes: Sequence[str] | None = None,
    findings: Sequence[str] | None = None,
    positive: str | None = None,
    threshold: float | Sequence[float] | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> evaluation.Evaluation | FindingsEvaluation:
    """Return every figure of a test with its 95% interval, clustered by patient.

    Args:
        y_true: (n,), the true class of each image: its name, or its number from 0. With `findings` (n, findings): 1
            for present, 0 for absent, NaN or None for not known.
        y_prob: probabilities, (n, classes) in the order of `classes`, each row with a sum of 1; of two classes
            also (n,), those of the second. With `findings` (n, findings), each from 0 to 1.
        groups: (n,), the patient of each image, of any type; None, NaN and "" are an image of an unknown patient,
            which counts as one of its own. Default: every image is another patient's.
        classes: names of the classes. Default: the sorted names in `y_true`, or "0", "1", ... where it has numbers.
        findings: names of the findings, of which an image may show several or none.
        positive: of two classes, the one for which sensitivity, specificity, precision, F1, AUROC and AUPRC are
            computed. Default: the one that is not named like a normal radiograph, else the second.
        threshold: of two classes, the probability at and above which the positive one is predicted; it should have
            been chosen on other images. Default: the class of the larger probability is predicted. With `findings`
            one for all, or one for each; default: 0.5.
        replicates: number of bootstrap replicates.
        seed: of the random draws.

    Raises:
        InputError: arrays of other shapes or lengths, or an unknown class.
        DataError: values that are no probabilities.

    >>> found = evaluate([0, 0, 1, 1, 1, 0], [0.1, 0.4, 0.8, 0.3, 0.9, 0.2], groups=list("aabbcc"), replicates=200)
    >>> round(float(found.to_frame().loc["auroc", "value"]), 3)
    0.889
    """
    if findings is not None:
        if classes is not None or positive is not None:
            raise InputError("classes and positive are for one class an image; with findings leave them out.")
        table = finding_table(y_true, y_prob, findings=findings, groups=groups, threshold=threshold)
        return evaluate_findings(table, replicates=replicates, seed=seed)
    predictions = from_arrays(y_true, y_prob, groups=groups, classes=classes)
    chosen = evaluation.headline_class(predictions.classes, positive)
    if threshold is not None:
        predictions = _decided(predictions, chosen, _number("threshold", threshold))
    return evaluation.evaluate(predictions, positive=positive, replicates=replicates, seed=seed)


def finding_table(
    y_true: Any,
    y_prob: Any,
    *,
    findings: Sequence[str],
    groups: Any = None,
    threshold: float | Sequence[float] | None = None,
) -> FindingPredictions:
    """Return the table of a test of findings from arrays as `evaluate` takes them.

    Raises:
        InputError: arrays of other shapes or lengths, names that stand twice, or a truth that is none.
    """
    names = tuple(map(str, [findings] if isinstance(findings, str) else findings))
    if not names or len(set(names)) < len(names):
        raise InputError(f"findings must be one name or more, each once. Received: {', '.join(names) or 'none'}.")
    truth, given = _array("y_true", y_true, np.float64), _array("y_prob", y_prob, np.float64)
    if truth.shape != given.shape or truth.ndim != 2 or truth.shape[1] != len(names):
        raise InputError(
            f"y_true and y_prob must be (n, {len(names)}), a column for each of the findings {', '.join(names)}. "
            f"Received: {truth.shape} and {given.shape}."
        )
    if (odd := ~(np.isin(truth, (0, 1)) | np.isnan(truth))).any():
        raise InputError(
            f"y_true must have 1 for present, 0 for absent and NaN for not known. Received: {truth[odd][0]:g}."
        )
    cuts = _array("threshold", 0.5 if threshold is None else threshold, np.float64)
    if cuts.shape not in ((), (1,), (len(names),)) or not ((cuts >= 0) & (cuts <= 1)).all():
        raise InputError(
            f"threshold must be a probability from 0 to 1, or one for each of {len(names)} findings. "
            f"Received: {threshold}."
        )
    known = np.where(np.isnan(truth), states.UNKNOWN, truth).astype(np.int8)
    rows = pd.DataFrame({"path": [f"{i:09}" for i in range(len(truth))], "patient": _patients(groups, len(truth))})
    rows = rows.assign(split="test", source="", label=states.labels(known, names))
    table = FindingPredictions.joined(rows, names, truth, given)
    decided = pd.DataFrame(given >= cuts, columns=[PREDICTED + name for name in names]).astype(np.int8)
    return FindingPredictions(table.rows.assign(**decided), names)


def from_arrays(y_true: Any, y_prob: Any, *, groups: Any = None, classes: Sequence[str] | None = None) -> Predictions:
    """Return the predictions of a test from arrays as `evaluate` takes them; the most probable class is predicted.

    Raises:
        InputError: arrays of other shapes or lengths, or an unknown class.
    """
    truth, given = _numbers_of_classes(_array("y_true", y_true)), _array("y_prob", y_prob, np.float64)
    if truth.ndim != 1 or given.ndim not in (1, 2):
        raise InputError(
            f"y_true must be (n,) and y_prob (n, classes), or (n,) of two classes; for several findings an image, give "
            f"their names as findings. Received: {truth.shape} and {given.shape}."
        )
    names = _names(truth, given, classes)
    labels = _labels(truth, names)
    if given.ndim == 1:
        if len(names) != 2:
            raise InputError(f"y_prob (n,) is for two classes. Received: {len(names)} classes, {', '.join(names)}.")
        given = np.stack([1 - given, given], axis=1)
    if given.shape != (len(labels), len(names)):
        raise InputError(
            f"y_prob must have a row for each of the {len(labels)} of y_true and a column for each of the {len(names)} "
            f"classes, {', '.join(names)}. Received: {given.shape}."
        )
    rows = pd.DataFrame({"path": [f"{i:09}" for i in range(len(labels))], "label": labels})
    rows = rows.assign(patient=_patients(groups, len(labels)), source="", split="test")
    return Predictions.from_probabilities(rows, names, given)


def _array(name: str, values: Any, kind: Any = None) -> np.ndarray:
    try:
        return np.asarray(values, dtype=kind)
    except (TypeError, ValueError, RuntimeError) as error:  # the last is of a tensor that needs its gradient
        raise InputError(f"{name} must be an array{' of numbers' if kind else ''}: {first_line(error)}.") from error


def _number(name: str, value: Any) -> float:
    if np.ndim(value):
        raise InputError(f"{name} must be a number. Received: {value}.")
    return float(value)


def _numbers_of_classes(truth: np.ndarray) -> np.ndarray:
    """Return class numbers given as floats, as some loss functions take them, as int64; other arrays unchanged."""
    if truth.dtype.kind != "f":
        return truth
    if not (np.isfinite(truth).all() and (truth == np.floor(truth)).all()):
        odd = truth[~(np.isfinite(truth) & (truth == np.floor(truth)))].ravel()
        raise InputError(f"y_true must have numbers of classes, or their names. Received: {odd[0]:g}.")
    return truth.astype(np.int64)


def _names(truth: np.ndarray, given: np.ndarray, classes: Sequence[str] | None) -> tuple[str, ...]:
    if classes is not None:
        names = tuple(map(str, classes))
    elif truth.dtype.kind in "iub":
        names = tuple(map(str, range(given.shape[1] if given.ndim == 2 else 2)))
    else:
        names = tuple(sorted(map(str, pd.unique(truth))))
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"classes must be two names or more, each once. Received: {', '.join(names) or 'none'}.")
    return names


def _labels(truth: np.ndarray, names: tuple[str, ...]) -> list[str]:
    if truth.dtype.kind in "iub":
        numbers = truth.astype(np.int64)
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(names)):
            raise InputError(
                f"y_true must have numbers of classes from 0 to {len(names) - 1}, or their names. Received: "
                f"{numbers.min()} to {numbers.max()}."
            )
        return [names[number] for number in numbers]
    labels = [str(label) for label in truth]
    if stray := sorted(set(labels) - set(names)):
        raise InputError(
            f"y_true has names that are not in classes. Allowed: {', '.join(names)}. Received: {', '.join(stray[:5])}."
        )
    return labels


def _patients(groups: Any, count: int) -> list[str]:
    if groups is None:
        return [""] * count
    known = pd.Series(np.asarray(groups, dtype=object).ravel())
    if len(known) != count:
        raise InputError(f"groups must name the patient of each of the {count} images. Received: {len(known)}.")
    return [str(patient) for patient in known.where(known.notna(), "")]


def _decided(predictions: Predictions, chosen: int | None, threshold: float) -> Predictions:
    if chosen is None:
        raise InputError(f"threshold is for two classes. Received: {len(predictions.classes)} classes.")
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold must be a probability from 0 to 1. Received: {threshold}.")
    positive = predictions.probabilities[:, chosen] >= threshold
    names = np.array(predictions.classes)
    rows = predictions.rows.assign(predicted=np.where(positive, names[chosen], names[1 - chosen]))
    return Predictions(rows, predictions.classes)
