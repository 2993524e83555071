"""Contamination of an external test: images that a finished run was trained or validated on, as exact or near
copies, and images of their patients.

An image that a model was trained or chosen on is no test of it, whatever folder it is in.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data import near_duplicates
from chestxray.data.audit import DRAWN, Audit, Groups, audit
from chestxray.data.decoded import Decoded, decode, known, whole
from chestxray.data.index import SPLITS, Index
from chestxray.data.sources import known_sets
from chestxray.errors import DataError, LeakError
from chestxray.recipe import Recipe
from chestxray.report.formatting import plural
from chestxray.runs.run_folder import Run

log = logging.getLogger(__name__)

_WHY = {
    "exact": "the run was trained or chosen on it",
    "near": "the run was trained or chosen on this radiograph",
    "patient": "the run was trained or chosen on its patient",
}


@dataclass(frozen=True)
class Seen:
    """The test images that a run was trained or chosen on.

    ``exact`` and ``near`` are groups of paths, the test image first and then those of the run; ``correlations`` are
    those of ``near``. ``patients`` are as in `Audit`, and so are ``look_alikes``, of test images that are not
    contaminated. ``reasons``: path of each contaminated test image -> a key of `_WHY`. ``unsearched`` is as in
    `Audit`; ``notes`` are sentences.
    """

    exact: Groups
    near: Groups
    correlations: tuple[float, ...]
    patients: tuple[dict[str, Any], ...]
    reasons: dict[str, str]
    unsearched: str
    notes: tuple[str, ...]
    look_alikes: tuple[dict[str, Any], ...] = ()


def search(run: Run, data: Recipe, index: Index, pixels: np.ndarray, cache: Path) -> Seen:
    """Search the test rows of `index` for the images and patients that `run` was trained or chosen on.

    `data` is the recipe of `index`; `pixels`, uint8 (rows, height, width), are its images decoded as by the run.
    The run's own images are taken from the cache, or decoded again; where neither is possible, near copies are not
    searched for, and ``unsearched`` says so. Those of a ready model are not here at all.
    """
    if run.published:
        return _unseen(run, data)
    own = run.index.rows[run.index.rows["split"].isin(SPLITS)]
    seen, tested = own[own["split"] != "test"], index.rows[index.rows["split"] == "test"]
    not_seen = set(own.loc[own["split"] == "test", "path"])
    alike = _exact(own, tested)
    exact = _of_training(alike, not_seen)
    left = tested[~tested["path"].isin([path for path, *_ in exact])]
    resembling, searched, unsearched = _near(run, own, index, left, pixels, cache)
    least = near_duplicates.confirmed(pixels)
    near = {group: value for group, value in resembling.items() if value >= least}
    groups = _of_training(near, not_seen)
    patients, of_patients, sentence = _patients(run.recipe, seen, data, tested)
    reasons = dict.fromkeys(of_patients, "patient")
    reasons |= {path: "near" for path, *_ in groups} | {path: "exact" for path, *_ in exact}
    edited = plural(len(groups), "edited copy", "edited copies") if searched else "edited copies not looked for"
    copies = f"{plural(len(exact), 'exact copy', 'exact copies')}, {edited}"
    notes = [
        f"External data: the model was trained and chosen on {plural(len(seen), 'image')} of {run.index.name}. Found "
        f"of them among these {plural(len(tested), 'image')}: {copies}."
    ]
    if note := known_sets.seen_before(data, trained_on(run)):
        notes.append(note)
    if unsearched:
        notes.append(f"Whether the model has seen these films in other pixels is not known in full. {unsearched}")
    if own_test := {path for path, *_ in (*alike, *near)} - set(reasons):
        notes.append(
            f"{plural(len(own_test), 'image is', 'images are')} of the run's own test, as they are or edited: on them "
            "this is not an external test, and the generalisation gap is not one to other patients."
        )
    correlations = tuple(round(near[group], 4) for group in near if group[0] in {path for path, *_ in groups})
    look_alikes = tuple(
        {"paths": list(group), "correlation": round(value, 4), "across_splits": True}
        for group, value in resembling.items()
        if group not in near and group[0] not in reasons and group[1] not in not_seen
    )
    return Seen(exact, groups, correlations, patients, reasons, unsearched, (*notes, sentence), look_alikes)


def _unseen(run: Run, data: Recipe) -> Seen:
    """Return what is known where no image of the training is here: the names of the sets alone."""
    sets = ", ".join(trained_on(run)) or "sets that its publisher does not name"
    why = f"The films that {run.published} was trained on ({sets}) are not here: no copies of them were looked for."
    note = known_sets.seen_before(data, trained_on(run))
    return Seen((), (), (), (), {}, why, tuple(filter(None, (why, note))))


def trained_on(run: Run) -> tuple[str, ...]:
    """Return the sets that the published weights were trained on from which the run started."""
    facts = run.environment.get("model", {}).get("published_weights", {})
    return tuple(facts.get("trained_on", ()))


def _of_training(groups: Iterable[tuple[str, ...]], not_seen: set[str]) -> Groups:
    """Return the groups without images of the run's own test; groups with no other image of the run are left out."""
    kept = ((path, *(other for other in others if other not in not_seen)) for path, *others in groups)
    return tuple(group for group in kept if len(group) > 1)


