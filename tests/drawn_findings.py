"""Films with findings, and predictions of findings, drawn or given."""

import numpy as np
import pandas as pd
from PIL import Image

from chestxray.data.findings import ABSENT, PRESENT, UNKNOWN, columns
from chestxray.data.index import Index
from chestxray.evaluation.finding_predictions import FindingPredictions

NAMES = ("Mass", "Edema", "Effusion")


def films(folder):
    """A table of labels of 120 films of 60 patients in `folder`: Edema is bright, Mass a square, Rare on five films; of
    some not all is known.
    """
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        edema, mass = rng.random(2) < 0.4
        pixels = rng.normal(150 if edema else 90, 20, (16, 16))
        if mass:
            pixels[4:9, 4:9] = 250 if i % 2 else 240
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03}.png")
        rows.append({
            "path": f"{i:03}.png", "patient": f"p{i // 2}", "sex": "MF"[i // 2 % 2],
            "Edema": "" if i % 11 == 0 else -1 if i % 13 == 0 else int(edema),
            "Mass": "" if i % 7 == 0 else int(mass),
            "Rare": int(i % 24 == 0),
        })  # fmt: skip
    path = folder / "labels.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def index_of(truth, findings, patients=None, split="test"):
    """An index with the states that `truth`, float (rows, findings) with NaN, says."""
    states = np.where(np.isnan(truth), UNKNOWN, np.where(truth == 1, PRESENT, ABSENT)).astype(np.int8)
    rows = pd.DataFrame(states, columns=columns(findings))
    rows["path"] = [f"/{i:05}.png" for i in range(len(truth))]
    rows["patient"] = "" if patients is None else [f"p{p}" for p in patients]
    rows["split"] = split
    return Index.from_findings(rows, findings, name="demo")


def made(truth, probabilities, findings=NAMES, patients=None, split="test"):
    return FindingPredictions.from_probabilities(index_of(truth, findings, patients, split), np.asarray(probabilities))


def example(rows=240, findings=NAMES, seed=0, a_patient=2, known=0.7, split="test", prevalence=0.3):
    """Findings that resemble each other in one film, of which each is known of `known` of the films."""
    rng = np.random.default_rng(seed)
    shared, own = rng.normal(size=(rows, 1)), rng.normal(size=(rows, len(findings)))
    truth = (rng.random((rows, len(findings))) < prevalence).astype(float)
    logits = 0.7 * shared + 0.7 * own + 1.5 * truth - 1.5
    truth[rng.random(truth.shape) >= known] = np.nan
    return made(truth, 1 / (1 + np.exp(-logits)), findings, np.arange(rows) // a_patient, split)
