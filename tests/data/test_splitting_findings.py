"""Splits and folds of an index of findings."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestxray.data.findings import ABSENT, PRESENT, UNCERTAIN, UNKNOWN, Uncertain
from chestxray.data.index import SPLITS, Index
from chestxray.data.splitting import split
from chestxray.errors import DataError
from chestxray.recipe import Recipe

NAMES = ("Edema", "Mass", "Rare")


def index_of(states, patients=None, splits=None, **columns):
    """Return an index of `states` (rows, findings); each row is a patient's by default."""
    count = len(states)
    rows = pd.DataFrame(
        {
            "path": [f"/{i:05d}.png" for i in range(count)],
            "patient": [str(i) for i in range(count)] if patients is None else patients,
            "split": splits if splits is not None else [""] * count,
            **columns,
        }
    )
    names = NAMES[: np.shape(states)[1]]
    for name, column in zip(names, np.transpose(states), strict=True):
        rows[f"finding:{name}"] = column
    return Index.from_findings(rows, names, name="made")


def cohort(patients=120, rare=3, seed=0, **columns):
    """Patients with one to three images; `rare` of them have the third finding."""
    rng = np.random.default_rng(seed)
    own = np.concatenate(
        [rng.random((patients, 2)) < (0.4, 0.15), rng.permutation(patients)[:, None] < rare], axis=1
    ).astype(int)
    of = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    return index_of(own[of], [str(patient) for patient in of], **columns)


def sides(index, name):
    """Return the splits in which a finding is present."""
    return set(index.rows.loc[index.rows[f"finding:{name}"] == PRESENT, "split"])


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from(["random", "stratified", "grouped"]), st.integers(3, 9))
def test_nothing_is_lost_no_patient_is_astride_and_findings_are_on_every_side(seed, method, rare):
    index = cohort(rare=rare, seed=seed)
    try:
        result = split(index, Recipe(split=method, seed=seed)).index
    except DataError:
        assert method == "random"
        return
    assert result.rows["path"].tolist() == index.rows["path"].tolist()
    if method == "grouped":
        assert result.rows.groupby("patient")["split"].nunique().max() == 1
    if method != "random":
        assert all(sides(result, name) == set(SPLITS) for name in NAMES)
    sizes = result.rows["split"].value_counts(normalize=True)
    assert 0.75 < sizes["train"] < 0.85


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([3, 5]))
def test_every_patient_is_held_out_once_and_every_fold_has_the_findings(seed, folds):
    index = cohort(patients=150, rare=folds, seed=seed)
    held = np.zeros(len(index), int)
    for fold in range(folds):
        rows = split(index, Recipe(folds=folds, fold=fold, seed=seed)).index.rows
        assert rows.groupby("patient")["split"].nunique().max() == 1
        test = (rows["split"] == "test").to_numpy()
        held += test
        for name, share in (("Edema", 0.25), ("Mass", 0.35)):
            present = (rows[f"finding:{name}"] == PRESENT).to_numpy()
            assert abs((present & test).sum() / present.sum() - 1 / folds) < share / folds, name
    assert (held == 1).all()


@pytest.mark.parametrize(("patients", "missing"), [(1, ["validation", "test"]), (2, ["test"]), (3, [])])
def test_a_rare_finding_is_trained_on_first_and_where_it_is_missing_is_said(patients, missing):
    for seed in range(3):
        found = split(cohort(rare=patients, seed=seed), Recipe(seed=seed))
        assert sides(found.index, "Rare") == set(SPLITS) - set(missing)
        assert any("No validation image shows Rare" in note for note in found.notes) == ("validation" in missing)


def test_a_finding_that_training_lacks_stops_with_the_way_out():
    with pytest.raises(DataError, match=r"No training image of made shows Rare.*--drop 'Rare'"):
        split(cohort(rare=0), Recipe())
    states = np.array([[i % 2, PRESENT] for i in range(60)])
    with pytest.raises(DataError, match=r"is without Mass.*--drop 'Mass'"):
        split(index_of(states), Recipe())


def test_a_finding_of_one_patient_cannot_be_cross_validated():
    with pytest.raises(DataError, match=r"Fewer than 2 patients.* Rare.*--drop 'Rare'"):
        split(cohort(rare=1), Recipe(folds=5, fold=0))
    for fold in range(5):
        split(cohort(rare=2), Recipe(folds=5, fold=fold))


def test_folds_by_chance_need_no_label():
    rows = split(cohort(), Recipe(folds=4, fold=1, split="random")).index.rows
    assert (rows["split"] == "test").mean() == pytest.approx(0.25, abs=0.02)


def test_official_splits_are_honoured_and_a_validation_is_drawn_over_findings():
    index = cohort(patients=400, rare=30)
    official = np.where(index.rows["patient"].astype(int) % 4 == 0, "test", "train")
    found = split(index.replace(index.rows.assign(split=official)), Recipe())
    rows = found.index.rows
    np.testing.assert_array_equal(rows["split"] == "test", official == "test")
    assert rows.groupby("patient")["split"].nunique().max() == 1
    assert sides(found.index, "Rare") == set(SPLITS)
    assert any("no validation images" in note for note in found.notes)


def test_what_is_done_with_uncertain_findings_does_not_change_the_split():
    index = cohort()
    states = index.rows["finding:Mass"].where(np.arange(len(index)) % 7 != 0, UNCERTAIN)
    index = index.replace(index.rows.assign(**{"finding:Mass": states}))
    ignored, positive = (
        split(dataclasses.replace(index, uncertain=Uncertain(choice)), Recipe()).index.rows["split"]
        for choice in ("ignore", "positive")
    )
    assert ignored.tolist() == positive.tolist()


def test_merged_sets_that_know_different_findings_are_each_split_alike():
    half = np.arange(400) < 200
    rng = np.random.default_rng(0)
    states = (rng.random((400, 2)) < 0.2).astype(int)
    states[half, 0], states[~half, 1] = UNKNOWN, UNKNOWN
    index = index_of(states, source=np.where(half, "a", "b"))
    rows = split(index, Recipe(split="grouped")).index.rows
    share = (rows["split"] == "test").groupby(rows["source"]).mean()
    assert share.between(0.09, 0.11).all()
    for name, own in (("Edema", ~half), ("Mass", half)):
        present = rows[f"finding:{name}"] == PRESENT
        assert (present & (rows["split"] == "test")).sum() / present.sum() == pytest.approx(0.1, abs=0.03)
        assert (rows.loc[~own, f"finding:{name}"] == UNKNOWN).all()


def test_one_finding_as_a_task_of_two_classes_is_split_by_its_classes():
    alone = cohort(rare=20).of_finding("Edema")
    found = split(alone.replace(alone.rows), Recipe())
    assert "stratified by class" in found.notes[0] and "findings" not in found.notes[0]
    assert ABSENT in set(found.index.rows["finding:Rare"])


def test_the_note_says_how():
    assert "stratified over findings" in split(cohort(), Recipe()).notes[0]
    unknown = cohort()
    unknown = unknown.replace(unknown.rows.assign(patient=""))
    assert "no patient is known" in split(unknown, Recipe()).notes[0]


def test_copies_stay_together():
    index = cohort(patients=90, rare=20)
    hashes = [f"h{i // 3}" for i in range(len(index))]
    index = index.replace(index.rows.assign(pixel_hash=hashes, patient=""))
    assert split(index, Recipe()).index.rows.groupby("pixel_hash")["split"].nunique().max() == 1
