"""Simulated level and power of the paired tests, in their previous and their current version.

    python -m benchmarks.paired_tests      # writes benchmarks/paired_tests.md

*Before* are the previous tests: DeLong's with a normal reference, McNemar's exact test, Student's t with
the degrees of freedom of the rarest class, and p-values of the trained models alone. Each table describes its
simulation. A test keeps its level if equal models are reported as different in at most 5% of the simulations.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from chestxray.evaluation.paired.candidate_figures import estimated
from chestxray.evaluation.paired.candidate_tests import tested
from chestxray.evaluation.paired.p_value_function import DifferenceTest, t_test
from chestxray.evaluation.paired.paired_tests import accuracy_test, auroc_test, delong
from chestxray.evaluation.paired.training_variance import over_folds, over_seeds
from chestxray.evaluation.predictions import Predictions

REPLICATES = 400
#: Proportion of a score's variance that two models share, and that the images of a patient share.
COMMON = SHARED = 0.5


def scores(rng: np.random.Generator, state: np.ndarray, clusters: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return scores of one model per value of `distances` on the same images, float (models, rows)."""
    models, rows, patients = len(distances), len(clusters), int(clusters.max()) + 1
    shared = SHARED if patients < rows else 0.0

    def part(count: int) -> np.ndarray:
        own, both = rng.normal(size=(models, count)), rng.normal(size=count)
        return np.sqrt(1 - COMMON) * own + np.sqrt(COMMON) * both

    noise = np.sqrt(shared) * part(patients)[:, clusters] + np.sqrt(1 - shared) * part(rows)
    return distances[:, None] * state + noise


def distance(auroc: float) -> float:
    return math.sqrt(2) * float(stats.norm.ppf(auroc))


def drawn_patients(rng: np.random.Generator, patients: int, images: int) -> np.ndarray:
    return np.repeat(np.arange(patients), rng.geometric(1 / images, patients) if images > 1 else 1)


def shares(found: list[tuple[bool, ...]]) -> list[str]:
    return [f"{100 * share:.1f}" for share in np.mean(np.array(found, dtype=float), axis=0)]


def told_apart(p: float | None) -> bool:
    return p is not None and p < 0.05


# AUROC of one training


def areas(sick: int, well: int, images: int, aurocs: tuple[float, float], simulations: int) -> list[str]:
    """Return in %: rejection rates before and now, and the coverage of the interval."""
    rng = np.random.default_rng([sick, well, images])
    gap, found = aurocs[0] - aurocs[1], []
    for _ in range(simulations):
        clusters = drawn_patients(rng, sick + well, images)
        state = clusters < sick
        given = scores(rng, state, clusters, np.array([distance(a) for a in aurocs]))
        test = auroc_test(state, *given, clusters)
        (first, second), covariance = delong(state, given, clusters)
        variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        normal = 2 * stats.norm.sf(abs(first - second) / math.sqrt(variance)) if variance > 1e-15 else 1.0
        figure = test.figure()
        # Two perfect or equal rankings have no interval; this counts as covering the truth.
        holds = figure.low is None or figure.low <= gap <= figure.high
        found.append((told_apart(normal), told_apart(test.p), holds))
    return shares(found)


# Accuracy of one training