def settle(index: Index, seen: Seen, on_leak: str) -> tuple[Index, Audit]:
    """Apply `on_leak` to the contaminated images, and audit the others of `index`.

    ``drop`` leaves them out of this test; they cannot be taken out of the training any more.

    Raises:
        LeakError: there are contaminated images and `on_leak` is ``stop``.
        DataError: no test image is left.
    """
    rows = index.rows
    tested = rows["split"] == "test"
    found = audit(index.replace(rows[tested | (rows["unreadable"] != "")]), (*seen.notes, *index.notes))
    marks = rows["unreadable"].map(lambda reason: f"unreadable: {reason}" if reason else "")
    if seen.reasons and on_leak == "stop":
        raise LeakError(_table(index, int(tested.sum()), seen))
    dropped: dict[str, str] = {}
    if on_leak == "drop":
        dropped = {path: _WHY[why] for path in rows.loc[tested, "path"] if (why := seen.reasons.get(path))}
    left_out = rows["path"].isin(dropped)
    marks = marks.mask(left_out, rows["path"].map(lambda path: f"dropped: {dropped.get(path)}"))
    rows = rows.assign(audit=marks, split=rows["split"].mask(left_out, ""))
    if not (rows["split"] == "test").any():
        raise DataError(f"All images of {index.name} are among those that the run was trained or chosen on.")
    found = dataclasses.replace(
        found,
        duplicates=(*found.duplicates, *seen.exact),
        duplicates_across_splits=seen.exact,
        near=None if found.near is None and not seen.near else (*(found.near or ()), *seen.near),
        near_across_splits=seen.near,
        correlations=(*found.correlations, *seen.correlations),
        unsearched=seen.unsearched,
        look_alikes=(*found.look_alikes, *seen.look_alikes),
        patients_across_splits=seen.patients,
        on_leak=on_leak,
        dropped=tuple(dropped.items()),
    )
    return index.replace(rows), found


def _exact(own: pd.DataFrame, tested: pd.DataFrame) -> Groups:
    """Return, for each test image with the same pixels or bytes as images of the run, its path and theirs."""
    copies: dict[str, dict[str, None]] = {}
    for name in ("pixel_hash", "file_hash"):
        if name in own and name in tested:
            paths = own.groupby(name)["path"].agg(list)
            alike = tested[tested[name].isin(paths.index)]
            for path, value in zip(alike["path"], alike[name], strict=True):
                copies.setdefault(path, {}).update(dict.fromkeys(paths[value]))
    return tuple((path, *others) for path, others in copies.items())


def _near(
    run: Run, own: pd.DataFrame, index: Index, tested: pd.DataFrame, pixels: np.ndarray, cache: Path
) -> tuple[dict[tuple[str, ...], float], bool, str]:
    """Return pairs of a test image and the most similar image of the run with their correlation, near copies and
    look-alikes; whether any image of the run was searched for; and why not all that it was trained or chosen on.
    """
    drawn = index.drawn[tested.index]
    own = own[~run.index.drawn[own.index]]
    if own.empty or (len(drawn) and drawn.all()):
        return {}, False, DRAWN
    decoded = _decoded(run, own, cache)
    there = own.iloc[:0] if decoded is None else own[_unchanged(own, decoded.facts.iloc[own.index])]
    seen, left = (int((rows["split"] != "test").sum()) for rows in (own, there))
    unsearched = ""
    if left < seen:
        unsearched = (
            f"{f'Only {left:,}' if left else 'None'} of the {plural(seen, 'image')} that the run was trained or chosen "
            "on is still available, in the cache or unchanged in its file."
        )
    if decoded is None or there.empty:
        return {}, False, unsearched
    # Of exact copies in training and test, the one in training is used.
    trained_first = there.iloc[np.argsort((there["split"] == "test").to_numpy(), kind="stable")]
    of_run = trained_first.drop_duplicates("pixel_hash")
    rows = tested[~drawn].drop_duplicates("pixel_hash")
    log.info("Looking for the run's %d images among %d ...", len(of_run), len(rows))
    pairs = near_duplicates.pairs_between(
        pixels, rows.index.to_numpy(), decoded.pixels, of_run.index.to_numpy(), least=near_duplicates.advised(pixels)
    )
    pairs = pairs.sort_values("correlation", ascending=False, kind="stable")
    copies = pairs["correlation"] >= near_duplicates.confirmed(pixels)
    pairs = pairs[copies | ~(pairs["first"].isin(pairs.loc[copies, "first"]) | pairs.duplicated("first"))]
    others = {
        rows.loc[place, "pixel_hash"]: (own.loc[group["second"], "path"], float(group["correlation"].iloc[0]))
        for place, group in pairs.groupby("first", sort=False)
    }
    alike = tested[tested["pixel_hash"].isin(others)]
    found = {
        (path, *others[value][0]): others[value][1]
        for path, value in zip(alike["path"], alike["pixel_hash"], strict=True)
    }
    return found, bool(left), unsearched


