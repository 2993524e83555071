"""The audit: finding the faults of a data set before anything is trained on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pandas as pd

from chestxray.data import confounding as associations
from chestxray.data import finding_audit, findings
from chestxray.data.confounding import Confound, Severity
from chestxray.data.index import SPLITS, Index
from chestxray.data.near_duplicates import FALSE_ALARMS
from chestxray.data.splitting import SMALLEST_VALIDATION
from chestxray.errors import LeakError

#: The most severe first.
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")
#: With fewer validation images of a class than this, chance decides which epoch and threshold are chosen.
FEWEST_OF_A_CLASS = 10
#: If copies are in several splits, those in the splits of lower rank are dropped.
_GIVES_WAY = {name: rank for rank, name in enumerate(SPLITS)}
_SPOKEN = {"train": "training", "validation": "validation"}
#: Why phantoms are not searched for near copies.
DRAWN = "Drawn images are not searched: phantoms share one anatomy."
_EXACT, _NEAR = "images with the same pixels", "images of one radiograph with other pixels"
_STRADDLING = "on both sides of a split"
_CONTRADICTORY = f"Images labelled {findings.NO_FINDING} and with a finding, which counts."
_LOOK_ALIKES = "Pairs of films that are nearly one, perhaps of one person under two numbers"
Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Finding:
    """One line of the audit: severity, kind, number of cases, and a sentence that explains it."""

    severity: Severity
    kind: str
    count: int
    sentence: str


@dataclass(frozen=True)
class Audit:
    """The findings. Groups are tuples of paths; ``dropped`` and ``unreadable`` are (path, reason).

    ``near`` are groups of images that show one radiograph with different pixels (None if the search
    was not run), ``correlations`` the highest correlation in each group. ``unsearched`` is why near
    copies were not searched, or not among all images; ``""`` if all were searched. ``look_alikes``
    are pairs below the correlation of a copy, as in `_look_alikes`. ``conflicting`` are the groups,
    exact or near, with several labels. ``contradictions`` are the images whose own labels contradict each
    other. ``small_validation`` are sentences.
    """

    duplicates: Groups
    duplicates_across_splits: Groups
    patients_across_splits: tuple[dict[str, Any], ...]
    unreadable: tuple[tuple[str, str], ...]
    near: Groups | None = None
    near_across_splits: Groups = ()
    correlations: tuple[float, ...] = ()
    unsearched: str = ""
    look_alikes: tuple[dict[str, Any], ...] = ()
    conflicting: tuple[dict[str, Any], ...] = ()
    contradictions: tuple[dict[str, Any], ...] = ()
    confounds: tuple[Confound, ...] = ()
    small_validation: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    on_leak: str = "stop"
    dropped: tuple[tuple[str, str], ...] = ()

    false_alarms: ClassVar[str] = FALSE_ALARMS

    @property
    def leaks(self) -> bool:
        """Whether an image (exactly or nearly) or a patient is on both sides of a split."""
        return bool(self.duplicates_across_splits or self.near_across_splits or self.patients_across_splits)

    @property
    def findings(self) -> list[Finding]:
        """All findings, the most severe first."""
        exact, near, patients = self.duplicates_across_splits, self.near_across_splits, self.patients_across_splits
        straddling = [pair for pair in self.look_alikes if pair["across_splits"]]
        counted: list[tuple[Severity, str, int, str]] = [
            ("critical", "copies across splits", len(exact), f"Groups of {_EXACT} {_STRADDLING}."),
            ("critical", "near copies across splits", len(near), f"Groups of {_NEAR} {_STRADDLING}."),
            ("critical", "patients across splits", len(patients), f"Patients with images {_STRADDLING}."),
            ("warning", "conflicting labels", len(self.conflicting), "Groups of copies with different labels."),
            ("warning", "contradictory labels", len(self.contradictions), _CONTRADICTORY),
            ("warning", "unreadable", len(self.unreadable), "Files that cannot be read."),
            ("warning", "look-alikes across splits", len(straddling), f"{_LOOK_ALIKES}, {_STRADDLING}: look at them."),
            ("note", "look-alikes", len(self.look_alikes), f"{_LOOK_ALIKES}, wherever they are."),
            ("note", "copies", len(self.duplicates), f"Groups of {_EXACT}, wherever they are."),
            ("note", "near copies", len(self.near or ()), f"Groups of {_NEAR}, wherever they are."),
        ]
        found = [Finding(*item) for item in counted if item[2]]
        found += [Finding("warning", "small validation", 1, sentence) for sentence in self.small_validation]
        found += [
            Finding(c.severity, f"confound: {c.name}{f' and {c.finding}' if c.finding else ''}", 1, c.sentence)
            for c in self.confounds
            if c.flagged
        ]
        return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))

    @property
    def severity(self) -> Severity | None:
        """The severity of the most severe finding, None if there is none."""
        return self.findings[0].severity if self.findings else None

    def to_json(self) -> dict[str, Any]:
        """Return the contents of ``audit.json``, see docs/run-folder.md."""
        return {
            "severity": self.severity,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "exact_duplicates": {
                "groups": [list(group) for group in self.duplicates],
                "across_splits": [list(group) for group in self.duplicates_across_splits],
            },
            "near_duplicates": {
                "searched": self.near is not None and not self.unsearched,
                "reason": self.unsearched,
                "groups": [list(group) for group in self.near or ()],
                "across_splits": [list(group) for group in self.near_across_splits],
                "correlations": list(self.correlations),
                "look_alikes": [dict(pair) for pair in self.look_alikes],
                "false_alarms": self.false_alarms,
            },
            "patients": {"across_splits": [dict(item) for item in self.patients_across_splits]},
            "conflicting_labels": [dict(item) for item in self.conflicting],
            "contradictory_labels": [dict(item) for item in self.contradictions],
            "confounds": [associations.to_json(item) for item in self.confounds],
            "small_validation": list(self.small_validation),
            "unreadable": [{"path": path, "reason": reason} for path, reason in self.unreadable],
            "on_leak": self.on_leak,
            "dropped": [{"path": path, "reason": reason} for path, reason in self.dropped],
            "notes": list(self.notes),
        }


def audit(index: Index, notes: tuple[str, ...] = ()) -> Audit:
    """Return the findings on a split, decoded index.

    Exact duplicates have the same ``pixel_hash`` or the same bytes (``file_hash``), whatever their
    names or formats. Near duplicates and brightness are those that `near_duplicates.mark` added to
    the index, if it was called. `notes` are put first among the notes of the audit.
    """
    rows = index.rows
    bad = rows[rows["unreadable"] != ""]
    good = rows[rows["unreadable"] == ""]
    exact = _duplicates(good)
    near = _near(good)
    best = dict(zip(good["path"], good["near_correlation"], strict=True)) if near else {}
    splits_of = _splits_of(good, {path for group in (*exact, *(near or ())) for path in group})
    return Audit(
        duplicates=exact,
        duplicates_across_splits=_across(exact, splits_of),
        patients_across_splits=tuple(_straddling_patients(good)),
        unreadable=tuple(zip(bad["path"], bad["unreadable"], strict=True)),
        near=near,
        near_across_splits=_across(near or (), splits_of),
        unsearched="" if near is not None else DRAWN if index.drawn.any() else "The search was not run.",
        correlations=tuple(round(float(max(best[path] for path in group)), 4) for group in near or ()),
        look_alikes=tuple(_look_alikes(good)),
        conflicting=tuple(_conflicting(good, index, exact, near or ())),
        contradictions=tuple(finding_audit.contradictions(good)),
        confounds=associations.of_index(index.replace(good)),
        small_validation=tuple(_small_validation(good, index)),
        notes=(*notes, *_untested(good, index), *_one_number(good[~index.drawn[good.index]])),
    )


def settle(
    index: Index, found: Audit, on_leak: Literal["stop", "drop", "ignore"], split: str = "auto"
) -> tuple[Index, Audit]:
    """Handle leaks as the recipe says, and return the index, with the dropped rows marked, and the audit.

    ``drop`` removes the leaking rows from training (then from validation) and never from the test.
    The column ``audit`` says why a row was left out, and is ``""`` for the others. `split` is the
    recipe's way to split; the message suggests another one if that would not leak.

    Raises:
        LeakError: there are leaks and `on_leak` is ``stop`` (the message contains a table of them), or
            it is ``drop`` and no training or validation image of a class would be left.
    """
    marks = index.rows["unreadable"].map(lambda reason: f"unreadable: {reason}" if reason else "")
    rows = index.rows.assign(audit=marks)
    if found.leaks and on_leak == "stop":
        raise LeakError(_table(found, _regrouped(rows, found, split)))
    dropped: dict[int, str] = {}
    if found.leaks and on_leak == "drop":
        dropped = _leaking_rows(rows, found)
        rows.loc[list(dropped), "audit"] = list(dropped.values())
        rows.loc[list(dropped), "split"] = ""
        _check_left(index, index.replace(rows), len(dropped), _regrouped(rows, found, split))
        small = tuple(_small_validation(rows[rows["unreadable"] == ""], index))
        found = dataclasses.replace(found, small_validation=small)
    left_out = tuple((str(rows.loc[row, "path"]), reason) for row, reason in dropped.items())
    return index.replace(rows), dataclasses.replace(found, on_leak=on_leak, dropped=left_out)


def _check_left(before: Index, after: Index, dropped: int, regrouped: str) -> None:
    """Raise `LeakError` if a class, or finding, that had training or validation images has none left."""
    had, left = (one.counts().reindex(columns=list(SPLITS), fill_value=0) for one in (before, after))
    gone = [
        f"{_SPOKEN[name]} images {'of class' if before.task == 'classes' else 'with'} {label}"
        for name in SPLITS[:2]
        for label in before.classes
        if had.loc[label, name] and not left.loc[label, name]
    ]
    if gone:
        raise LeakError(
            f"Leaving out the images that leak ({dropped}) leaves no {', no '.join(gone)}. Allowed: {regrouped}"
            "--on-leak ignore (the report says so), or more images."
        )


def _regrouped(rows: pd.DataFrame, found: Audit, split: str) -> str:
    """Return the advice to draw a split without these leaks, ``""`` if none can be drawn."""
    if split in ("grouped", "source"):
        return ""
    # A given test set is never redrawn, even if it shares images with the other data.
    given = set(rows.loc[rows["external"], "path"]) if "external" in rows else set()
    groups = (*found.duplicates_across_splits, *found.near_across_splits)
    mended = [not given.intersection(group) for group in groups] + [True] * len(found.patients_across_splits)
    if not any(mended):
        return ""
    rest = "" if all(mended) else "; what leaks into the data to test on stays"
    return f"--split grouped (draw all splits anew, by patient and with copies together{rest}), "


def _duplicates(rows: pd.DataFrame) -> Groups:
    repeated = rows[rows.duplicated("pixel_hash", keep=False) | rows.duplicated("file_hash", keep=False)]
    # The same bytes have the same pixels, so the groups are those with the same pixel hash.
    return tuple(tuple(group["path"]) for _, group in repeated.groupby("pixel_hash", sort=False))


def _near(rows: pd.DataFrame) -> Groups | None:
    if "near_group" not in rows:
        return None
    members = rows[rows["near_group"] != ""]
    return tuple(tuple(group["path"]) for _, group in members.groupby("near_group", sort=False))


def _look_alikes(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the pairs that are almost one radiograph: paths, correlation and whether they are in different splits."""
    if "look_alike" not in rows:
        return []
    of_each = rows[rows["look_alike"] != ""].sort_values("look_alike_correlation", ascending=False, kind="stable")
    splits = _splits_of(rows, {*of_each["path"], *of_each["look_alike"]})
    found: dict[frozenset[str], dict[str, Any]] = {}
    for path, other, value in of_each[["path", "look_alike", "look_alike_correlation"]].itertuples(index=False):
        across = len((splits[path] | splits.get(other, set())) - {""}) > 1
        pair = {"paths": [path, other], "correlation": round(float(value), 4), "across_splits": across}
        found.setdefault(frozenset((path, other)), pair)
    return list(found.values())


