"""Predictions of a test, drawn or given."""

import numpy as np
import pandas as pd

from chestxray.evaluation.predictions import Predictions


def made(truth, probabilities, classes, patients=None, threshold=None):
    rows = pd.DataFrame(
        {
            "path": [f"/{i:05}.png" for i in range(len(truth))],
            "patient": [""] * len(truth) if patients is None else [f"p{p}" for p in patients],
            "split": "test",
            "source": "demo",
            "label": np.array(classes)[truth],
        }
    )
    predictions = Predictions.from_probabilities(rows, classes, probabilities)
    if threshold is not None:
        predictions.rows["predicted"] = np.array(classes)[(probabilities[:, 1] >= threshold).astype(int)]
    return predictions


def example(rows=120, classes=("NORMAL", "PNEUMONIA"), seed=0, patients=None, threshold=None):
    rng = np.random.default_rng(seed)
    truth = np.arange(rows) % len(classes)
    logits = rng.normal(size=(rows, len(classes))) + 1.5 * np.eye(len(classes))[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return made(truth, probabilities, classes, patients, threshold)
