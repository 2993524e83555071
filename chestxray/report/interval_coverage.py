"""Simulated coverage of the 95% confidence intervals for test sets similar to that of a run.

``interval_coverage.json`` is written by `benchmarks.coverage`; this module alone decides which of its
entries applies to a run.
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
#: Kinds of test sets, by the smallest effective number of patients of the rarest class.
FEWEST = (20, 10, 0)
#: Effective patients as a proportion of all patients, below which the images per patient count as uneven.
EVEN = 0.5
#: Range of simulated coverage in which a nominal 95% interval counts as accurate.
KEPT = (0.93, 0.98)
#: Maximum number of figures listed in one sentence.
MOST_NAMED = 6


def kind(rarest: float, evenness: float) -> tuple[int, bool]:
    """Return the kind of a test set: the lower bound of the class of `FEWEST` it falls into, and whether patients
    have similar numbers of images.

    `rarest` is the effective number of patients of the rarest class, `evenness` the effective number of patients
    as a proportion of all patients.
    """
    return next(least for least in FEWEST if rarest >= least), evenness >= EVEN


def words(fewest: int, even: bool) -> str:
    """Return a description of a kind of test set."""
    above = next((least for least in reversed(FEWEST) if least > fewest), None)
    patients = f"{fewest} or more" if above is None else f"{fewest} to {above}" if fewest else f"fewer than {above}"
    return f"{patients} effective patients of the rarest class, {'like' if even else 'unlike'} numbers of images each"


@functools.cache
def measured() -> dict[tuple[int, bool], dict[str, float]]:
    """Return the simulated coverage (0 to 1) by figure, for each kind of test set."""
    text = (resources.files("chestxray.report") / FILE).read_text(encoding="utf-8")
    return {(line["fewest"], line["even"]): line["coverage"] for line in json.loads(text)}


def caution(run: Run) -> list[Caution]:
    """Return a caution if intervals of similar test sets covered the truth too rarely, or too often, in simulations."""
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
    """Select the coverage of the figures that the run reports with an interval.

    For the ECE that of an overconfident model is used: a true error of 0, the end of its range, is not representative.
    """
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
