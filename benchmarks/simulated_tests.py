"""Simulated tests of which the truth is known: patients with a state, images that share it, probabilities.

A patient has a class, drawn with the prevalence, and images that share it. Each image has a number for
each class, of variance 1, of which half the variance is the patient's where there are several images, and
that of the true class is larger by a distance. The probabilities are the true posteriors, or too sure of
themselves: their logits are half as large again. The answer is the class whose probability is largest for
its prevalence. Pairs of classes have an AUROC of Phi(distance / sqrt 2), and two classes alone the AUROC named.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

#: By how much the logits of an overconfident model are too large.
TOO_SURE = 1.5
#: Images a patient, heavy-tailed: Pareto with this exponent and at most so many, 3.8 on average.
EXPONENT, MOST_IMAGES = 1.2, 40


@dataclass(frozen=True)
class Drawn:
    """``truth``, ``predicted`` and ``clusters`` are int (rows,), ``probabilities`` and ``too_sure`` (rows, classes)."""

    truth: np.ndarray
    predicted: np.ndarray
    clusters: np.ndarray
    probabilities: np.ndarray
    too_sure: np.ndarray


@dataclass(frozen=True)
class Design:
    """Tests of so many ``patients`` with ``images`` each: ``"1"``, ``"10"`` or ``"heavy"``.

    ``prevalences`` are those of the classes, the positive one of two last; ``auroc`` is that of a pair of classes.
    """

    patients: int
    images: str
    prevalences: tuple[float, ...]
    auroc: float

    @property
    def positive(self) -> int | None:
        """The class that the headline speaks of."""
        return 1 if len(self.prevalences) == 2 else None

    def draw(self, rng: np.random.Generator, patients: int | None = None) -> Drawn:
        """One test."""
        count, classes = patients or self.patients, len(self.prevalences)
        state = rng.choice(classes, count, p=self.prevalences)
        if self.images == "heavy":
            sizes = np.minimum(np.ceil((1 - rng.random(count)) ** (-1 / EXPONENT)), MOST_IMAGES).astype(np.int64)
        else:
            sizes = np.full(count, int(self.images))
        clusters = np.repeat(np.arange(count), sizes)
        truth = state[clusters]
        shared = 0.0 if self.images == "1" else 0.5
        # Of two classes the difference of both numbers is what tells them apart.
        distance = stats.norm.ppf(self.auroc) * (1 if classes == 2 else np.sqrt(2))
        seen = np.sqrt(shared) * rng.normal(size=(count, classes))[clusters]
        seen += np.sqrt(1 - shared) * rng.normal(size=(len(clusters), classes)) + distance * np.eye(classes)[truth]
        logits = distance * seen + np.log(self.prevalences)
        return Drawn(truth, seen.argmax(axis=1), clusters, _softmax(logits), _softmax(TOO_SURE * logits))


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
