"""What a run's audit and controls found, and what it ran on, as frozen data with tables for a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pandas as pd

from chestxray.data.audit import Finding
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.shortcuts.verdict import state, together

Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class AuditResult:
    """What is wrong with a data set. Groups are paths of images that show one radiograph, ``unreadable`` and
    ``dropped`` pairs of a path and the reason; ``dropped`` were left out of training because they leak.
    """

    findings: tuple[Finding, ...]
    copies: Groups
    copies_across_splits: Groups
    near_copies: Groups
    near_copies_across_splits: Groups
    patients_across_splits: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    dropped: tuple[tuple[str, str], ...]
    on_leak: str
    notes: tuple[str, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> AuditResult:
        """From the content of ``audit.json``."""
        exact, near = content.get("exact_duplicates", {}), content.get("near_duplicates", {})
        return cls(
            findings=tuple(Finding(**{name: item[name] for name in _FINDING}) for item in content.get("findings", [])),
            copies=_groups(exact.get("groups", [])),
            copies_across_splits=_groups(exact.get("across_splits", [])),
            near_copies=_groups(near.get("groups", [])),
            near_copies_across_splits=_groups(near.get("across_splits", [])),
            patients_across_splits=tuple(
                str(item["patient"]) for item in content.get("patients", {}).get("across_splits", [])
            ),
            unreadable=_reasons(content.get("unreadable", [])),
            dropped=_reasons(content.get("dropped", [])),
            on_leak=str(content.get("on_leak", "")),
            notes=tuple(map(str, content.get("notes", []))),
        )

    @property
    def leaks(self) -> bool:
        """Whether an image, exactly or nearly, or a patient stands on both sides of a split."""
        return bool(self.copies_across_splits or self.near_copies_across_splits or self.patients_across_splits)

    def to_frame(self) -> pd.DataFrame:
        """A row a finding, the gravest first: severity, finding, count, meaning."""
        rows = [(item.severity, item.kind, item.count, item.sentence) for item in self.findings]
        return pd.DataFrame(rows, columns=["severity", "finding", "count", "meaning"])

    def files_to_frame(self) -> pd.DataFrame:
        """A row a file that a finding is about: finding, group (its number), path, reason."""
        groups = {
            "copies": self.copies,
            "copies across splits": self.copies_across_splits,
            "near copies": self.near_copies,
            "near copies across splits": self.near_copies_across_splits,
        }
        rows: list[tuple[str, int | None, str, str]] = [
            (name, number, path, "")
            for name, found in groups.items()
            for number, group in enumerate(found)
            for path in group
        ]
        rows += [("unreadable", None, *item) for item in self.unreadable]
        rows += [("dropped", None, *item) for item in self.dropped]
        return pd.DataFrame(rows, columns=["finding", "group", "path", "reason"]).astype({"group": "Int64"})

    def _repr_html_(self) -> str:
        """The findings as a table, and the notes."""
        found = self.to_frame()
        table = found.to_html(index=False) if len(found) else "<p>Nothing was found.</p>"
        return table + "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)


@dataclass(frozen=True)
class ControlResult:
    """What one cheap model reached that sees no lungs, or next to nothing of them.

    ``kind``: leak (it sees nothing of disease), likeness (it sees some), or source (it tells the data set, not the
    class). ``state``: fires, undecided or excluded. ``auroc`` is that on the test, ``learnt`` what could be learnt of
    a leak, ``share`` the share of the model's gain over a coin toss; None where it has no meaning.
    """

    name: str
    title: str
    kind: str
    state: str
    says: str
    auroc: Figure
    learnt: Figure | None
    share: Figure | None

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> ControlResult:
        """From an item of ``controls`` in ``controls.json``."""
        learnt, share = item.get("learnt"), item.get("share")
        return cls(
            name=item["name"],
            title=item["title"],
            kind=item["kind"],
            state=state(item),
            says=item.get("says", ""),
            auroc=Figure.from_json(item["auroc"]),
            learnt=None if learnt is None else Figure.from_json(learnt["auroc"]),
            share=None if share is None else Figure.from_json(share),
        )


@dataclass(frozen=True)
class Controls:
    """What cheap models reach beside the run's: whether its score can be taken for disease.

    ``finding``: shortcut, part, likeness, undecided, none, or unknown where no controls were run.
    """

    verdict: str
    finding: str
    results: tuple[ControlResult, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Controls:
        """From the content of ``controls.json``; empty where no controls were run."""
        summary = together([content])
        results = tuple(map(ControlResult.from_json, content.get("controls", [])))
        return cls(summary["verdict"], summary["finding"], results)

    def __iter__(self) -> Iterator[ControlResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def to_frame(self) -> pd.DataFrame:
        """A row a control, its name the index: kind, value, low and high (AUROC on the test with its 95% interval, NaN
        for what cannot be had), verdict (fires, undecided or excluded) and meaning, a sentence.
        """
        rows = {
            one.name: (one.kind, one.auroc.value, one.auroc.low, one.auroc.high, one.state, one.says)
            for one in self.results
        }
        columns = ["kind", "value", "low", "high", "verdict", "meaning"]
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        return frame.astype({"value": float, "low": float, "high": float}).rename_axis(index="control")

    def _repr_html_(self) -> str:
        """The verdict and a table of the controls."""
        table = self.to_frame().round(3).to_html(na_rep="") if self.results else ""
        return f"<p>{html.escape(self.verdict)}</p>{table}"


@dataclass(frozen=True)
class Environment:
    """What a run ran on. ``seconds`` by step; ``parameters`` of the model and ``images_per_second`` of prediction are
    None where they are not known, as of an ensemble. Times are ISO 8601, UTC.
    """

    chestxray: str
    python: str
    platform: str
    packages: Mapping[str, str]
    devices: tuple[str, ...]
    data: str
    data_fingerprint: str
    parameters: int | None
    images_per_second: float | None
    started: str
    finished: str
    seconds: Mapping[str, float]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Environment:
        """From the content of ``environment.json``."""
        model, data = content.get("model", {}), content["data"]
        return cls(
            chestxray=content.get("chestxray", ""),
            python=content.get("python", ""),
            platform=content.get("platform", ""),
            packages=MappingProxyType(dict(content.get("packages", {}))),
            devices=tuple(content.get("devices", ())),
            data=data["name"],
            data_fingerprint=data.get("fingerprint", ""),
            parameters=model.get("parameters"),
            images_per_second=model.get("images_per_second"),
            started=content.get("started", ""),
            finished=content.get("finished", ""),
            seconds=MappingProxyType(dict(content.get("seconds", {}))),
        )


_FINDING = ("severity", "kind", "count", "sentence")


def _groups(found: list[list[str]]) -> Groups:
    return tuple(map(tuple, found))


def _reasons(found: list[Mapping[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((item["path"], item["reason"]) for item in found)
