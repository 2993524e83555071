"""Writes the tables of ``coverage.md`` from the results of `benchmarks.coverage`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chestxray.report import interval_coverage

if TYPE_CHECKING:
    from benchmarks.coverage import Result

OURS = "ours"
FIGURES = (
    "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1", "f1_macro", "auroc", "auprc",
    "mcc", "brier", "ece", "ece, too sure", "slope", "intercept",
)  # fmt: skip
KINDS = (OURS, "logit-t alone", "percentile", "BCa", "DeLong-logit", "Wilson")


def text(results: Sequence[Result], simulations: int, replicates: int, minutes: float) -> str:
    """Return the whole page as Markdown."""
    noise = 100 * math.sqrt(0.95 * 0.05 / simulations)
    lines = [
        "# Coverage of 95% intervals",
        "",
        f"`python -m benchmarks.coverage --simulations {simulations}`: {len(results)} designs, {simulations} simulated "
        f"tests of each, {replicates} bootstrap replicates a test, in {minutes:.0f} minutes. The Monte Carlo error "
        f"(one standard error) of a coverage of 95% is {noise:.1f} points, so that of designs which all cover 95% one "
        f"in {_one_in(noise)} shows less than 93. `benchmarks/simulated_tests.py` says what is simulated: "
        "`heavy` is a heavy-tailed number of images a patient (Pareto, 3.8 on average, at most 40), half of a score's "
        "variance the patient's. `patients` of the rarest class are effective ones (Kish): as many of like size.",
        "",
        "## Ours beside others",
        "",
        *_summary(results),
        "",
        "Widths are medians, averaged over designs. `logit-t alone` is one rule for all figures: the bootstrap's "
        "standard error with Student's t for the fewest patients of any class. Percentile, BCa and Wilson's interval "
        "with the design effect use the same replicates clustered by patient; DeLong-logit has Obuchowski's clustered "
        "variance.",
        "",
        "## Where nominal 95% is not kept",
        "",
        "Ours, in percent, pooled over designs of a kind; **bold** is below 93 or above 98, and what the report of a "
        "run of that kind says. An `ece` of 0 lies at the end of its range: its interval can miss it on one side only.",
        "",
        *_outside(results),
        "",
        "## Coverage of ours by design, in percent",
        "",
        *_by_design(results),
    ]
    return "\n".join(lines) + "\n"


def _one_in(noise: float) -> int:
    from scipy import stats

    return round(1 / float(stats.norm.sf(2 / noise)))


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f}"


def _summary(results: Sequence[Result]) -> list[str]:
    lines = [
        "| figure | interval | mean coverage | least | most | designs below 93 | above 98 | width | absent |",
        "| --- | --- " + "| ---: " * 7 + "|",
    ]
    for figure in FIGURES:
        for kind in KINDS:
            tallies = [r.tallies[figure, kind] for r in results if (figure, kind) in r.tallies]
            tallies = [tally for tally in tallies if tally.there]
            if not tallies:
                continue
            covered = np.array([tally.coverage for tally in tallies])
            width = float(np.mean([np.median(tally.widths) for tally in tallies]))
            absent = 1 - sum(tally.there for tally in tallies) / sum(tally.tests for tally in tallies)
            shown = f"**{_percent(float(covered.mean()))}**" if kind == OURS else _percent(float(covered.mean()))
            least, most = interval_coverage.KEPT
            counts = f"{(covered < least).sum()} of {len(covered)} | {(covered > most).sum()}"
            lines.append(
                f"| {figure if kind == OURS else ''} | {kind} | {shown} | {_percent(float(covered.min()))} "
                f"| {_percent(float(covered.max()))} | {counts} | {width:.3f} | {_percent(absent)} |"
            )
    return lines


def bands(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the coverage of our intervals, pooled over designs of a kind to reduce noise: the data of the report."""
    found = []
    for fewest, even in itertools.product(interval_coverage.FEWEST, (True, False)):
        inside = [r for r in results if interval_coverage.kind(r.effective, r.evenness) == (fewest, even)]
        if inside:
            covered = {figure: _pooled(inside, figure) for figure in FIGURES}
            shown = {name: round(share, 4) for name, share in covered.items() if not math.isnan(share)}
            tests = sum(r.simulations for r in inside)
            found.append({"fewest": fewest, "even": even, "designs": len(inside), "tests": tests, "coverage": shown})
    return found


def _outside(results: Sequence[Result]) -> list[str]:
    lines = [
        "| tests | designs | " + " | ".join(FIGURES) + " |",
        "| --- | ---: " + "| ---: " * len(FIGURES) + "|",
    ]
    for band in bands(results):
        cells = [_marked(band["coverage"].get(figure, math.nan)) for figure in FIGURES]
        words = interval_coverage.words(band["fewest"], band["even"])
        lines.append(f"| {words} | {band['designs']} | " + " | ".join(cells) + " |")
    return lines


def _marked(share: float) -> str:
    least, most = interval_coverage.KEPT
    return _percent(share) if math.isnan(share) or least <= share <= most else f"**{_percent(share)}**"


def _pooled(results: Sequence[Result], figure: str) -> float:
    tallies = [r.tallies[figure, OURS] for r in results if (figure, OURS) in r.tallies]
    there = sum(tally.there for tally in tallies)
    return 1 - sum(tally.too_high + tally.too_low for tally in tallies) / there if there else math.nan


def _by_design(results: Sequence[Result]) -> list[str]:
    lines = [
        "| patients | images | prevalence | AUROC | of the rarest class | " + " | ".join(FIGURES) + " |",
        "| ---: | --- | --- " + "| ---: " * (2 + len(FIGURES)) + "|",
    ]
    for r in results:
        cells = [_percent(r.tallies[f, OURS].coverage) if (f, OURS) in r.tallies else "" for f in FIGURES]
        design = r.design
        lines.append(
            f"| {design.patients} | {design.images} | {_prevalence(design.prevalences)} | {design.auroc:g} "
            f"| {r.effective:.1f} | " + " | ".join(cells) + " |"
        )
    return lines


def _prevalence(prevalences: tuple[float, ...]) -> str:
    if len(prevalences) == 2:
        return f"{prevalences[1]:g}"
    return f"{len(prevalences)} classes, {min(prevalences):.2f} to {max(prevalences):.2f}"