def _across(groups: Groups, splits_of: dict[str, set[str]]) -> Groups:
    # A file that was given twice, to train and to test on, is a group in two splits by itself.
    return tuple(group for group in groups if len(set().union(*(splits_of[path] for path in group)) - {""}) > 1)


def _splits_of(rows: pd.DataFrame, paths: Collection[str]) -> dict[str, set[str]]:
    """Return the splits of each of the `paths`."""
    found: dict[str, set[str]] = {}
    rows = rows[rows["path"].isin(paths)]
    for path, split in zip(rows["path"], rows["split"], strict=True):
        found.setdefault(path, set()).add(split)
    return found


def _conflicting(rows: pd.DataFrame, index: Index, exact: Groups, near: Groups) -> list[dict[str, Any]]:
    if index.task == "findings":
        return finding_audit.conflicting(rows, index.classes, (("exact", exact), ("near", near)))
    rows = rows[rows["path"].isin({path for group in (*exact, *near) for path in group})]
    labels_of = rows.groupby("path")["label"].unique().to_dict()
    found = []
    for kind, groups in (("exact", exact), ("near", near)):
        for group in groups:
            labels = {path: " and ".join(labels_of[path]) for path in group}
            if len(set().union(*(labels_of[path] for path in group))) > 1:
                found.append({"kind": kind, "labels": labels})
    return found


