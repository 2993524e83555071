"""Prevalence shift: class proportions that differ from validation, estimated without labels and corrected for.

A calibrated probability is valid where the classes are as common as in validation. Where they are not, but
the radiographs of each class are still like those of validation (label shift), the new proportions can be
estimated from the predictions alone, and the probabilities corrected by Bayes's rule; Godau et al. (2023)
show the cost of not doing so. Two estimates are given, since neither is always better: expectation
maximisation (Saerens, Latinne and Decaestecker 2002), which uses the probabilities and needs them
calibrated, and inversion of validation's confusion matrix (Lipton, Wang and Smola 2018), which uses the
decisions alone. Another hospital, device or stage of disease is not a label shift; both estimates are then
wrong, and only their disagreement can show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chestxray.evaluation.bootstrap import resamples
from chestxray.evaluation.evaluate import Evaluation, evaluate
from chestxray.evaluation.intervals import Figure, logit_t
from chestxray.evaluation.predictions import PREFIX, Predictions
from chestxray.evaluation.proportions import share
from chestxray.evaluation.support import effective
from chestxray.evaluation.weighted_metrics import ratio

ASSUMPTION = (
    "This holds if the radiographs of each class are like those of validation and only the shares of the classes "
    "differ (label shift); only labels can show whether they are."
)
#: Most rounds of expectation maximisation, and the change of a proportion below which they end.
_ROUNDS, _STILL = 2000, 1e-7


@dataclass(frozen=True)
class Known:
    """The validation rows: ``truth`` and ``decided``, class numbers (rows,), ``clusters``, patient codes (rows,)."""

    truth: np.ndarray
    decided: np.ndarray
    clusters: np.ndarray
    classes: int

    @property
    def proportions(self) -> np.ndarray:
        """The proportion of each class, float (classes,)."""
        return np.bincount(self.truth, minlength=self.classes) / len(self.truth)

    def confusion(self, weights: np.ndarray) -> np.ndarray:
        """Return counts (replicates, true, decided) for row `weights` (replicates, rows)."""
        cells = np.eye(self.classes**2)[self.truth * self.classes + self.decided]
        return (weights @ cells).reshape(-1, self.classes, self.classes)

    @classmethod
    def of(cls, validation: Predictions) -> Known | None:
        """Return the rows of `validation` with their decisions; None where a class has no rows."""
        truth = validation.truth
        if len(np.unique(truth)) < len(validation.classes):
            return None
        return cls(truth, validation.predicted, validation.clusters, len(validation.classes))


@dataclass(frozen=True)
class Estimates:
    """The proportions of the classes by each method, a `Figure` a class."""

    maximisation: tuple[Figure, ...]
    confusion: tuple[Figure, ...]


def estimate(
    probabilities: np.ndarray,
    decided: np.ndarray,
    clusters: np.ndarray,
    known: Known,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimates:
    """Return the proportions of the classes among images without labels, with 95% intervals.

    `probabilities` float (rows, classes), calibrated on validation, `decided` class numbers (rows,),
    `clusters` codes of the patients int (rows,). The bootstrap draws these patients and those of
    validation; the intervals do not include errors of the calibration.
    """
    every = known.confusion(np.ones((1, len(known.truth))))
    codes, theirs = (np.unique(part, return_inverse=True)[1] for part in (clusters, known.clusters))
    tables = np.concatenate([known.confusion(weights) for weights in resamples(theirs, replicates, seed + 1)])
    ways: list[list[np.ndarray]] = [[], []]
    done = 0
    for weights in resamples(codes, replicates, seed):
        part = tables[done : done + len(weights)]
        done += len(weights)
        ways[0].append(by_maximisation(probabilities, part.sum(axis=2) / part.sum(axis=(1, 2))[:, None], weights))
        ways[1].append(by_confusion(decided, part, weights))
    once = np.ones((1, len(probabilities)))
    values = by_maximisation(probabilities, known.proportions[None], once)[0], by_confusion(decided, every, once)[0]
    patients = min(effective(codes), effective(theirs))
    first, second = (
        tuple(
            logit_t(float(value), column, patients) for value, column in zip(at, np.concatenate(drawn).T, strict=True)
        )
        for at, drawn in zip(values, ways, strict=True)
    )
    return Estimates(first, second)


def by_maximisation(probabilities: np.ndarray, proportions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the class proportions of maximum likelihood for `probabilities`, float (replicates, classes).

    `probabilities`, float (rows, classes), are calibrated for the class `proportions` (replicates, classes); where
    one of these is 0 the result is NaN. `weights` (replicates, rows): how often each row counts.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = found = np.where((proportions > 0).all(axis=1, keepdims=True), proportions, np.nan)
        for _ in range(_ROUNDS):
            before, scaled = found, found / factors
            whole = np.maximum(scaled @ probabilities.T, 1e-300)
            found = scaled * ((weights / whole) @ probabilities) / weights.sum(axis=1, keepdims=True)
            if not (np.abs(found - before) > _STILL).any():
                break
    return found


def by_confusion(decided: np.ndarray, confusion: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the class proportions, float (replicates, classes), under which decisions are as frequent as observed.

    `decided` class numbers (rows,); `confusion` counts (replicates, true, decided) of validation; `weights`
    (replicates, rows). Proportions are clipped to 0..1; NaN where validation lacks a class, or its confusion matrix is
    singular.
    """
    classes = confusion.shape[-1]
    seen = weights @ np.eye(classes)[decided] / weights.sum(axis=1, keepdims=True)
    rates = np.nan_to_num(ratio(confusion, confusion.sum(axis=2, keepdims=True)))
    apart = np.linalg.matrix_rank(rates, tol=1e-6) == classes
    found = np.full(seen.shape, np.nan)
    turned = np.swapaxes(rates[apart], 1, 2)
    solved = np.clip(np.linalg.solve(turned, seen[apart][..., None])[..., 0], 0, None)
    found[apart] = ratio(solved, solved.sum(axis=1, keepdims=True))
    return found


