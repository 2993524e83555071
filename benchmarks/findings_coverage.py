"""Coverage of the 95% intervals of the means over findings, on drawn tests.

    python -m benchmarks.findings_coverage [--patients 800] [--simulations 300]

A patient has 1 to 4 films and eight findings of 2% to 30%, which go together within a patient and with each other; each
is known of 70% of the patients. The true means are those of 200,000 other patients. A test in which not every finding
has enough patients to be scored has a mean over fewer, which has another true value, and is drawn anew: where the
rarest finding often has too few, the tests that remain have more of it than there are, and their AUPRC is higher. The
number of such tests is printed.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn import metrics

from chestxray.data.findings import ABSENT, PRESENT, UNKNOWN, columns
from chestxray.data.index import Index
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.findings_evaluation import evaluate_findings

PREVALENCE = np.array([0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3])
NAMES = tuple("abcdefgh")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=800)
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="Of the first test; each further test has the next.")
    chosen = parser.parse_args()
    truth, probabilities, _ = drawn(np.random.default_rng(1), 200_000, known=1)
    true = figures(truth, probabilities)
    within, too_low, width = (dict.fromkeys(true, 0.0) for _ in range(3))
    used, seed = 0, chosen.seed
    while used < chosen.simulations:
        truth, probabilities, patients = drawn(np.random.default_rng(1000 + seed), chosen.patients)
        table = FindingPredictions.from_probabilities(index_of(truth, patients), probabilities)
        found = evaluate_findings(table, replicates=chosen.replicates, seed=seed)
        seed += 1
        if len(found.scored) < len(NAMES):
            continue
        used += 1
        for name, value in true.items():
            figure = found.test[name]
            assert figure.low is not None and figure.high is not None
            within[name] += figure.low <= value <= figure.high
            too_low[name] += value < figure.low
            width[name] += figure.high - figure.low
    print(f"{used} tests of {chosen.patients} patients, {seed - chosen.seed - used} more with a finding of too few")
    for name, value in true.items():
        parts = {"covered": within[name], "true value below": too_low[name], "width": width[name]}
        print(name, json.dumps({"true": round(value, 3)} | {key: round(v / used, 3) for key, v in parts.items()}))


def drawn(rng: np.random.Generator, patients: int, known: float = 0.7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, NaN where not known, probabilities, both (films, findings), and the patient of each film."""
    films = rng.integers(1, 5, patients)
    patient, count = np.repeat(np.arange(patients), films), int(films.sum())
    shared, own = rng.normal(size=(patients, 1)), rng.normal(size=(patients, len(NAMES)))
    noise = rng.normal(size=(count, len(NAMES)))
    severity = 0.5 * shared[patient] + 0.6 * own[patient] + np.sqrt(1 - 0.25 - 0.36) * noise
    truth = (severity > norm.ppf(1 - PREVALENCE)).astype(float)
    of_patient, of_finding = rng.normal(size=(patients, 1)), rng.normal(size=(patients, len(NAMES)))
    noise = rng.normal(size=(count, len(NAMES)))
    score = 1.2 * truth + 0.5 * of_patient[patient] + 0.5 * of_finding[patient] + 0.7 * noise
    truth[rng.random((patients, len(NAMES)))[patient] >= known] = np.nan
    return truth, 1 / (1 + np.exp(-(1.5 * score - 3))), patient


def figures(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the mean of each figure over the findings, by scikit-learn."""
    called, findings = probabilities >= 0.5, range(len(NAMES))
    of_each = {
        "auroc": [metrics.roc_auc_score(truth[:, i], probabilities[:, i]) for i in findings],
        "auprc": [metrics.average_precision_score(truth[:, i], probabilities[:, i]) for i in findings],
        "sensitivity": [metrics.recall_score(truth[:, i], called[:, i]) for i in findings],
        "specificity": [metrics.recall_score(truth[:, i], called[:, i], pos_label=0) for i in findings],
        "precision": [metrics.precision_score(truth[:, i], called[:, i]) for i in findings],
        "f1": [metrics.f1_score(truth[:, i], called[:, i]) for i in findings],
        "brier": [metrics.brier_score_loss(truth[:, i], probabilities[:, i]) for i in findings],
    }
    return {name: float(np.mean(values)) for name, values in of_each.items()}


def index_of(truth: np.ndarray, patients: np.ndarray) -> Index:
    """Return an index of films with these states."""
    states = np.where(np.isnan(truth), UNKNOWN, np.where(truth == 1, PRESENT, ABSENT)).astype(np.int8)
    rows = pd.DataFrame(states, columns=columns(NAMES))
    rows = rows.assign(path=[f"/{i:06}.png" for i in range(len(rows))], patient=patients.astype(str), split="test")
    return Index.from_findings(rows, NAMES, name="drawn")


if __name__ == "__main__":
    main()
