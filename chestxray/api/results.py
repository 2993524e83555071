"""Results of a run's audit and controls, and its environment, as frozen data with tables for notebooks."""

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
    """The defects that an audit found in a data set.

    A group holds the paths of images that show one radiograph. ``unreadable`` and ``dropped`` hold pairs of a path
    and the reason; ``dropped`` images were left out of training because they leak.
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
        """Return the result from the content of ``audit.json``."""
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
        """Whether copies of an image, exact or edited, or a patient occur in more than one split."""
        return bool(self.copies_across_splits or self.near_copies_across_splits or self.patients_across_splits)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per finding, the gravest first: severity, finding, count, meaning."""
        rows = [(item.severity, item.kind, item.count, item.sentence) for item in self.findings]
        return pd.DataFrame(rows, columns=["severity", "finding", "count", "meaning"])

    def files_to_frame(self) -> pd.DataFrame:
        """Return one row per file that a finding concerns: finding, group number, path, reason."""
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
        """Return the findings as a table, and the notes, as HTML."""
        found = self.to_frame()
        table = found.to_html(index=False) if len(found) else "<p>Nothing was found.</p>"
        return table + "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)


@dataclass(frozen=True)
class ControlResult:
    """The result of one control: a cheap model whose input shows little or nothing of the lungs.

    ``kind``: leak (the input shows nothing of disease), likeness (it shows some), or source (the control predicts
    the data set, not the class). ``state``: fires, undecided or excluded. ``auroc`` is the AUROC on the test,
    ``learnt`` the AUROC that can be learnt from a leak, cross-fitted over all images, and ``share`` the proportion
    of the model's gain over chance that the control reaches; these two are None where they have no meaning.
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
        """Return the result from an item of ``controls`` in ``controls.json``."""
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
    """The results of all controls of a run, and whether shortcuts can explain its performance.

    ``finding``: shortcut, part, likeness, undecided, none, or unknown if no controls were run.
    """

    verdict: str
    finding: str
    results: tuple[ControlResult, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Controls:
        """Return the controls from the content of ``controls.json``, without results if no controls were run."""
        summary = together([content])
        results = tuple(map(ControlResult.from_json, content.get("controls", [])))
        return cls(summary["verdict"], summary["finding"], results)

    def __iter__(self) -> Iterator[ControlResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per control, indexed by its name.

        Columns: kind; value, low and high (AUROC on the test with its 95% interval, NaN if not available); verdict
        (fires, undecided or excluded); meaning (a sentence).
        """
        rows = {
            one.name: (one.kind, one.auroc.value, one.auroc.low, one.auroc.high, one.state, one.says)
            for one in self.results
        }
        columns = ["kind", "value", "low", "high", "verdict", "meaning"]
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        return frame.astype({"value": float, "low": float, "high": float}).rename_axis(index="control")

    def _repr_html_(self) -> str:
        """Return the verdict and a table of the controls as HTML."""
        table = self.to_frame().round(3).to_html(na_rep="") if self.results else ""
        return f"<p>{html.escape(self.verdict)}</p>{table}"


@dataclass(frozen=True)
class Environment:
    """The software and hardware environment of a run.

    ``seconds`` is the duration of each step. ``parameters`` (number of the model's) and ``images_per_second`` (of
    prediction) are None if not known, as for an ensemble; ``backend``, that of Keras which trained, is then ``""``.
    ``started`` and ``finished`` are in ISO 8601, UTC.
    """

    chestxray: str
    python: str
    platform: str
    packages: Mapping[str, str]
    devices: tuple[str, ...]
    backend: str
    data: str
    data_fingerprint: str
    parameters: int | None
    images_per_second: float | None
    started: str
    finished: str
    seconds: Mapping[str, float]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Environment:
        """Return the environment from the content of ``environment.json``."""
        model, data = content.get("model", {}), content["data"]
        return cls(
            chestxray=content.get("chestxray", ""),
            python=content.get("python", ""),
            platform=content.get("platform", ""),
            packages=MappingProxyType(dict(content.get("packages", {}))),
            devices=tuple(content.get("devices", ())),
            backend=content.get("backend", ""),
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