def _decoded(run: Run, own: pd.DataFrame, cache: Path) -> Decoded | None:
    """Return the run's images from the cache, or decoded again; None where no file is left."""
    names = run.environment.get("data", {})
    before = known(cache, names.get("films") or names.get("decoded", ""))
    if before is not None and len(before.facts) == len(run.index):
        return before
    if not any(Path(path).is_file() for path in own["path"]):
        return None
    recipe = run.recipe
    assert recipe.image_size is not None
    log.info("The images of the run are read again, to look for copies of them.")
    if run.segmenter is not None:  # copies are looked for in whole films
        return whole(run.index, cache, max_pixels=recipe.max_pixels)
    return decode(run.index, recipe.image_size, recipe.fit, cache, max_pixels=recipe.max_pixels)


def _unchanged(own: pd.DataFrame, facts: pd.DataFrame) -> np.ndarray:
    """Return whether each image can be read and is unchanged since the run: bool (rows,)."""
    # Of runs of earlier versions the bytes alone compare.
    name = "file_hash" if "file_hash" in own else "pixel_hash"
    return (facts["unreadable"] == "").to_numpy() & (facts[name].to_numpy() == own[name].to_numpy())


def _patients(
    trained: Recipe, seen: pd.DataFrame, data: Recipe, tested: pd.DataFrame
) -> tuple[tuple[dict[str, Any], ...], list[str], str]:
    """Return the patients in both training and test, the paths of their test images, and a sentence on patients.

    Equal identifiers are the same person only within one data set, read by the same rule.
    """
    named, others = (rows[rows["patient"] != ""] for rows in (tested, seen))
    if named.empty or others.empty:
        which = "These images" if named.empty else "The images of the training"
        return (), [], f"{which} name no patients, so that one person may be in both."
    if not _same_set(trained, data):
        common = set(named["patient"]) & set(others["patient"])
        also = (
            f" {plural(len(common), 'identifier is', 'identifiers are')} found in both, such as {min(common)}: where "
            "both are numbered by one hospital, these are the same people."
            if common
            else ""
        )
        return (), [], f"Patients of different sets do not compare, so that one person may be in both.{also}"
    found, paths = [], []
    splits = others.groupby(["source", "patient"])["split"].agg(lambda names: sorted(set(names), key=SPLITS.index))
    for key, own in named.groupby(["source", "patient"]):
        if key in splits.index:
            count = len(own) + int(((others["source"] == key[0]) & (others["patient"] == key[1])).sum())
            found.append({"patient": key[1], "source": key[0], "splits": [*splits[key], "test"], "images": count})
            paths += own["path"].tolist()
    return tuple(found), paths, f"Of the patients that are named, {len(found):,} are in the training too."


def _same_set(trained: Recipe, data: Recipe) -> bool:
    """Return whether both recipes read patients from the same set by the same rule."""
    rules = ("patient_pattern", "data_option")
    shared = set(data.data) & {*trained.data, *trained.test_data}
    return bool(shared) and all(getattr(trained, name) == getattr(data, name) for name in rules)


def _table(index: Index, tested: int, seen: Seen, most: int = 10) -> str:
    kinds = list(seen.reasons.values())
    lines = [
        f"{len(kinds)} of {tested} images of {index.name} are among those that the run was trained or chosen on, or "
        f"of their patients: {kinds.count('exact')} have the same pixels, {kinds.count('near')} show the same "
        f"radiograph in other pixels, {kinds.count('patient')} are further images of a patient. Allowed: --on-leak "
        "drop (leave them out of this test) or --on-leak ignore (the report says so)."
    ]
    lines += ["  same pixels      " + " = ".join(group) for group in seen.exact[:most]]
    lines += ["  same radiograph  " + " ~ ".join(group) for group in seen.near[:most]]
    lines += [f"  same patient     {item['patient']} of {item['source']}" for item in seen.patients[:most]]
    more = sum(max(0, len(items) - most) for items in (seen.exact, seen.near, seen.patients))
    return "\n".join([*lines, *([f"  ... and {more} more"] if more else [])])