def accuracies(rows: int, unlike: float, gap: float, images: int, simulations: int) -> list[str]:
    """Return in %: rejection rates before and now, and the coverage of the interval."""
    rng = np.random.default_rng([rows, int(100 * unlike), int(100 * gap), images])
    found = []
    for _ in range(simulations):
        clusters = drawn_patients(rng, rows // images, images)
        # Each image of a patient has the outcome of the first with probability SHARED.
        kinds = rng.choice(3, size=len(clusters), p=[(unlike + gap) / 2, (unlike - gap) / 2, 1 - unlike])
        first = kinds[np.searchsorted(clusters, clusters)]
        kinds = np.where(rng.random(len(clusters)) < SHARED, first, kinds) if images > 1 else kinds
        test = accuracy_test(kinds != 1, kinds != 0, clusters)
        wins, losses = int((kinds == 0).sum()), int((kinds == 1).sum())
        exact = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        figure = test.figure()
        before = exact if images == 1 else test.p
        found.append((told_apart(before), told_apart(test.p), figure.low <= gap <= figure.high))
    return shares(found)


# Means over classes with a rare one


def macro(metric: str, counts: tuple[int, ...], skills: tuple[float, float], simulations: int) -> list[str]:
    """Return rejection rates in %: with the degrees of freedom of the rarest class, and now."""
    rng = np.random.default_rng([*counts, int(10 * skills[0])])
    classes = tuple("abcdefgh"[: len(counts)])
    truth = np.repeat(np.arange(len(counts)), counts)
    rows = pd.DataFrame({"path": [f"{i:04}" for i in range(len(truth))], "patient": "", "split": "test"})
    rows = rows.assign(source="drawn", label=np.array(classes)[truth])
    found = []
    for simulation in range(simulations):
        both = rng.normal(size=(len(truth), len(counts)))
        tables = {}
        for name, skill in zip(("one", "other"), skills, strict=True):
            noise = np.sqrt(COMMON) * both + np.sqrt(1 - COMMON) * rng.normal(size=both.shape)
            odds = np.exp(noise + skill * np.eye(len(counts))[truth])
            probabilities = odds / odds.sum(axis=1, keepdims=True)
            tables[name] = (Predictions.from_probabilities(rows, classes, probabilities),)
        one, other = estimated(
            tables, "one", metric, None, np.arange(len(truth)), replicates=REPLICATES, seed=simulation
        )
        support = min(one.support, other.support)
        error = float((one.replicates - other.replicates).std(ddof=1)) * math.sqrt(support / (support - 1))
        before = t_test(one.value - other.value, error, support - 1, "")
        found.append((told_apart(before.p), told_apart(tested(one, other, "one").p)))
    return shares(found)


# Cross-validation


def learnt(features: np.ndarray, truth: np.ndarray, penalty: float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a ridge regression to the labels, which ranks like a linear discriminant; return its scoring function."""
    middle = features.mean(axis=0)
    centred = features - middle
    normal = centred.T @ centred + penalty * np.eye(features.shape[1])
    slopes = np.linalg.solve(normal, centred.T @ (truth - truth.mean()))
    return lambda others: (others - middle) @ slopes


def cross_validated(
    rows: int, folds: int, own: int, signals: tuple[float, float], simulations: int
) -> tuple[list[str], str]:
    """Return rejection rates in %, of the tests of single trainings on pooled folds and now, and the mean AUROC.

    Two learners have `own` features each and five in common; `signals` are the distances between the classes in
    each learner's own features.
    """
    rng = np.random.default_rng([rows, folds, own, int(100 * signals[1])])
    truth = np.arange(rows) % 2 == 1
    fold = (np.arange(rows) // 2) % folds
    ratio = np.full(folds, 1 / (folds - 1))
    found, areas_found = [], []
    for _ in range(simulations):
        both = rng.normal(size=(rows, 5)) + signals[0] * truth[:, None]
        seen = [np.hstack([rng.normal(size=(rows, own)) + signal * truth[:, None], both]) for signal in signals]
        given = np.zeros((2, rows))
        for number, (model, features) in itertools.product(range(folds), enumerate(seen)):
            test = fold == number
            given[model, test] = learnt(features[~test], truth[~test].astype(float))(features[test])
        areas_found.append(delong(truth, given, np.arange(rows))[0].mean())
        right = (given > 0) == truth
        parts = [np.flatnonzero(fold == number) for number in range(folds)]
        gaps = np.array([np.subtract(*delong(truth[p], given[:, p], np.arange(len(p)))[0]) for p in parts])
        hits = np.array([right[0, p].mean() - right[1, p].mean() for p in parts])
        pooled = auroc_test(truth, *given, np.arange(rows)), accuracy_test(*right, np.arange(rows))
        now = [_corrected(values, ratio) for values in (gaps, hits)]
        found.append(tuple(told_apart(test.p) for pair in zip(pooled, now, strict=True) for test in pair))
    return shares(found), f"{np.mean(areas_found):.2f}"


def _corrected(values: np.ndarray, ratio: np.ndarray) -> DifferenceTest:
    spread = over_folds(values, ratio)
    return t_test(spread.value, spread.error, spread.freedom, "")


# Seeds


def seeds(patients: int, count: int, luck: float, gap: float, simulations: int) -> list[str]:
    """Return in %: rejection rates for the trained models alone and with random seeds, and coverage of each interval.

    The models have an AUROC of .85 and of .85 - `gap`; `luck` is the standard deviation between trainings.
    """
    rng = np.random.default_rng([patients, count, int(1000 * luck), int(100 * gap)])
    state, clusters = np.arange(patients) % 2 == 1, np.arange(patients)
    mean = np.repeat([0.85, 0.85 - gap], count)
    weights = np.repeat([1.0, -1.0], count) / count
    found = []
    for _ in range(simulations):
        aurocs = np.clip(mean + luck * rng.normal(size=2 * count), 0.5, 0.995)
        given = scores(rng, state, clusters, np.sqrt(2) * stats.norm.ppf(aurocs))
        values, covariance = delong(state, given, clusters)
        freedom = patients / 2 - 1
        before = t_test(float(values @ weights), math.sqrt(weights @ covariance @ weights), freedom, "")
        spread = over_seeds([values[:count], values[count:]], [1, -1], covariance, freedom)
        now = t_test(spread.value, spread.error, spread.freedom, "")
        figures = [test.figure() for test in (before, now)]
        holds = [figure.low <= gap <= figure.high for figure in figures]
        found.append((told_apart(before.p), told_apart(now.p), *holds))
    return shares(found)


# Agreement of a pair's interval and p-value


def conflicts(rows: int, simulations: int) -> list[str]:
    """Return how often interval and p-value disagree about a difference, in %: AUROC and accuracy, before (bootstrap
    interval; DeLong, McNemar exact) and now.
    """
    rng = np.random.default_rng(rows)
    clusters, state = np.arange(rows), np.arange(rows) % 4 == 0
    classes = ("NORMAL", "PNEUMONIA")
    frame = pd.DataFrame({"path": [f"{i:04}" for i in range(rows)], "patient": "", "split": "test"})
    frame = frame.assign(source="drawn", label=np.array(classes)[state.astype(int)])
    found = []
    for simulation in range(simulations):
        given = scores(rng, state, clusters, np.array([distance(0.93), distance(0.85)]))
        sick = 1 / (1 + np.exp(-(given - distance(0.9) / 2)))
        tables = {
            name: (Predictions.from_probabilities(frame, classes, np.column_stack([1 - p, p])),)
            for name, p in zip(("one", "other"), sick, strict=True)
        }
        right = [table.predicted == table.truth for (table,) in tables.values()]
        exact = stats.binomtest(int((right[0] & ~right[1]).sum()), max(1, int((right[0] != right[1]).sum()))).pvalue
        (a, b), covariance = delong(state, sick, clusters)
        normal = 2 * stats.norm.sf(abs(a - b) / math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
        line: list[bool] = []
        tests = (auroc_test(state, *sick, clusters), accuracy_test(*right, clusters))
        for metric, before, now in zip(("auroc", "accuracy"), (normal, exact), tests, strict=True):
            one, other = estimated(tables, "one", metric, 1, clusters, replicates=REPLICATES, seed=simulation)
            old = tested(one, other, "one").figure()
            new = now.figure()
            line += [_apart(old.low, old.high) != (before < 0.05), _apart(new.low, new.high) != told_apart(now.p)]
        found.append(tuple(line))
    return shares(found)


def _apart(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and not low <= 0 <= high


def table(heads: list[str], lines: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(heads) + " |", "| ---: " * len(heads) + "|"] + [
        "| " + " | ".join(line) + " |" for line in lines
    ]


def main() -> None:
    """Run the simulations and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000, help="simulations a row")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    start, count = time.perf_counter(), options.simulations
    few = max(count // 4, 10)
    sizes = ((6, 54), (10, 190), (25, 25), (50, 150))
    pairs = ((0.75, 0.75), (0.9, 0.9), (0.99, 0.99), (0.9, 0.8), (0.99, 0.95))
    of_areas = [
        [f"{sick} + {well}", str(images), f"{a:g}", f"{b:g}", *areas(sick, well, images, (a, b), count)]
        for images, (sick, well), (a, b) in itertools.product((1, 3), sizes, pairs)
    ]
    of_accuracies = [
        [str(rows), str(images), f"{unlike:g}", f"{gap:g}", *accuracies(rows, unlike, gap, images, count)]
        for images, rows, (unlike, gap) in itertools.product(
            (1, 3), (60, 240), ((0.06, 0), (0.2, 0), (0.1, 0.08), (0.2, 0.1))
        )
    ]
    of_classes = [
        [metric, "/".join(map(str, counts)), f"{a:g}", f"{b:g}", *macro(metric, counts, (a, b), few)]
        for metric, counts, (a, b) in itertools.product(
            ("balanced_accuracy", "auroc"), ((60, 60, 60, 6), (60, 6)), ((1.5, 1.5), (1.9, 1.5))
        )
    ]
    of_folds = []
    for (rows, folds), own, signals in itertools.product(
        ((60, 5), (200, 5), (200, 10), (200, 2)), (5, 20), ((0.3, 0.3), (0.5, 0.2))
    ):
        line, auroc = cross_validated(rows, folds, own, signals, count)
        of_folds.append(
            [str(rows), str(folds), str(own), "equal" if len(set(signals)) == 1 else "unlike", auroc, *line]
        )
    of_seeds = [
        [str(patients), str(number), f"{luck:g}", f"{gap:g}", *seeds(patients, number, luck, gap, count)]
        for patients, number, (luck, gap) in itertools.product(
            (200, 1000), (2, 3, 5), ((0, 0), (0.02, 0), (0.04, 0), (0.02, 0.05))
        )
    ]
    of_conflicts = [[str(rows), *conflicts(rows, few)] for rows in (60, 200)]
    minutes = (time.perf_counter() - start) / 60
    text = _page(count, few, minutes, of_areas, of_accuracies, of_classes, of_folds, of_seeds, of_conflicts)
    options.output.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


def _page(count: int, few: int, minutes: float, *found: list[list[str]]) -> list[str]:
    of_areas, of_accuracies, of_classes, of_folds, of_seeds, of_conflicts = found
    noise = 100 * math.sqrt(0.05 * 0.95 / count)
    return [
        "# Paired tests: level and power",
        "",
        f"`python -m benchmarks.paired_tests --simulations {count}`: {count} simulations a row ({few} where the "
        f"bootstrap is drawn), {minutes:.0f} minutes on one core. The Monte Carlo error of 5% is {noise:.1f} points. "
        "Shares are percentages of the simulations; of two equally good models, telling them apart is wrong, and 5 "
        "is promised at the most; of two unlike ones it is the power. `benchmarks/paired_tests.py` says what is drawn.",
        "",
        "## AUROC of two trained models",
        "",
        "DeLong's test clustered by patient: the normal reference (before), and Student's t with the degrees of "
        "freedom of the fewer patients. *Holds* is the coverage of the interval of the difference, by the same t. "
        "Of few patients and an AUROC of .99 a handful of images decide: hardly a difference can be shown, and where "
        "there is one the interval is too short.",
        "",
        *table(["patients", "images each", "AUROC", "AUROC", "before", "**now**", "holds"], of_areas),
        "",
        "## Accuracy of two trained models",
        "",
        "McNemar's exact test (before) and mid-p; with several images a patient the clustered test of Obuchowski, "
        "then as now. *Unlike* is the share of images on which one model alone is right; *holds* is the coverage of "
        "the interval, which is Tango's score interval scaled to the same p.",
        "",
        *table(["images", "images each", "unlike", "difference", "before", "**now**", "holds"], of_accuracies),
        "",
        "## Means over classes with a rare one",
        "",
        "Paired bootstrap with the degrees of freedom of the rarest class (before), and with those of each class as "
        "much as it varies.",
        "",
        *table(["figure", "images by class", "skill", "skill", "before", "**now**"], of_classes),
        "",
        "## Cross-validation",
        "",
        "Two learners of equal or unlike skill, trained and tested in each fold. The tests above on the pooled folds, "
        "which were all that there was, speak of the trained models, which do differ; the corrected resampled t speaks "
        "of the learners.",
        "",
        *table(
            [
                "images",
                "folds",
                "features",
                "learners",
                "AUROC",
                "AUROC before",
                "**now**",
                "accuracy before",
                "**now**",
            ],
            of_folds,
        ),
        "",
        "## Seeds",
        "",
        "Figures are means over seeds; *luck* is the standard deviation of the AUROC over trainings. Before: the "
        "trained models on other patients.",
        "",
        *table(["patients", "seeds", "luck", "difference", "before", "**now**", "held before", "**holds**"], of_seeds),
        "",
        "## A pair's interval and its p",
        "",
        "How often one excludes 0 and the other does not.",
        "",
        *table(["images", "AUROC before", "**now**", "accuracy before", "**now**"], of_conflicts),
        "",
    ]


if __name__ == "__main__":
    main()
