"""Splitting an index into training, validation and test rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from chestxray.data import findings
from chestxray.data.folds import fold_of, folds_of_findings
from chestxray.data.grouping import dependent_groups
from chestxray.data.index import SPLITS, Index
from chestxray.data.iterative_stratification import strata
from chestxray.data.stratified_sampling import stratified, stratified_over_findings
from chestxray.errors import DataError, InputError, nearest
from chestxray.recipe import Recipe

#: An official validation split with fewer images than this is too small to choose by, and is redrawn.
SMALLEST_VALIDATION = 50


@dataclass(frozen=True)
class Splits:
    """``index`` with the split of every readable row; ``notes``: sentences that a reader must know."""

    index: Index
    notes: tuple[str, ...]


def split(index: Index, recipe: Recipe, *, learnt: bool = True) -> Splits:
    """Split the readable rows of `index` as the recipe says. Unreadable rows get no split.

    ``auto`` uses the official split if there is one, else draws one that is stratified by class, or over findings, and
    grouped by patient; copies of one image (same ``pixel_hash``) count as one patient. Among merged
    sets, a split is drawn for those that have no official one. Rows marked ``external`` (data given
    to test on) are the whole test set; the others are for training and validation only.

    In a cross-validation, the fold ``recipe.fold`` is the test and validation is drawn from the
    rest; if the test is given (external or official), the fold is the validation.

    A finding of at least three patients is on every side of a split that is drawn, where the others that its patients
    have allow it. The notes name those that are not.

    With `learnt`, every class or finding must be in training.

    Raises:
        DataError: only one class; too few images or patients of a class; a finding that no image of the training
            shows; no official split although one was requested, or one without training or test rows.
        InputError: the source to hold out is not a source of the data; no single fold was chosen.
    """
    if recipe.parts:
        raise InputError("One split needs one part of the cross-validation: choose it with fold or held_out.")
    rows = index.rows
    readable = rows[rows["unreadable"] == ""] if "unreadable" in rows else rows
    # What is to be stratified over is told by the columns from here on.
    asked = findings.columns(index.classes) if index.task == "findings" else []
    readable = readable.drop(columns=set(findings.columns(findings.of_columns(readable))).difference(asked))
    external = readable[readable["external"]] if "external" in readable else readable.iloc[:0]
    readable = readable.drop(external.index)
    _check_classes(index, readable)
    official = bool((readable["split"] != "").any())
    if recipe.split == "official" and not official:
        raise DataError(f"{index.name} has no official split. Allowed: random, stratified, grouped.")
    if recipe.split == "source":
        chosen, notes = _leave_one_source_out(readable, recipe, internal_test=external.empty)
    elif official and recipe.split in ("auto", "official"):
        chosen, notes = _official(readable, recipe, internal_test=external.empty)
        if recipe.folds:
            chosen, notes = _official_folds(readable, chosen, recipe)
    else:
        method = "grouped" if recipe.split == "auto" else recipe.split
        chosen, notes = _drawn(readable, recipe, method, internal_test=external.empty)
    if official and recipe.split not in ("auto", "official"):
        notes = ("The official split was replaced by a drawn split.", *notes)
    split_column = pd.Series("", index=rows.index, dtype=object)
    split_column.loc[chosen.index] = chosen
    split_column.loc[external.index] = "test"
    result = index.replace(rows.assign(split=split_column.astype(str)))
    if learnt:
        check(result)
    return Splits(index=result, notes=(*index.notes, *notes, *_missing(result)))


def check(index: Index) -> None:
    """Raise `DataError` if a class or finding has no training rows, or a split has no rows at all."""
    held = set(index.rows["split"])
    if absent := [name for name in SPLITS if name not in held]:
        raise DataError(f"{index.name} has no {absent[0]} images after splitting.")
    if index.task == "findings":
        _check_trained(index)
    elif empty := [label for label in index.classes if index.counts().loc[label].get("train", 0) == 0]:
        raise DataError(f"No training images of class {', '.join(empty)} in {index.name}.")


def _check_trained(index: Index) -> None:
    truth = index.truth[(index.rows["split"] == "train").to_numpy()]
    for kind, what in ((1, "shows"), (0, "is without")):
        if empty := [name for name, known in zip(index.classes, truth.T, strict=True) if not (known == kind).any()]:
            raise DataError(
                f"No training image of {index.name} {what} {', '.join(empty)}, which cannot be learnt then. Allowed: "
                f"leave it out ({' '.join(f'--drop {name!r}' for name in empty)}), or another split."
            )


def _check_classes(index: Index, readable: pd.DataFrame) -> None:
    if index.task == "findings":
        return  # their number is no matter before the split, and what training lacks is told after it
    counts = readable["label"].value_counts()
    if len(index.classes) < 2:
        raise DataError(
            f"{index.name} has a single class ({', '.join(index.classes)}); a classifier needs at least two."
        )
    for label in index.classes:
        if counts.get(label, 0) < 3:
            raise DataError(
                f"Class {label!r} of {index.name} has {counts.get(label, 0)} readable images; at least 3 are "
                "needed, one each to train, validate and test."
            )


def _missing(index: Index) -> list[str]:
    """Return a note on the findings that no validation image shows; those that the test lacks are in the audit."""
    if index.task == "classes":
        return []
    shown = (index.truth[(index.rows["split"] == "validation").to_numpy()] == 1).any(axis=0)
    gone = [finding for finding, some in zip(index.classes, shown, strict=True) if not some]
    return [f"No validation image shows {', '.join(gone)}: no threshold is chosen by it."] if gone else []


def _official(rows: pd.DataFrame, recipe: Recipe, *, internal_test: bool) -> tuple[pd.Series, tuple[str, ...]]:
    """Return the split: the official one for each source that has one, a drawn one for the other sources together."""
    given = rows.groupby("source")["split"].transform(lambda splits: (splits != "").any())
    without = rows[~given]
    chosen, notes = [], []
    for source, part in rows[given].groupby("source"):
        split_of, said = _official_of_source(part, recipe, internal_test=internal_test)
        chosen.append(split_of)
        notes += said if given.all() and rows["source"].nunique() == 1 else [f"{source}: {note}" for note in said]
    if not without.empty:
        drawn, drawn_notes = _drawn(without, recipe, "grouped", internal_test=internal_test)
        chosen.append(drawn)
        names = ", ".join(sorted(without["source"].unique()))
        notes += [f"{names} (no official split): {note}" for note in drawn_notes]
    return pd.concat(chosen), tuple(notes)


def _official_of_source(rows: pd.DataFrame, recipe: Recipe, *, internal_test: bool) -> tuple[pd.Series, list[str]]:
    notes: list[str] = []
    chosen = rows["split"].copy()
    if stray := int((chosen == "").sum()):
        notes.append(f"{stray} images are in no split of their official split and were left out.")
    if not internal_test and (own := int((chosen == "test").sum())):
        chosen[chosen == "test"] = ""
        notes.append(f"{own} images of the official test were left out: other data is tested on.")
    elif internal_test and not (chosen == "test").any():
        pool = rows[chosen != ""]
        chosen.loc[_take(pool, recipe.test_share, recipe.splits_by, "grouped", leave=2).index] = "test"
        notes.append("The official split has no test images: a test split was drawn by patient from the rest.")
    small = int((chosen == "validation").sum())
    pool = rows[chosen.isin(["train", "validation"])]
    if not pool.empty and (small == 0 or (small < SMALLEST_VALIDATION and not recipe.keep_validation)):
        drawn = _take(pool, recipe.validation_share, recipe.splits_by + 1, "grouped")
        chosen.loc[pool.index] = "train"
        chosen.loc[drawn.index] = "validation"
        why = f"only {small} validation images" if small else "no validation images"
        notes.append(
            f"The official split has {why} (fewer than {SMALLEST_VALIDATION}): {len(drawn)} were redrawn "
            "from the training images by patient."
        )
    return chosen, notes


def _official_folds(rows: pd.DataFrame, chosen: pd.Series, recipe: Recipe) -> tuple[pd.Series, tuple[str, ...]]:
    """Return the split with the official test and, as validation, the fold of the other rows."""
    pool = rows[chosen.reindex(rows.index).isin(["train", "validation"])]
    chosen = chosen.copy()
    chosen.loc[pool.index] = np.where(_held_out(pool, recipe, "grouped"), "validation", "train")
    return chosen, (
        f"{_fold_name(recipe)}: the official test is kept, the fold of the other images is the validation. "
        f"{_note(rows, 'grouped')}",
    )


def _held_out(rows: pd.DataFrame, recipe: Recipe, method: str) -> np.ndarray:
    """Return whether each row is in the held-out fold: bool (rows,)."""
    codes = dependent_groups(rows) if method == "grouped" else np.arange(len(rows))
    if (names := findings.of_columns(rows)) and method != "random":
        states, sources = rows[findings.columns(names)].to_numpy(), rows["source"].to_numpy()
        return folds_of_findings(states, names, sources, codes, recipe.folds, recipe.splits_by) == recipe.fold
    labels = pd.Series("", index=rows.index) if names else rows["label"]
    return fold_of(labels, codes, recipe.folds, method, recipe.splits_by) == recipe.fold


def _fold_name(recipe: Recipe) -> str:
    assert recipe.fold is not None
    return f"Fold {recipe.fold + 1} of {recipe.folds}"


def _leave_one_source_out(
    rows: pd.DataFrame, recipe: Recipe, *, internal_test: bool
) -> tuple[pd.Series, tuple[str, ...]]:
    names = sorted(rows["source"].unique())
    if len(names) < 2 or not internal_test:
        raise DataError(
            "Leaving one source out needs two sources or more, and no data to test on beside them. "
            f"Received: {', '.join(names)}{'' if internal_test else ', and --test-data'}."
        )
    if recipe.held_out not in names:
        raise InputError(
            f"held_out must be a source of the data.{nearest(str(recipe.held_out), names)} "
            f"Allowed: {', '.join(names)}. Received: {recipe.held_out!r}."
        )
    own = rows["source"] == recipe.held_out
    chosen, notes = _drawn(rows[~own], recipe.replace(split="grouped", held_out=None), "grouped", internal_test=False)
    held_out = pd.Series("test", index=rows.index[own], dtype=object)
    return pd.concat([chosen, held_out]), (f"The source {recipe.held_out} is the test, the others train.", *notes)


#: The note on each method of drawing a split.
_NOTES = {
    "random": "Split at random by image, the naive way: patients and copies may be in several splits.",
    "stratified": "Split by image, stratified by class: patients and copies may be in several splits.",
    "grouped": "Split by patient where known, stratified by class.",
}


def _note(rows: pd.DataFrame, method: str) -> str:
    """Return how `rows` were split, for people."""
    note = _NOTES[method]
    if method == "grouped" and not (rows["patient"] != "").any():
        note = "Split stratified by class; no patient is known, so that a patient's images may be in several splits."
    if not findings.of_columns(rows):
        return note
    return note.replace("stratified by class", "stratified over findings (iterative stratification)")


def _drawn(
    rows: pd.DataFrame, recipe: Recipe, method: str, *, internal_test: bool
) -> tuple[pd.Series, tuple[str, ...]]:
    chosen = pd.Series("train", index=rows.index, dtype=object)
    rest, share = rows, recipe.validation_share
    if recipe.folds:
        held_out = _held_out(rows, recipe, method)
        chosen[held_out] = "test" if internal_test else "validation"
        rest, test_share = rows[~held_out], 1 / recipe.folds
    elif internal_test:
        test = _take(rows, recipe.test_share, recipe.splits_by, method, leave=2)
        chosen.loc[test.index] = "test"
        rest, test_share = rows.drop(test.index), recipe.test_share
    if internal_test:
        share = min(0.5, recipe.validation_share / (1 - test_share))
    if internal_test or not recipe.folds:
        validation = _take(rest, share, recipe.splits_by + 1, method)
        chosen.loc[validation.index] = "validation"
    note = _note(rows, method)
    return chosen, ((f"{_fold_name(recipe)}.", note) if recipe.folds else (note,))


def _take(rows: pd.DataFrame, share: float, seed: int, method: str, leave: int = 1) -> pd.DataFrame:
    """Return about the proportion `share` of `rows`, drawn at random, stratified, or by group and stratified.

    Stratified is by class, or over the findings of which `rows` has columns. At least `leave` rows, or groups, of
    every class or finding are not drawn, if there are that many.
    """
    wanted = max(1, round(share * len(rows)))
    if method == "random":
        return rows.iloc[np.sort(np.random.default_rng(seed).permutation(len(rows))[:wanted])]
    codes = dependent_groups(rows) if method == "grouped" else np.arange(len(rows))
    if names := findings.of_columns(rows):
        present = strata(rows[findings.columns(names)].to_numpy(), rows["source"].to_numpy())
        return rows.iloc[stratified_over_findings(present, codes, share, seed, leave)]
    return rows.iloc[stratified(rows["label"].to_numpy(), codes, share, seed, leave)]
