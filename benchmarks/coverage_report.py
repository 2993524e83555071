"""Results of `benchmarks.coverage` -> the tables of ``coverage.md``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchmarks.coverage import Result

OURS = "ours"
#: Nominal 95% is called kept between these.
LEAST, MOST = 0.93, 0.98
FIGURES = (
    "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1", "f1_macro", "auroc", "auprc",
    "mcc", "brier", "ece", "ece, too sure", "slope", "intercept",
)  # fmt: skip
KINDS = (OURS, "logit-t alone", "percentile", "BCa", "DeLong-logit", "Wilson")


def text(results: Sequence[Result], simulations: int, replicates: int, minutes: float) -> str:
    """The whole page."""
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
        "`logit-t alone` is one rule for all figures: the bootstrap's standard error with Student's t for the fewest "
        "patients of any class. Percentile, BCa and Wilson's interval with the design effect use the same replicates "
        "clustered by patient; DeLong-logit has Obuchowski's clustered variance.",
        "",
        "## Where nominal 95% is not kept",
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
        "| figure | interval | mean coverage | least | most | designs below 93 | above 98 | mean width | absent |",
        "| --- | --- " + "| ---: " * 7 + "|",
    ]
    for figure in FIGURES:
        for kind in KINDS:
            tallies = [r.tallies[figure, kind] for r in results if (figure, kind) in r.tallies]
            tallies = [tally for tally in tallies if tally.there]
            if not tallies:
                continue
            covered = np.array([tally.coverage for tally in tallies])
            width = float(np.mean([tally.width / tally.there for tally in tallies]))
            absent = 1 - sum(tally.there for tally in tallies) / sum(tally.tests for tally in tallies)
            shown = f"**{_percent(float(covered.mean()))}**" if kind == OURS else _percent(float(covered.mean()))
            counts = f"{(covered < LEAST).sum()} of {len(covered)} | {(covered > MOST).sum()}"
            lines.append(
                f"| {figure if kind == OURS else ''} | {kind} | {shown} | {_percent(float(covered.min()))} "
                f"| {_percent(float(covered.max()))} | {counts} | {width:.3f} | {_percent(absent)} |"
            )
    return lines


def _outside(results: Sequence[Result]) -> list[str]:
    """Ours pooled over designs by what makes an interval fail, so that noise does not decide."""
    cuts: dict[str, Callable[[Result], bool]] = {
        "fewer than 10 patients of the rarest class": lambda r: r.effective < 10,
        "10 to 20": lambda r: 10 <= r.effective < 20,
        "20 to 50": lambda r: 20 <= r.effective < 50,
        "50 or more": lambda r: r.effective >= 50,
    }
    tails: dict[str, Callable[[Result], bool]] = {
        "like numbers of images a patient": lambda r: r.design.images != "heavy",
        "heavy-tailed numbers": lambda r: r.design.images == "heavy",
    }
    lines = [
        "| patients of the rarest class, images a patient | designs | "
        + " | ".join(FIGURES)
        + " |\n| --- | ---: "
        + "| ---: " * len(FIGURES)
        + "|"
    ]
    for size, few in cuts.items():
        for tail, heavy in tails.items():
            inside = [r for r in results if few(r) and heavy(r)]
            if inside:
                cells = [_pooled(inside, figure) for figure in FIGURES]
                lines.append(f"| {size}; {tail} | {len(inside)} | " + " | ".join(cells) + " |")
    return lines


def _pooled(results: Sequence[Result], figure: str) -> str:
    tallies = [r.tallies[figure, OURS] for r in results if (figure, OURS) in r.tallies]
    there = sum(tally.there for tally in tallies)
    if not there:
        return ""
    share = 1 - sum(tally.too_high + tally.too_low for tally in tallies) / there
    return f"**{_percent(share)}**" if not LEAST <= share <= MOST else _percent(share)


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