def _images_of_each(rows: pd.DataFrame, index: Index) -> pd.Series:
    """Return the number of images in `rows` of each class, or that show each finding."""
    if index.task == "findings":
        present = (rows[findings.columns(index.classes)] == findings.PRESENT).sum()
        return present.set_axis(list(index.classes))
    return rows["label"].value_counts().reindex(list(index.classes), fill_value=0)


def _small_validation(rows: pd.DataFrame, index: Index) -> list[str]:
    validation = rows[rows["split"] == "validation"]
    if validation.empty:
        return []
    found = []
    if len(validation) < SMALLEST_VALIDATION:
        found.append(f"{len(validation)} validation images, fewer than {SMALLEST_VALIDATION}: too few to choose by.")
    each = _images_of_each(validation, index)
    if few := [f"{label} ({count})" for label, count in each.items() if count < FEWEST_OF_A_CLASS]:
        what = "Classes with" if index.task == "classes" else "Findings that are present in"
        found.append(f"{what} fewer than {FEWEST_OF_A_CLASS} validation images: {', '.join(few)}.")
    return found


def _untested(rows: pd.DataFrame, index: Index) -> list[str]:
    """Return a note on the classes without test images; no note if there is no test or no such class."""
    test = rows[rows["split"] == "test"]
    each = _images_of_each(test, index)
    if test.empty or not (empty := [label for label in index.classes if not each[label]]):
        return []
    if index.task == "findings":
        return [f"Findings that no test image shows: {', '.join(empty)}. No figure speaks of them."]
    return [
        f"No test images of class {', '.join(empty)}: no figure speaks of it, and means are over the other classes."
    ]


