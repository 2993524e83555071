"""How often do 95% intervals hold the truth, and paired tests cry wolf? Simulated radiographs' scores.

    python -m benchmarks.coverage          # writes benchmarks/coverage.md

A patient has a state, drawn with the prevalence, and images that share it; a score is the state times
a distance, plus a part that the patient's images share, plus a part of its own, the two parts together
of variance 1. The truth is then known in closed form: AUROC Phi(distance / sqrt 2), and accuracy
Phi(distance / 2) at the middle.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from chestxray.bootstrap import resamples
from chestxray.evaluation import supports
from chestxray.intervals import logit_t
from chestxray.paired import accuracy_test, auroc_test
from chestxray.weighted import Ranking

REPLICATES = 1000
#: Mean images a patient, and the share of a score's variance that they have in common.
CLUSTERED = (3, 0.5)


@dataclass(frozen=True)
class Cell:
    rows: int
    clustered: bool
    prevalence: float
    auroc: float

    @property
    def distance(self) -> float:
        return float(np.sqrt(2) * stats.norm.ppf(self.auroc))

    @property
    def accuracy(self) -> float:
        return float(stats.norm.cdf(self.distance / 2))

    def draw(self, rng: np.random.Generator, models: int = 1) -> tuple[np.ndarray, ...]:
        """Patients (rows,), states (rows,), scores (models, rows)."""
        mean, shared = CLUSTERED if self.clustered else (1, 0.0)
        sizes = rng.geometric(1 / mean, self.rows)
        clusters = np.repeat(np.arange(self.rows), sizes)[: self.rows]
        patients = clusters[-1] + 1
        state = (rng.random(patients) < self.prevalence)[clusters]
        common = rng.normal(size=(models, patients))[:, clusters]
        # Two models look at the same images, and err together half of the time.
        both = [rng.normal(size=patients)[clusters], rng.normal(size=self.rows)]
        own = rng.normal(size=(models, self.rows))
        if models > 1:
            common, own = (np.sqrt(0.5) * (part + same) for part, same in zip((common, own), both, strict=True))
        return clusters, state, self.distance * state + np.sqrt(shared) * common + np.sqrt(1 - shared) * own


def covered(cell: Cell, simulations: int) -> dict[str, float]:
    """Shares of the simulations in which each interval held the truth, and mean widths."""
    found: dict[str, list[float]] = {}
    rng = np.random.default_rng([cell.rows, cell.clustered, int(100 * cell.prevalence), int(1000 * cell.auroc)])
    for simulation in range(simulations):
        clusters, state, (score,) = cell.draw(rng)
        if state.all() or not state.any():
            continue
        claimed = score > cell.distance / 2
        ranking, right = Ranking.of(score, state), (claimed == state).astype(float)
        support = supports(state.astype(int), claimed.astype(int), clusters, 2, 1)
        drawn: dict[str, list[np.ndarray]] = {"auroc": [], "accuracy": []}
        for weights in resamples(clusters, REPLICATES, simulation):
            drawn["auroc"].append(ranking.areas(weights)[0])
            drawn["accuracy"].append(weights @ right / weights.sum(axis=1))
        values = {"auroc": ranking.areas(np.ones((1, cell.rows)))[0][0], "accuracy": right.mean()}
        for name, value in values.items():
            truth, replicates = getattr(cell, name), np.concatenate(drawn[name])
            figure = logit_t(float(value), replicates, support[None, name])
            low, high = np.nanquantile(replicates, [0.025, 0.975])
            found.setdefault(name, []).append(figure.low <= truth <= figure.high)
            found.setdefault(name + " percentile", []).append(low <= truth <= high)
            found.setdefault(name + " width", []).append(figure.high - figure.low)
    return {name: float(np.mean(values)) for name, values in found.items()}


def rejected(cell: Cell, simulations: int) -> dict[str, float]:
    """Shares of the simulations in which two models of the same skill are told apart at p < .05."""
    rng = np.random.default_rng([cell.rows, cell.clustered, 7])
    found: dict[str, list[float]] = {}
    for _ in range(simulations):
        clusters, state, scores = cell.draw(rng, models=2)
        right = (scores > cell.distance / 2) == state
        for kind, patients in {"": clusters, " rows apart": np.arange(cell.rows)}.items():
            for name, test in {
                "auroc": auroc_test(state, scores[0], scores[1], patients),
                "accuracy": accuracy_test(right[0], right[1], patients),
            }.items():
                found.setdefault(name + kind, []).append(test.p is not None and test.p < 0.05)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _intervals(cells: list[Cell], results: list[dict[str, float]]) -> list[str]:
    lines = [
        "| images | a patient | prevalence | true AUROC | AUROC | percentile | width "
        "| true accuracy | accuracy | percentile | width |",
        "| ---: " * 11 + "|",
    ]
    for cell, result in zip(cells, results, strict=True):
        columns = [str(cell.rows), str(CLUSTERED[0] if cell.clustered else 1), f"{cell.prevalence:g}"]
        for name in ("auroc", "accuracy"):
            columns += [f"{getattr(cell, name):.3f}", f"**{_percent(result[name])}**"]
            columns += [_percent(result[name + " percentile"]), f"{result[name + ' width']:.3f}"]
        lines.append("| " + " | ".join(columns) + " |")
    return lines


def _outside(results: list[dict[str, float]]) -> str:
    told = []
    for kind, label in {"": "ours", " percentile": "the percentile interval"}.items():
        shares = [result[name + kind] for result in results for name in ("auroc", "accuracy")]
        odd = sorted(_percent(share) for share in shares if not 0.93 <= share <= 0.97)
        listed = f" ({', '.join(odd)})" if len(odd) <= 6 else f", down to {_percent(min(shares))}"
        told.append(f"{len(odd)} of {len(shares)} coverages of {label} lie outside 93 to 97{listed if odd else ''}")
    return "; ".join(told) + "."


def _tests(cells: list[Cell], results: list[dict[str, float]]) -> list[str]:
    lines = [
        "| images | a patient | AUROC: DeLong, ours | rows apart | accuracy: McNemar, ours | rows apart |",
        "| ---: " * 6 + "|",
    ]
    for cell, result in zip(cells, results, strict=True):
        columns = [str(cell.rows), str(CLUSTERED[0] if cell.clustered else 1)]
        for name in ("auroc", "accuracy"):
            columns += [f"**{_percent(result[name])}**", _percent(result[name + " rows apart"])]
        lines.append("| " + " | ".join(columns) + " |")
    return lines


def main() -> None:
    """Simulate, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1200, help="simulations a row")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    start = time.perf_counter()
    cells = [Cell(*c) for c in itertools.product((200, 600), (False, True), (0.5, 0.2), (0.75, 0.9, 0.95, 0.985))]
    equal = [Cell(rows, clustered, 0.5, 0.9) for rows in (200, 600) for clustered in (False, True)]
    # The processes are the parallelism; their BLAS threads would only get in each other's way.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        coverage = pool.starmap(covered, [(c, options.simulations) for c in cells], chunksize=1)
        errors = pool.starmap(rejected, [(c, 2 * options.simulations) for c in equal], chunksize=1)
    seconds = time.perf_counter() - start
    noise = 100 * np.sqrt(0.95 * 0.05 / options.simulations)
    text = [
        "# Coverage of intervals, and false alarms of paired tests",
        "",
        f"`python -m benchmarks.coverage --simulations {options.simulations}`: {options.simulations} simulated "
        f"tests a row, {REPLICATES} replicates each, in {seconds / 60:.0f} minutes. "
        f"The Monte Carlo error of a coverage of 95% is {noise:.1f} points. `benchmarks/coverage.py` says what is "
        "simulated.",
        "",
        "Share of the 95% intervals that hold the truth, in percent: ours (**bold**, logit-t bootstrap clustered by "
        "patient) beside the plain percentile interval of the same replicates; width is the mean width of ours. "
        f"With several images a patient, their number is geometric with mean {CLUSTERED[0]}, all of one state, and "
        f"{100 * CLUSTERED[1]:.0f}% of a score's variance is the patient's.",
        "",
        *_intervals(cells, coverage),
        "",
        _outside(coverage),
        "",
        "Share of pairs of models of equal skill (AUROC 0.9) that are told apart at p < 0.05, in percent: ours, "
        "which goes by patient, beside the same test taking every image as independent. McNemar's exact test is "
        "known to stay below its level.",
        "",
        *_tests(equal, errors),
        "",
    ]
    options.output.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
