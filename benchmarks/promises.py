"""Simulated guarantees: how often a sensitivity is missed, and a conformal coverage is met, on other patients.

    python -m benchmarks.promises          # about four minutes

A patient has a state and images that share part of their score. A threshold, or a conformal limit, is
chosen on simulated validation patients, as many with the finding as without; its effect on the population
is then known in closed form. "On validation alone" and "images apart" are the baselines: the threshold that
reaches the sensitivity on validation, and the quantile of rank ceil((n + 1) coverage) among images.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from scipy import stats

from chestxray.evaluation.decision import conformal_quantile, operating_point

#: Distance between the scores of the two states, in standard deviations.
DISTANCE = 2.0
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Cell:
    """A simulated validation set: number of patients, mean number of images per patient, whether this number is
    equal for all or geometrically distributed, and the intraclass correlation of a patient's scores.
    """

    patients: int
    images: int
    equal: bool
    shared: float

    def draw(self, generator: np.random.Generator, state: float) -> tuple[np.ndarray, np.ndarray]:
        """Draw patients of that ``state``; return their scores and patient codes, both (rows,)."""
        sizes = np.full(self.patients, self.images)
        if not self.equal:
            sizes = generator.geometric(1 / self.images, self.patients)
        clusters = np.repeat(np.arange(self.patients), sizes)
        common = np.sqrt(self.shared) * generator.normal(size=self.patients)[clusters]
        return state + common + np.sqrt(1 - self.shared) * generator.normal(size=len(clusters)), clusters

    def __str__(self) -> str:
        return f"{self.patients} | {self.images}{'' if self.equal else ', unlike'} | {self.shared:g}"


SENSITIVITY_CELLS = (
    *((Cell(patients, 1, True, 0.0), wanted) for patients, wanted in ((30, 0.9), (60, 0.9), (60, 0.95), (200, 0.95))),
    *((Cell(60, 3, equal, shared), 0.9) for equal in (True, False) for shared in (0.0, 0.5, 0.9)),
    (Cell(60, 10, False, 0.5), 0.9),
)
COVERAGE_CELLS = (
    Cell(20, 1, True, 0.0), Cell(100, 1, True, 0.0),
    *(Cell(20, 10, equal, shared) for equal in (True, False) for shared in (0.0, 0.5, 0.9)),
    Cell(100, 10, False, 0.5),
)  # fmt: skip


def short(cell: Cell, wanted: float, draws: int) -> dict[str, tuple[float, float]]:
    """Return, for each rule, the proportion of thresholds that miss the sensitivity, and the mean specificity."""
    generator = np.random.default_rng([cell.patients, cell.images, cell.equal, int(10 * cell.shared)])
    found: dict[str, list[tuple[bool, float]]] = {"alone": [], "images": [], "promised": []}
    for _ in range(draws):
        scores, clusters = cell.draw(generator, DISTANCE)
        others, apart = cell.draw(generator, 0.0)
        rows, positive = np.concatenate([scores, others]), np.arange(len(scores) + len(others)) < len(scores)
        codes = np.concatenate([clusters, apart + cell.patients])
        for name, confidence, patients in (
            ("alone", 0.0, codes), ("images", CONFIDENCE, np.arange(len(rows))), ("promised", CONFIDENCE, codes)
        ):  # fmt: skip
            threshold = operating_point.choose(rows, positive, wanted, confidence=confidence, clusters=patients)
            found[name].append((stats.norm.sf(threshold - DISTANCE) < wanted, stats.norm.cdf(threshold)))
    return {name: tuple(np.mean(values, axis=0)) for name, values in found.items()}


def kept(cell: Cell, level: float, draws: int) -> tuple[float, float, float, float, float, float]:
    """Return the mean coverage with images counted individually and with patients weighted equally, the 5th and
    95th percentile of the latter over validation sets, and the mean of the percentiles that are reported.
    """
    generator = np.random.default_rng([cell.patients, cell.images, cell.equal, int(10 * cell.shared), 1])
    apart, alike, told = [], [], []
    for _ in range(draws):
        scores, clusters = cell.draw(generator, 0.0)
        for codes, into in ((np.arange(len(scores)), apart), (clusters, alike)):
            limit = conformal_quantile.quantile(scores, codes, level)
            into.append(1.0 if limit is None else stats.norm.cdf(limit))
        told.append(conformal_quantile.spread(clusters, level))
    ends = np.quantile(alike, [0.05, 0.95])
    return (float(np.mean(apart)), float(np.mean(alike)), *map(float, ends), *map(float, np.mean(told, axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000)
    draws = parser.parse_args().draws
    noise = 100 * np.sqrt(0.5 * 0.5 / draws)
    print(f"{draws} draws a row; the Monte Carlo error of a share is at most {noise:.1f} points.\n")
    print(
        "| patients with the finding | images a patient | shared | asked | fall short: on validation alone | "
        "promised, images apart | promised | specificity: alone | promised |"
    )
    print("| ---: " * 9 + "|")
    for cell, wanted in SENSITIVITY_CELLS:
        of = short(cell, wanted, draws)
        shares = " | ".join(f"{100 * of[name][0]:.1f}" for name in ("alone", "images", "promised"))
        print(
            f"| {cell} | {wanted:g} | {shares} | {of['alone'][1]:.3f} | {of['promised'][1]:.3f} |",
            flush=True,
        )
    print(
        "\n| patients | images a patient | shared | promised | images apart | patients alike | "
        "middle 90% of validations | told |"
    )
    print("| ---: " * 8 + "|")
    for cell in COVERAGE_CELLS:
        apart, alike, *ends = kept(cell, 0.9, draws)
        spans = " | ".join(f"{low:.3f} to {high:.3f}" for low, high in (ends[:2], ends[2:]))
        print(f"| {cell} | 0.9 | {apart:.4f} | {alike:.4f} | {spans} |", flush=True)


if __name__ == "__main__":
    main()
