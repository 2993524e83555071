"""Simulated test sets with known truth: patients of a class, their images, and predicted probabilities.

A patient has a class, drawn with the prevalence, which all its images share. Each image has a score for
each class, of variance 1; if patients have several images, half the variance is between patients. The score of
the true class is larger by a distance. The probabilities are the true posteriors, or overconfident: their
logits are half as large again. The predicted class is the one with the largest score, regardless of the
prevalences. Pairs of classes have an AUROC of Phi(distance / sqrt 2), and two classes alone the given AUROC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

#: Factor by which the logits of an overconfident model are too large.
TOO_SURE = 1.5
#: Heavy-tailed numbers of images per patient: Pareto with this exponent and maximum, 3.8 on average.
EXPONENT, MOST_IMAGES = 1.2, 40


@dataclass(frozen=True)
class Drawn:
    """A simulated test: ``truth``, ``predicted``, ``clusters`` int (rows,); probabilities float (rows, classes)."""

    truth: np.ndarray
    predicted: np.ndarray
    clusters: np.ndarray
    probabilities: np.ndarray
    too_sure: np.ndarray


@dataclass(frozen=True)
class Design:
    """A design of tests: number of ``patients`` and ``images`` per patient (``"1"``, ``"10"`` or ``"heavy"``).

    ``prevalences`` are the proportions of the classes, of two the positive one last; ``auroc`` is that of each pair
    of classes.
    """

    patients: int
    images: str
    prevalences: tuple[float, ...]
    auroc: float

    @property
    def positive(self) -> int | None:
        """The positive class, None with more than two classes."""
        return 1 if len(self.prevalences) == 2 else None

    def draw(self, rng: np.random.Generator, patients: int | None = None) -> Drawn:
        """Draw one test, of `patients` patients if given."""
        count, classes = patients or self.patients, len(self.prevalences)
        state = rng.choice(classes, count, p=self.prevalences)
        if self.images == "heavy":
            sizes = np.minimum(np.ceil((1 - rng.random(count)) ** (-1 / EXPONENT)), MOST_IMAGES).astype(np.int64)
        else:
            sizes = np.full(count, int(self.images))
        clusters = np.repeat(np.arange(count), sizes)
        truth = state[clusters]
        shared = 0.0 if self.images == "1" else 0.5
        # With two classes only the difference of the two scores distinguishes them.
        distance = stats.norm.ppf(self.auroc) * (1 if classes == 2 else np.sqrt(2))
        seen = np.sqrt(shared) * rng.normal(size=(count, classes))[clusters]
        seen += np.sqrt(1 - shared) * rng.normal(size=(len(clusters), classes)) + distance * np.eye(classes)[truth]
        logits = distance * seen + np.log(self.prevalences)
        return Drawn(truth, seen.argmax(axis=1), clusters, _softmax(logits), _softmax(TOO_SURE * logits))


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
