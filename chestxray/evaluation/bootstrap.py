"""The bootstrap clustered by patient: patients are drawn with replacement, with all their images.

Images of one patient resemble each other, so that drawing images one by one makes intervals too
narrow (Field and Welsh 2007).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from chestxray.evaluation.weighted_metrics import Key, Table

#: Numbers held in one block of weights: bounds the memory, and 1 MB stays in the processor's cache.
BLOCK = 2**17


def resamples(clusters: np.ndarray, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks of row weights, float64 (some replicates, rows): how often each row was drawn.

    `clusters` are codes 0, 1, ... of the patients, int (rows,). The same clusters, replicates and
    seed always give the same weights, so that models can be compared on the same draws.
    """
    count = int(clusters.max()) + 1
    for times in draws(count, replicates, seed, max(1, BLOCK // len(clusters))):
        yield times.take(clusters, axis=1)


def draws(patients: int, replicates: int, seed: int, block: int = 0) -> Iterator[np.ndarray]:
    """Yield blocks of float64 (some replicates, patients): how often each patient was drawn."""
    rng = np.random.default_rng(seed)
    size = block or max(1, BLOCK // patients)
    for start in range(0, replicates, size):
        rows = min(size, replicates - start)
        drawn = rng.integers(0, patients, size=(rows, patients))
        drawn += np.arange(rows)[:, None] * patients
        yield np.bincount(drawn.ravel(), minlength=rows * patients).reshape(rows, patients).astype(np.float64)


def bootstrap(
    tables: Sequence[Table], clusters: np.ndarray, *, replicates: int, seed: int, calibration: bool = True
) -> list[dict[Key, np.ndarray]]:
    """Return every figure of every table in every replicate, each float64 (replicates,).

    All tables must have the same rows in the same order; each replicate draws the same patients for all of them.
    Without `calibration` the calibration error, which takes the longest, is NaN.
    """
    blocks: list[list[dict[Key, np.ndarray]]] = [[] for _ in tables]
    of_patients = [by_patient(table.additive, clusters) for table in tables]
    for times in draws(int(clusters.max()) + 1, replicates, seed, max(1, BLOCK // len(clusters))):
        weights = times.take(clusters, axis=1)
        for table, sums, figures in zip(tables, of_patients, blocks, strict=True):
            figures.append(table.figures(weights, times @ sums, calibration=calibration))
    return [{key: np.concatenate([b[key] for b in figures]) for key in figures[0]} for figures in blocks]


def by_patient(columns: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Return the sums by patient of `columns`, float (rows, columns): (patients, columns)."""
    return np.stack([np.bincount(clusters, column) for column in columns.T], axis=1)
