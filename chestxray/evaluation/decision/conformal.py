"""Conformal prediction sets, which contain the true class with a wanted coverage.

Split conformal prediction with the score 1 - probability of the true class (Vovk et al. 2005;
Sadinle, Lei and Wasserman 2019), calibrated on validation. The model answers where the set
has the decided class alone, and abstains where it has no class or several. The coverage is marginal: for an
image of a patient like those of validation, on average over patients, classes and validation sets. The test
measures the coverage that is reached.
"""

from __future__ import annotations

import numpy as np

from chestxray.evaluation.decision import conformal_quantile


def quantile(probabilities: np.ndarray, truth: np.ndarray, coverage: float, clusters: np.ndarray) -> float:
    """Return the largest score with which a class is in the set, in 0..1.

    `probabilities` float (rows, classes), `truth` class numbers (rows,), `clusters` codes of the patients,
    int (rows,). It is the conformal quantile of the scores of the true classes, each patient weighted equally
    (`conformal_quantile`); 1, so that all classes are in every set, where there are too few patients for
    that coverage.

    >>> quantile(np.array([[0.9, 0.1]] * 9), np.zeros(9, dtype=int), 0.9, np.arange(9))
    0.1
    """
    found = conformal_quantile.quantile(1 - probabilities[np.arange(len(truth)), truth], clusters, coverage)
    return 1.0 if found is None else round(found, 12)


def sets(probabilities: np.ndarray, limit: float) -> np.ndarray:
    """Return which classes are in each set: bool (rows, classes)."""
    return 1 - probabilities <= limit + 1e-12


def answered(inside: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Return whether the model answers, bool (rows,): where the set `inside`, bool (rows, classes), has the
    `decided` class, class numbers (rows,), alone.

    With two classes, set and threshold are two rules; where they name different classes there is no answer.
    """
    return (inside.sum(axis=1) == 1) & inside[np.arange(len(inside)), decided]
