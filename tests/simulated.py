"""Predictions of models that are not there, of any skill."""

import numpy as np
import pandas as pd

from chestxray.evaluation.predictions import Predictions

CLASSES = ("NORMAL", "PNEUMONIA")


def predictions(skill, rows=150, seed=0, patients=None, classes=CLASSES):
    """A model of some `skill`; models of one `seed` see the same images."""
    images = np.random.default_rng(seed)
    truth = images.integers(0, len(classes), rows)
    shared = images.normal(size=(rows, len(classes)))
    own = np.random.default_rng([seed, int(skill * 100)]).normal(size=(rows, len(classes)))
    logits = 0.8 * shared + 0.6 * own + skill * np.eye(len(classes))[truth]
    table = pd.DataFrame(
        {
            "path": [f"/{i:05}.png" for i in range(rows)],
            "patient": [""] * rows if patients is None else [f"p{p}" for p in patients],
            "split": "test",
            "source": "demo",
            "label": np.array(classes)[truth],
        }
    )
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions.from_probabilities(table, classes, probabilities)
