"""Speed of the clustered bootstrap: all figures from row weights, compared with scikit-learn on repeated rows.

    python -m benchmarks.bootstrap

Prints one row: name, seconds of the baseline, our seconds, and their ratio, measured one after the other.
The baseline is measured over fewer replicates and scaled up, as noted in the row.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from benchmarks.table import Row, show
from chestxray.evaluation.bootstrap import bootstrap, resamples
from chestxray.evaluation.metrics import points
from chestxray.evaluation.weighted_metrics import Table


def simulated(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return truth, predictions, probabilities (rounded to three digits, so that ties occur) and patients."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    clusters = np.unique(rng.integers(0, rows // 2, rows), return_inverse=True)[1]
    return truth, probabilities.argmax(axis=1), probabilities.round(3), clusters


def measure(rows: int = 10_000, classes: int = 4, replicates: int = 2000, plain_replicates: int = 20) -> list[Row]:
    """Return the seconds of both, after a check that their results agree."""
    *table, clusters = simulated(rows, classes)
    positive = 1 if classes == 2 else None

    start = time.perf_counter()
    (ours,) = bootstrap([Table.of(*table, positive)], clusters, replicates=replicates, seed=0)
    ours_seconds = time.perf_counter() - start

    weights = np.vstack(list(resamples(clusters, plain_replicates, seed=0))).astype(int)
    start = time.perf_counter()
    plain = [points(*(np.repeat(a, row, axis=0) for a in table), positive) for row in weights]
    plain_seconds = (time.perf_counter() - start) * replicates / plain_replicates

    # The first replicates are the same draws: equal results show that both do the same work.
    for i, figures in enumerate(plain):
        for key, value in figures.items():
            assert abs(ours[key][i] - value) < 1e-6, key
    name = f"clustered bootstrap, {replicates} replicates of {len(ours)} figures at {rows} rows"
    note = f"plain scaled up from {plain_replicates} replicates"
    # The target is five seconds in total, whatever the baseline takes.
    return [Row(name, plain_seconds, ours_seconds, "s", plain_seconds / 5, note)]


def main() -> None:
    """Run the measurement and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--plain-replicates", type=int, default=20)
    options = parser.parse_args()
    show(measure(options.rows, options.classes, options.replicates, options.plain_replicates))


if __name__ == "__main__":
    main()