def _straddling_patients(rows: pd.DataFrame) -> list[dict[str, Any]]:
    known = rows[(rows["patient"] != "") & (rows["split"] != "")]
    patients = known.groupby(["source", "patient"])
    straddling = patients["split"].nunique()
    found = []
    for source, patient in straddling[straddling > 1].index:
        of_patient = patients.get_group((source, patient))
        splits = sorted(of_patient["split"].unique(), key=_GIVES_WAY.__getitem__)
        found.append({"patient": patient, "source": source, "splits": splits, "images": len(of_patient)})
    return found


def _one_number(rows: pd.DataFrame) -> list[str]:
    """Return a note on patient identifiers that several data sets share across splits; no note if there are none."""
    known = rows[(rows["patient"] != "") & (rows["split"] != "")]
    each = known.groupby("patient")[["source", "split"]].nunique()
    alike = each[(each["source"] > 1) & (each["split"] > 1)].index
    if not len(alike):
        return []
    return [
        f"Patient identifiers that several sets have, on both sides of a split: {len(alike):,}, such as {alike[0]}. "
        "They are taken for different people; where one hospital numbered the sets, they are the same."
    ]


def _leaking_rows(rows: pd.DataFrame, found: Audit) -> dict[int, str]:
    """Return the reason for each row that is removed because a copy or its patient is in a later split."""
    split = rows[rows["split"] != ""]
    rank = split["split"].map(_GIVES_WAY).to_dict()
    rows_of = split.groupby("path").groups
    reasons: dict[int, str] = {}
    for why, groups in (
        ("same pixels", found.duplicates_across_splits),
        ("same radiograph", found.near_across_splits),
    ):
        for group in groups:
            members = [row for path in dict.fromkeys(group) for row in rows_of.get(path, ())]
            last = max(rank[row] for row in members)
            keeper = next(split.loc[row, "path"] for row in members if rank[row] == last)
            for row in members:
                if rank[row] < last:
                    reasons.setdefault(row, f"dropped: {why} as {keeper}")
    for item in found.patients_across_splits:
        own = split[(split["patient"] == item["patient"]) & (split["source"] == item["source"])]
        last = max(rank[row] for row in own.index)
        for row in own.index:
            if rank[row] < last:
                reasons.setdefault(row, f"dropped: patient {item['patient']} is in {SPLITS[last]}")
    return reasons


def _table(found: Audit, regrouped: str, most: int = 10) -> str:
    copies, near, patients = found.duplicates_across_splits, found.near_across_splits, found.patients_across_splits
    also = f", {len(near)} radiographs come again in other pixels" if near else ""
    lines = [
        f"The splits leak: {len(copies)} images have copies{also} and {len(patients)} patients have images on both "
        f"sides. Allowed: {regrouped}--on-leak drop (leave them out of training) or --on-leak ignore (the report "
        "says so)."
    ]
    lines += ["  same pixels      " + " = ".join(group) for group in copies[:most]]
    lines += ["  same radiograph  " + " ~ ".join(group) for group in near[:most]]
    lines += [
        f"  same patient     {item['patient']} ({item['images']} images in {', '.join(item['splits'])})"
        for item in patients[:most]
    ]
    more = sum(max(0, len(items) - most) for items in (copies, near, patients))
    return "\n".join([*lines, *([f"  ... and {more} more"] if more else [])])
