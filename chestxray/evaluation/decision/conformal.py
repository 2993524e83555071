"""Conformal prediction: sets of classes that hold the true one as often as asked for.

Split conformal prediction with the score 1 - probability of the true class (Vovk et al. 2005;
Sadinle, Lei and Wasserman 2019), calibrated on validation. A set of one class, if it is the class
decided on, is an answer; with none or several, the model abstains. The promise is for an image of a
patient like those of validation, on average over patients, classes and validations; what was kept of it
is measured on the test.
"""

from __future__ import annotations

import numpy as np

from chestxray.evaluation.decision import conformal_quantile


def quantile(probabilities: np.ndarray, truth: np.ndarray, coverage: float, clusters: np.ndarray) -> float:
    """The largest score of a class that is in the set: in 0..1.

    `probabilities` float (rows, classes), `truth` class numbers (rows,), `clusters` codes of the patients,
    int (rows,). It is the conformal quantile of the scores of the true classes, patients counting alike
    (`conformal_quantile`); 1, so that all classes are in every set, where the patients are too few to
    promise that coverage.

    >>> quantile(np.array([[0.9, 0.1]] * 9), np.zeros(9, dtype=int), 0.9, np.arange(9))
    0.1
    """
    found = conformal_quantile.quantile(1 - probabilities[np.arange(len(truth)), truth], clusters, coverage)
    return 1.0 if found is None else round(found, 12)


def sets(probabilities: np.ndarray, limit: float) -> np.ndarray:
    """Which classes are in each set: bool (rows, classes)."""
    return 1 - probabilities <= limit + 1e-12


def answered(inside: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Whether the model answers, its set `inside` (rows, classes) being the one class that was `decided`
    on, class numbers (rows,): bool (rows,).

    Of two classes, set and threshold are two rules; where they name different classes there is no answer.
    """
    return (inside.sum(axis=1) == 1) & inside[np.arange(len(inside)), decided]
