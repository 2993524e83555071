"""The result of a leakage study: each split's figures, the gain of the leaky split, and both in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from chestxray._version import RESEARCH_ONLY
from chestxray.data.index import Patients
from chestxray.evaluation.figure_format import number, with_interval
from chestxray.evaluation.intervals import Figure
from chestxray.report import formatting
from chestxray.runs.run_folder import Run

#: Name of each split -> how it is drawn, in words.
SPLITS = {
    "random": "image by image, at random",
    "grouped": "by patient",
    "official": "given with the data",
}


@dataclass(frozen=True)
class Split:
    """One split: its ``runs``, one a seed; ``training`` and ``rows``, its numbers of training and test images;
    ``leaking``, the number of test images whose patient, or a copy, is in training or validation; ``shared``, the
    number of its test patients that are also in the test of the random split.
    """

    name: str
    runs: tuple[Run, ...]
    figures: Mapping[str, Figure]
    training: int
    rows: int
    patients: Patients
    leaking: int
    shared: int
    repeats: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the split as ``leakage.json`` has it."""
        return {
            "split": self.name,
            "training": self.training,
            "rows": self.rows,
            **self.patients.to_json(),
            "leaking": self.leaking,
            "test": {name: found.to_json() for name, found in self.figures.items()},
            "patients_shared_with_random": self.shared,
            "repeats": list(self.repeats),
            "folder": str(self.runs[0].folder),
            "folders": [str(run.folder) for run in self.runs],
        }


@dataclass(frozen=True)
class Leakage:
    """The result of a leakage study.

    ``gains``: the figure of the random split minus that of each other split, with a 95% interval. ``official``
    describes the official split in a sentence; ``known`` is the proportion of images with a known patient. Of findings,
    the figures are means over those in ``findings``, which has the result of each on the rows where it is known;
    ``not_scored`` says why of the others.
    """

    model: str
    data: str
    metric: str
    positive: str | None
    splits: tuple[Split, ...]
    gains: Mapping[str, Figure]
    known: float
    official: str = ""
    findings: Mapping[str, Leakage] = field(default_factory=dict)
    not_scored: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name of the figure."""
        title = formatting.title(self.metric)
        return f"mean {title} of {formatting.plural(len(self.findings), 'finding')}" if self.findings else title

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``leakage.json``."""
        of_each = {
            name: {"splits": [split.to_json() for split in one.splits],
                   "gains": {split: gain.to_json() for split, gain in one.gains.items()}}
            for name, one in self.findings.items()
        }  # fmt: skip
        own = {"findings": of_each, "not_scored": dict(self.not_scored)} if self.findings else {}
        return own | {
            "model": self.model,
            "data": self.data,
            "metric": self.metric,
            "positive": self.positive,
            "splits": [split.to_json() for split in self.splits],
            "gains": {name: gain.to_json() for name, gain in self.gains.items()},
            "patients_known": self.known,
            "official": self.official,
            "verdict": list(self.verdict),
            "research_only": RESEARCH_ONLY,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return a row a split: numbers of images, leaking images, the figure, and the gain of the random split. Of
        findings it has a row a finding and split as well, with the finding in the first column, "" for the mean.
        """
        records = []
        for split in self.splits:
            own, gain = split.figures[self.metric], self.gains.get(split.name, Figure(None, None, None))
            records.append(
                {
                    "split": split.name,
                    "training": split.training,
                    "rows": split.rows,
                    **split.patients.to_json(),
                    "leaking": split.leaking,
                    **{self.metric: own.value, f"{self.metric}_low": own.low, f"{self.metric}_high": own.high},
                    **{"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high},
                }
            )
        table = pd.DataFrame(records)
        if not self.findings:
            return table
        each = [one.to_frame().assign(finding=name) for name, one in self.findings.items()]
        stacked = pd.concat([table.assign(finding=""), *each], ignore_index=True)
        return stacked[["finding", *table.columns]]

    @property
    def verdict(self) -> tuple[str, ...]:
        """The result in sentences."""
        title = self.title
        random = self.splits[0]
        value = number(random.figures[self.metric].value)
        said = [
            f"With the split by image at random, the {title} of {self.model} is {value}. {random.leaking:,} of "
            f"{random.rows:,} test images have their patient or a copy in training or validation."
        ]
        trainings = len(random.runs)
        said += [_gain_sentence(name, gain, title, trainings) for name, gain in self.gains.items()]
        if any(gain.low is not None for gain in self.gains.values()):
            said.append(_luck(trainings))
        said += self._by_finding()
        for split in self.splits[1:]:
            if split.shared:
                patients = formatting.plural(split.shared, "patient")
                said.append(f"{patients} of the test {SPLITS[split.name]} are in the random one too (in the interval).")
        if "official" in self.gains:
            said.append(self.official)
            said.append("The official test may differ from the rest in more than leaks, such as its time or its place.")
        sizes = {split.name: split.training for split in self.splits}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
            said.append(
                f"The splits train on different numbers of images ({listed}): part of a difference may come from that."
            )
        if self.known == 0:
            said.append(
                "No patient is known in this data: the random split and the one by patient differ by copies of "
                "images alone, and the effect of patients on both sides cannot be measured here."
            )
        elif self.known < 1:
            said.append(f"The patient is known of {100 * self.known:.0f}% of the images; the others may leak unseen.")
        said.append("Each split was drawn once; another draw may show another gain.")
        return tuple(said)

    def _by_finding(self) -> list[str]:
        """Return sentences on the gains of single findings."""
        said = []
        for name in self.gains if self.findings else ():
            of = {finding: one.gains[name] for finding, one in self.findings.items()}
            away = {
                f: g for f, g in of.items() if g.low is not None and g.high is not None and not g.low <= 0 <= g.high
            }
            listed = ", ".join(f"{f} {number(gain.value)}" for f, gain in away.items())
            said.append(
                f"Compared with the split {SPLITS[name]}, the interval of the difference excludes 0 in {len(away)} of "
                f"{formatting.plural(len(of), 'finding')}{f' ({listed})' if listed else ''}."
            )
        if said:
            said.append(
                "Intervals of single findings are not corrected for their number: without any leak, about one in "
                "twenty excludes 0."
            )
        if self.not_scored:
            said.append(f"Not scored, as too few patients of a test have it or lack it: {', '.join(self.not_scored)}.")
        return said


def _gain_sentence(name: str, gain: Figure, title: str, trainings: int) -> str:
    against = f"the split {SPLITS[name]}"
    if gain.value is None:
        return f"Compared with {against} nothing can be said: the {title} cannot be computed on both tests."
    size = with_interval(gain.to_json(), level="95%", signed=True)
    if gain.low is None or gain.high is None or gain.low <= 0 <= gain.high:
        return f"Compared with {against} that is {size}: the difference may be due to chance."
    if trainings == 1:
        return f"Compared with {against} that is {size}: more than the choice of test patients explains."
    return (
        f"Compared with {against} that is {size}: more than the choice of test patients and chance in training explain."
    )


def _luck(trainings: int) -> str:
    if trainings > 1:
        return f"The figures are means over {trainings} trainings of each split, whose variance the intervals include."
    return (
        "Each split was trained once: the intervals leave out chance in training, which may be as large as the "
        "difference (--seeds 3 includes it)."
    )