def adjusted(probabilities: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return `probabilities`, float (rows, classes), adjusted from class proportions `before` to `after`, both float
    (classes,), by Bayes's rule (Saerens et al. 2002).

    >>> adjusted(np.array([[0.5, 0.5]]), np.array([0.5, 0.5]), np.array([0.9, 0.1])).round(3).tolist()
    [[0.9, 0.1]]
    """
    weighed = probabilities * (after / before)
    return weighed / weighed.sum(axis=1, keepdims=True)


def label_shift(
    test: Predictions, validation: Predictions, whole: Evaluation, *, replicates: int, seed: int
) -> dict[str, Any] | None:
    """Return the content of ``prevalence.json``: the class proportions of `test` estimated without its labels, those of
    its labels, and calibration errors before and after adjusting the probabilities.

    Both tables have the same classes, calibrated probabilities, and the run's decisions; `whole` is the test's
    evaluation. None where validation lacks a class.
    """
    known = Known.of(validation)
    if known is None or not len(test.rows):
        return None
    clusters, classes = test.clusters, test.classes
    found = estimate(test.probabilities, test.predicted, clusters, known, replicates=replicates, seed=seed)
    after = np.array([np.nan if figure.value is None else figure.value for figure in found.maximisation])
    rows = test.rows.copy()
    rows[[PREFIX + name for name in classes]] = adjusted(test.probabilities, known.proportions, after)
    right = Predictions(rows, classes)
    errors = {"before": whole.test, "after": evaluate(right, replicates=replicates, seed=seed).test}
    return {
        "assumption": ASSUMPTION,
        "validation": dict(zip(classes, known.proportions.tolist(), strict=True)),
        "estimated": {
            way: {name: figure.to_json() for name, figure in zip(classes, getattr(found, way), strict=True)}
            for way in ("maximisation", "confusion")
        },
        "labels": {
            name: share(test.truth == number, clusters, replicates=replicates, seed=seed).to_json()
            for number, name in enumerate(classes)
        },
        "corrected": {
            when: {name: figures[name].to_json() for name in ("brier", "ece")} for when, figures in errors.items()
        },
    }
