"""How often the 95% intervals of tests like a run's own held the truth in simulations.

``interval_coverage.json`` is written by `benchmarks.coverage`, and this module alone decides which of its
lines speaks of a run.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

import numpy as np

from chestxray.evaluation.support import effective
from chestxray.report.caution import Caution
from chestxray.report.formatting import title
from chestxray.runs.run_folder import Run

FILE = "interval_coverage.json"
#: Effective patients of the rarest class: the least of each kind of test.
FEWEST = (20, 10, 0)
#: Share of the patients that is effective, below which numbers of images a patient are called unlike.
EVEN = 0.5
#: Nominal 95% is called kept between these.
KEPT = (0.93, 0.98)
#: Figures named in one sentence.
MOST_NAMED = 6


def kind(rarest: float, evenness: float) -> tuple[int, bool]:
    """Of what kind a test is: the least number of effective patients of its rarest class, and whether patients
    have like numbers of images. `evenness` is the share of all patients that is effective.
    """
    return next(least for least in FEWEST if rarest >= least), evenness >= EVEN


def words(fewest: int, even: bool) -> str:
    """A kind in words."""
    above = next((least for least in reversed(FEWEST) if least > fewest), None)
    patients = f"{fewest} or more" if above is None else f"{fewest} to {above}" if fewest else f"fewer than {above}"
    return f"{patients} effective patients of the rarest class, {'like' if even else 'unlike'} numbers of images each"


@functools.cache
def measured() -> dict[tuple[int, bool], dict[str, float]]:
    """Coverage by figure, of each kind of test."""
    text = (resources.files("chestxray.report") / FILE).read_text(encoding="utf-8")
    return {(line["fewest"], line["even"]): line["coverage"] for line in json.loads(text)}


def caution(run: Run) -> list[Caution]:
    """Where intervals of a test like the run's were measured to hold the truth less, or more, often than they say."""
    test = run.predictions.of("test")
    if test.rows.empty:
        return []
    truth, clusters = test.truth, test.clusters
    rarest = min(effective(clusters[truth == k]) for k in np.unique(truth))
    found = kind(rarest, effective(clusters) / len(np.unique(clusters)))
    covered = _shown(run, measured().get(found, {}))
    narrow = {name: share for name, share in covered.items() if share < KEPT[0]}
    wide = {name: share for name, share in covered.items() if share > KEPT[1]}
    parts = [f"too seldom {_listed(narrow)}"] if narrow else []
    parts += [f"more often than need be {_listed(wide)}"] if wide else []
    if not parts:
        return []
    text = f"In simulated tests like this one ({words(*found)}) 95% intervals held the truth {', and '.join(parts)}."
    return [Caution("note", "Intervals that are not quite 95%", text)]


def _shown(run: Run, covered: dict[str, float]) -> dict[str, float]:
    """By the names of the report. An error of 0, the end of its range, tells nothing of other errors."""
    figures: dict[str, Any] = run.metrics["test"]
    shown = {name: share for name, share in covered.items() if name in figures and name != "ece"}
    if "ece, too sure" in covered and "ece" in figures:
        shown["ece"] = covered["ece, too sure"]
    measures = run.metrics.get("calibration") or {}
    known = {name: share for name, share in covered.items() if (measures.get(name) or {}).get("low") is not None}
    return {name: share for name, share in shown.items() if (figures[name] or {}).get("low") is not None} | known


def _listed(covered: dict[str, float]) -> str:
    worst = sorted(covered.items(), key=lambda item: -abs(item[1] - 0.95))
    named = [f"{_CALIBRATION.get(name) or title(name)} {100 * share:.0f} of 100" for name, share in worst[:MOST_NAMED]]
    more = f" and {len(worst) - MOST_NAMED} more" if len(worst) > MOST_NAMED else ""
    return f"({', '.join(named)}{more})"


_CALIBRATION = {"slope": "calibration slope", "intercept": "calibration intercept"}
