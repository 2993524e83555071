"""What is wrong with a data set, before anything is trained on it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from chestxray.errors import LeakError
from chestxray.index import SPLITS, Index

#: Where copies straddle splits, the copy in the earlier of these splits is the one that goes.
_GIVES_WAY = {name: rank for rank, name in enumerate(SPLITS)}


@dataclass(frozen=True)
class Audit:
    """The findings. Groups are tuples of paths; ``dropped`` and ``unreadable`` are (path, reason)."""

    duplicates: tuple[tuple[str, ...], ...]
    duplicates_across_splits: tuple[tuple[str, ...], ...]
    patients_across_splits: tuple[dict[str, Any], ...]
    unreadable: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    on_leak: str = "stop"
    dropped: tuple[tuple[str, str], ...] = ()

    @property
    def leaks(self) -> bool:
        """Whether an image or a patient stands on both sides of a split."""
        return bool(self.duplicates_across_splits or self.patients_across_splits)

    def to_json(self) -> dict[str, Any]:
        """The contents of ``audit.json``, see docs/run-folder.md."""
        return {
            "exact_duplicates": {
                "groups": [list(group) for group in self.duplicates],
                "across_splits": [list(group) for group in self.duplicates_across_splits],
            },
            "patients": {"across_splits": [dict(item) for item in self.patients_across_splits]},
            "unreadable": [{"path": path, "reason": reason} for path, reason in self.unreadable],
            "on_leak": self.on_leak,
            "dropped": [{"path": path, "reason": reason} for path, reason in self.dropped],
            "notes": list(self.notes),
        }


def audit(index: Index, notes: tuple[str, ...] = ()) -> Audit:
    """Look for unreadable files, exact duplicates and patients astride in a split, decoded index.

    Exact duplicates have the same grey pixels (``pixel_hash``) or the same bytes (``file_hash``),
    whatever their names or formats.
    """
    rows = index.rows
    bad = rows[rows["unreadable"] != ""]
    good = rows[rows["unreadable"] == ""]
    found = _duplicates(good)
    splits_of = dict(zip(good["path"], good["split"], strict=True))
    across = [group for group in found if len({splits_of[path] for path in group} - {""}) > 1]
    return Audit(
        duplicates=tuple(found),
        duplicates_across_splits=tuple(across),
        patients_across_splits=tuple(_patients_astride(good)),
        unreadable=tuple(zip(bad["path"], bad["unreadable"], strict=True)),
        notes=notes,
    )


def settle(index: Index, found: Audit, on_leak: Literal["stop", "drop", "ignore"]) -> tuple[Index, Audit]:
    """Do what the recipe says about leaks, and mark the rows that were left out.

    ``drop`` takes the leaking rows out of training (then out of validation) and never out of the
    test. The column ``audit`` says of each row why it was left out, or nothing.

    Raises:
        LeakError: there are leaks and `on_leak` is ``stop``; the message holds a table of them.
    """
    marks = index.rows["unreadable"].map(lambda reason: f"unreadable: {reason}" if reason else "")
    rows = index.rows.assign(audit=marks)
    if found.leaks and on_leak == "stop":
        raise LeakError(_table(found))
    dropped: dict[str, str] = {}
    if found.leaks and on_leak == "drop":
        dropped = _leaking_rows(rows, found)
        left_out = rows["path"].isin(dropped)
        rows.loc[left_out, "audit"] = rows.loc[left_out, "path"].map(dropped)
        rows.loc[left_out, "split"] = ""
    return index.replace(rows), dataclasses.replace(found, on_leak=on_leak, dropped=tuple(dropped.items()))


def _duplicates(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    repeated = rows[rows.duplicated("pixel_hash", keep=False) | rows.duplicated("file_hash", keep=False)]
    if repeated.empty:
        return []
    # The same bytes have the same pixels, so the pixels' hash alone makes the groups.
    return [tuple(group["path"]) for _, group in repeated.groupby("pixel_hash", sort=False)]


def _patients_astride(rows: pd.DataFrame) -> list[dict[str, Any]]:
    known = rows[(rows["patient"] != "") & (rows["split"] != "")]
    patients = known.groupby(["source", "patient"])
    astride = patients["split"].nunique()
    found = []
    for source, patient in astride[astride > 1].index:
        of_patient = patients.get_group((source, patient))
        splits = sorted(of_patient["split"].unique(), key=_GIVES_WAY.__getitem__)
        found.append({"patient": patient, "source": source, "splits": splits, "images": len(of_patient)})
    return found


def _leaking_rows(rows: pd.DataFrame, found: Audit) -> dict[str, str]:
    """Path -> reason, of every row that gives way to a copy or to its patient in a later split."""
    rank = rows.set_index("path")["split"].map(_GIVES_WAY)
    reasons: dict[str, str] = {}
    for group in found.duplicates_across_splits:
        last = max(rank[path] for path in group)
        keeper = next(path for path in group if rank[path] == last)
        reasons |= {path: f"dropped: same pixels as {keeper}" for path in group if rank[path] < last}
    for item in found.patients_across_splits:
        own = rows[(rows["patient"] == item["patient"]) & (rows["source"] == item["source"])]
        own = own[own["split"] != ""]
        last = max(own["split"].map(_GIVES_WAY))
        for path, name in zip(own["path"], own["split"], strict=True):
            if _GIVES_WAY[name] < last:
                reasons.setdefault(path, f"dropped: patient {item['patient']} is in {SPLITS[last]}")
    return reasons


def _table(found: Audit, most: int = 10) -> str:
    copies, patients = found.duplicates_across_splits, found.patients_across_splits
    lines = [
        f"The splits leak: {len(copies)} images have copies and {len(patients)} patients have images on both "
        "sides. Allowed: --on-leak drop (leave them out of training) or --on-leak ignore (the report says so)."
    ]
    lines += ["  same pixels   " + " = ".join(group) for group in copies[:most]]
    lines += [
        f"  same patient  {item['patient']} ({item['images']} images in {', '.join(item['splits'])})"
        for item in patients[:most]
    ]
    more = max(0, len(copies) - most) + max(0, len(patients) - most)
    return "\n".join([*lines, *([f"  ... and {more} more"] if more else [])])
