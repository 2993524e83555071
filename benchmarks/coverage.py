"""Simulated coverage of the 95% confidence intervals: those of chestxray and those of other methods.

    python -m benchmarks.coverage          # writes benchmarks/coverage.md, and the data that the report uses

`benchmarks/simulated_tests.py` describes the simulated tests, `benchmarks/rival_intervals.py` the other methods.
The truth is the figure of 100,000 images. A test in which a class has no image is drawn again.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import coverage_report
from benchmarks.rival_intervals import Limits, bca, delong_logit, left_out, percentile, wilson
from benchmarks.simulated_tests import Design, Drawn
from chestxray.evaluation.bootstrap import bootstrap
from chestxray.evaluation.calibration.calibration_error import calibration_error
from chestxray.evaluation.calibration.calibration_slope import intercept, slope
from chestxray.evaluation.estimation import Scored, estimate
from chestxray.evaluation.intervals import logit_t, standard_error
from chestxray.evaluation.support import effective, supports
from chestxray.evaluation.weighted_metrics import HEADLINE, Calibration, Table
from chestxray.report import interval_coverage

REPLICATES = 400
POPULATION = 100_000
SHARES = ("accuracy", "sensitivity", "specificity", "precision")
OURS, ALONE = "ours", "logit-t alone"


@dataclass
class Tally:
    """Counts of one interval: how often it was available, above the truth and below it; and its widths."""

    tests: int = 0
    there: int = 0
    too_high: int = 0
    too_low: int = 0
    widths: list[float] = field(default_factory=list)

    def add(self, limits: Limits | None, truth: float) -> None:
        """Add the interval of one test; None or infinite limits count as not available."""
        self.tests += 1
        if limits is None or not all(map(math.isfinite, limits)):
            return
        self.there += 1
        self.too_high += truth < limits[0] - 1e-9
        self.too_low += truth > limits[1] + 1e-9
        self.widths.append(limits[1] - limits[0])

    @property
    def coverage(self) -> float:
        """Proportion of the available intervals that contain the truth."""
        return 1 - (self.too_high + self.too_low) / self.there if self.there else math.nan


@dataclass
class Result:
    """The results of one design. ``tallies`` is by figure and interval; ``effective`` is the mean effective number of
    patients of the rarest class, ``evenness`` the mean effective number of patients as a proportion of all.
    """

    design: Design
    simulations: int
    effective: float = 0.0
    evenness: float = 0.0
    tallies: dict[tuple[str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))


def designs() -> Iterator[Design]:
    """Return all simulated designs, the small ones first."""
    for patients, prevalences in ((20, (0.5,)), (60, (0.5, 0.2)), (200, (0.5, 0.2, 0.05)), (600, (0.5, 0.05))):
        for prevalence in prevalences:
            for auroc in (0.7, 0.9, 0.99):
                yield Design(patients, "1", (1 - prevalence, prevalence), auroc)
            for auroc in (0.9,) if patients == 600 else (0.9, 0.99):
                yield Design(patients, "heavy", (1 - prevalence, prevalence), auroc)
    for patients, prevalence in ((60, 0.5), (200, 0.05)):
        yield Design(patients, "10", (1 - prevalence, prevalence), 0.9)
    rare = tuple(n / 184 for n in (60, 60, 60, 4))
    for prevalences, images in itertools.product(((0.25,) * 4, rare), ("1", "heavy")):
        yield Design(184, images, prevalences, 0.9)
    yield Design(600, "1", rare, 0.9)
    rising = tuple(n / 105 for n in range(1, 15))
    for patients, images in ((200, "1"), (200, "heavy"), (600, "1")):
        yield Design(patients, images, rising, 0.95)


def simulate(design: Design, simulations: int) -> Result:
    """Simulate the tests of one design and return the counts."""
    rng = np.random.default_rng([design.patients, len(design.images), len(design.prevalences), int(1e3 * design.auroc)])
    true = truths(design.prevalences, design.auroc)
    result = Result(design, simulations)
    for seed in range(simulations):
        drawn = _drawn(design, rng)
        for (figure, kind), limits in _intervals(design, drawn, seed).items():
            result.tallies[figure, kind].add(limits, true[figure])
        rarest = min(effective(drawn.clusters[drawn.truth == k]) for k in range(len(design.prevalences)))
        result.effective += rarest / simulations
        result.evenness += effective(drawn.clusters) / len(np.unique(drawn.clusters)) / simulations
    return result


def _drawn(design: Design, rng: np.random.Generator) -> Drawn:
    while True:
        drawn = design.draw(rng)
        if len(np.unique(drawn.truth)) == len(design.prevalences):
            return drawn


@functools.cache
def truths(prevalences: tuple[float, ...], auroc: float) -> Mapping[str, float]:
    """Return every figure of the population, which does not depend on how images are grouped by patient."""
    design = Design(POPULATION, "1", prevalences, auroc)
    drawn = design.draw(np.random.default_rng(0))
    whole = np.ones((1, POPULATION))
    figures = Table.of(drawn.truth, drawn.predicted, drawn.probabilities, design.positive).figures(whole)
    found = {name: float(figures[None, name][0]) for name in HEADLINE}
    sure = Calibration.of(drawn.too_sure.max(axis=1), drawn.too_sure.argmax(axis=1) == drawn.truth)
    return found | {"ece": 0.0, "ece, too sure": float(sure.error(whole)[0]), "slope": 1.0, "intercept": 0.0}


def _intervals(design: Design, drawn: Drawn, seed: int) -> dict[tuple[str, str], Limits | None]:
    truth, predicted, clusters, positive = drawn.truth, drawn.predicted, drawn.clusters, design.positive
    table = Table.of(truth, predicted, drawn.probabilities, positive)
    values = {key: float(value[0]) for key, value in table.figures(np.ones((1, len(truth)))).items()}
    (replicates,) = bootstrap([table], clusters, replicates=REPLICATES, seed=seed)
    scored = Scored(truth, predicted, drawn.probabilities, values, replicates)
    figures = estimate([scored], clusters, positive, replicates=REPLICATES, seed=seed).figures
    support = supports(truth, predicted, clusters, len(design.prevalences), positive)
    fewest = min(support[k, "sensitivity"] for k in range(len(design.prevalences)))
    without = left_out(table, clusters)
    found: dict[tuple[str, str], Limits | None] = {}
    for name in HEADLINE:
        key = (None, name)
        value, drawn_values = values[key], replicates[key]
        found[name, OURS] = _limits(figures[key])
        # One rule for all: the patients that the figure is computed from; for a mean over classes the fewest of any.
        least = fewest if name in ("mcc", "f1_macro", "balanced_accuracy") else support[key]
        most = 2.0 if name == "brier" and positive is None else 1.0
        span = (-1.0, 1.0) if name == "mcc" else (0.0, most)
        found[name, ALONE] = _limits(logit_t(value, drawn_values, least, span))
        if not math.isfinite(value) or not np.isfinite(drawn_values).any():
            continue
        found[name, "percentile"] = percentile(drawn_values)
        found[name, "BCa"] = bca(value, drawn_values, without[key])
        if name in SHARES and (positive is not None or name == "accuracy"):
            found[name, "Wilson"] = wilson(value, _rows(name, truth, predicted), standard_error(drawn_values, 1e9))
    if positive is not None:
        found["auroc", "DeLong-logit"] = delong_logit(truth == 1, drawn.probabilities[:, 1], clusters)
        found["intercept", OURS] = _limits(intercept(drawn.probabilities[:, 1], truth == 1, clusters, fewest))
    found["slope", OURS] = _limits(slope(drawn.probabilities, truth, clusters, fewest))
    sure = drawn.too_sure
    answers = sure.max(axis=1), sure.argmax(axis=1) == truth
    error = calibration_error(*answers, clusters, replicates=REPLICATES, seed=seed)
    found["ece, too sure", OURS] = _limits(error.corrected)
    return found


def _rows(name: str, truth: np.ndarray, predicted: np.ndarray) -> int:
    chosen = {"sensitivity": truth == 1, "specificity": truth == 0, "precision": predicted == 1}
    return int(chosen[name].sum()) if name in chosen else len(truth)


def _limits(figure: object) -> Limits | None:
    low, high = getattr(figure, "low", None), getattr(figure, "high", None)
    return None if low is None or high is None else (low, high)


def main() -> None:
    """Run the simulations and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=300, help="simulated tests of each design")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    report = Path(interval_coverage.__file__)
    parser.add_argument("--pooled", type=Path, default=report.with_name(interval_coverage.FILE), help="for the report")
    options = parser.parse_args()
    start, chosen = time.perf_counter(), list(designs())
    # The work is parallel by processes; BLAS threads would only compete with them.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    # The large ones first, so that no long one runs alone at the end.
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        arguments = [(design, options.simulations) for design in reversed(chosen)]
        results = pool.starmap(simulate, arguments, chunksize=1)[::-1]
    text = coverage_report.text(results, options.simulations, REPLICATES, (time.perf_counter() - start) / 60)
    options.output.write_text(text)
    options.pooled.write_text(json.dumps(coverage_report.bands(results), indent=1) + "\n")


if __name__ == "__main__":
    main()
