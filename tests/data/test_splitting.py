import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chestxray.data.grouping import dependent_groups
from chestxray.data.splitting import split
from chestxray.errors import ChestXrayError, DataError
from chestxray.recipe import Recipe
from made import make_index


@st.composite
def cohorts(draw):
    """Labels and patients: one label a patient, one to four images each."""
    sizes = draw(st.lists(st.lists(st.integers(1, 4), min_size=6, max_size=30), min_size=2, max_size=4))
    labels, patients = [], []
    for label, counts in enumerate(sizes):
        for number, count in enumerate(counts):
            labels += [f"class{label}"] * count
            patients += [f"{label}-{number}"] * count
    return labels, patients


@settings(max_examples=40)
@given(cohorts(), st.sampled_from(["random", "stratified", "grouped"]), st.integers(0, 2**31 - 1))
def test_nothing_is_lost_or_twice_and_no_patient_is_astride(cohort, method, seed):
    labels, patients = cohort
    index = make_index(labels, patients)
    try:
        result = split(index, Recipe(split=method, seed=seed)).index
    except DataError:
        assert method == "random", "only the naive way may leave a class out of training"
        return
    rows = result.rows
    assert rows["path"].tolist() == index.rows["path"].tolist()
    assert set(rows["split"]) == {"train", "validation", "test"}
    if method == "grouped":
        assert rows.groupby("patient")["split"].nunique().max() == 1
    if method != "random":
        assert (rows.groupby("label")["split"].nunique() == 3).all()


def test_shares_are_kept_class_by_class():
    labels = ["a"] * 600 + ["b"] * 200
    rows = split(make_index(labels, [str(i // 2) for i in range(800)]), Recipe()).index.rows
    for split_name in ("validation", "test"):
        share = (rows["split"] == split_name).groupby(rows["label"]).mean()
        assert share.between(0.07, 0.13).all(), share


def test_the_same_seed_gives_the_same_split_on_any_platform():
    rows = split(make_index(["a", "b"] * 30, [str(i // 4) for i in range(60)]), Recipe(seed=3)).index.rows
    test = np.flatnonzero(rows["split"] == "test").tolist()
    assert test == [44, 45, 46, 47]


def test_copies_of_an_image_stay_together():
    hashes = [f"h{i // 3}" for i in range(90)]
    rows = split(make_index(["a", "b", "a"] * 10 + ["b", "a", "b"] * 20, hashes=hashes), Recipe()).index.rows
    assert rows.groupby("pixel_hash")["split"].nunique().max() == 1


def test_groups_join_patients_through_a_shared_image():
    index = make_index(["a"] * 5, ["1", "1", "2", "3", ""], hashes=["x", "y", "y", "z", "w"])
    codes = dependent_groups(index.rows)
    assert codes[0] == codes[1] == codes[2]
    assert len(set(codes)) == 3


def official(n_train, n_validation, n_test):
    splits = ["train"] * n_train + ["validation"] * n_validation + ["test"] * n_test
    return make_index(["a", "b"] * (len(splits) // 2), [str(i // 2) for i in range(len(splits))], splits)


def test_a_small_official_validation_is_redrawn_from_train_and_said():
    result = split(official(400, 16, 60), Recipe())
    rows = result.index.rows
    assert (rows["split"][416:] == "test").all()
    assert 25 < (rows["split"] == "validation").sum() < 60
    assert rows.groupby("patient")["split"].nunique().max() == 1
    assert "only 16 validation images" in result.notes[0]


def test_a_small_official_validation_can_be_kept():
    result = split(official(400, 16, 60), Recipe(keep_validation=True))
    assert (result.index.rows["split"] == "validation").sum() == 16
    assert result.notes == ()


def test_a_large_official_split_is_left_alone():
    index = official(400, 60, 60)
    result = split(index, Recipe())
    assert result.index.rows["split"].tolist() == index.rows["split"].tolist()


def test_unreadable_rows_are_in_no_split():
    index = make_index(["a", "b"] * 20)
    index = index.replace(index.rows.assign(unreadable=["broken", *[""] * 39]))
    rows = split(index, Recipe()).index.rows
    assert rows["split"][0] == ""
    assert (rows["split"][1:] != "").all()


@pytest.mark.parametrize(
    ("index", "recipe", "words"),
    [
        (make_index(["a"] * 10), Recipe(), "single class"),
        (make_index(["a"] * 10 + ["b"]), Recipe(), "'b' of made has 1 readable images; at least 3"),
        (make_index(["a"] * 9 + ["b"] * 9, ["p"] * 9 + ["q"] * 9), Recipe(), "too few patients"),
        (make_index(["a", "b"] * 10), Recipe(split="official"), "no official split"),
    ],
)
def test_what_cannot_be_split_is_said(index, recipe, words):
    with pytest.raises(DataError, match=words):
        split(index, recipe)


def test_each_official_validation_is_judged_by_itself():
    index = official(400, 16, 60)
    rows = pd.concat([index.rows, index.rows.assign(source="other", path=index.rows["path"] + "x")])
    rows.loc[rows["source"] == "other", "split"] = ["train"] * 300 + ["validation"] * 100 + ["test"] * 76
    rows["pixel_hash"] = rows["path"]
    result = split(index.replace(rows), Recipe())
    counts = result.index.rows.groupby("source")["split"].value_counts()
    assert counts["other", "validation"] == 100
    assert counts["made", "validation"] > 25
    assert [note.split(":")[0] for note in result.notes] == ["made"]


@settings(max_examples=25)
@given(cohorts(), st.sampled_from(["stratified", "grouped"]), st.integers(0, 2**31 - 1))
def test_every_row_is_held_out_in_one_fold(cohort, method, seed):
    labels, patients = cohort
    index = make_index(labels, patients)
    tested = []
    for fold in range(3):
        try:
            rows = split(index, Recipe(split=method, split_seed=seed, folds=3, fold=fold)).index.rows
        except DataError:
            assume(False)  # so few patients that a fold takes a whole class
        assert set(rows["split"]) == {"train", "validation", "test"}
        if method == "grouped":
            assert rows.groupby("patient")["split"].nunique().max() == 1
        tested += rows.loc[rows["split"] == "test", "path"].tolist()
    assert sorted(tested) == index.rows["path"].tolist()


@pytest.mark.parametrize("method", ["random", "stratified", "grouped"])
def test_folds_keep_the_shares_of_the_classes(method):
    labels = ["a"] * 600 + ["b"] * 200
    for fold in range(5):
        recipe = Recipe(split=method, folds=5, fold=fold)
        rows = split(make_index(labels, [str(i // 2) for i in range(800)]), recipe).index.rows
        share = (rows["split"] == "test").groupby(rows["label"]).mean()
        assert share.between(0.1 if method == "random" else 0.18, 0.3 if method == "random" else 0.22).all(), share
        assert 60 < (rows["split"] == "validation").sum() < 100


def test_folds_beside_an_official_test_are_validations():
    index = official(400, 60, 60)
    seen = []
    for fold in range(4):
        result = split(index, Recipe(folds=4, fold=fold))
        rows = result.index.rows
        assert rows.loc[rows["split"] == "test", "path"].tolist() == index.rows["path"][460:].tolist()
        assert rows.groupby("patient")["split"].nunique().max() == 1
        seen += rows.loc[rows["split"] == "validation", "path"].tolist()
        assert f"Fold {fold + 1} of 4" in result.notes[0]
    assert sorted(seen) == index.rows["path"][:460].tolist()


def two_sources():
    index = make_index(["a", "b"] * 40, [str(i // 2) for i in range(80)])
    return index.replace(index.rows.assign(source=["here"] * 40 + ["there"] * 40))


def test_one_source_is_left_out():
    rows = split(two_sources(), Recipe(split="source", held_out="there")).index.rows
    assert set(rows.loc[rows["source"] == "there", "split"]) == {"test"}
    assert set(rows.loc[rows["source"] == "here", "split"]) == {"train", "validation"}


@pytest.mark.parametrize(
    ("index", "recipe", "words"),
    [
        (two_sources(), Recipe(split="source", held_out="elsewhere"), "Allowed: here, there. Received: 'elsewhere'"),
        (two_sources(), Recipe(split="source"), "choose it with fold or held_out"),
        (make_index(["a", "b"] * 9), Recipe(split="source", held_out="x"), "two sources or more"),
        (make_index(["a"] * 9 + ["b"] * 4), Recipe(folds=5, fold=0), "'b' has 4 patients or distinct images, too few"),
    ],
)
def test_what_cannot_be_held_out_is_said(index, recipe, words):
    with pytest.raises(ChestXrayError, match=words):
        split(index, recipe)


def test_folds_are_the_same_on_any_platform():
    index = make_index(["a", "b"] * 30, [str(i // 4) for i in range(60)])
    rows = split(index, Recipe(split="grouped", folds=5, fold=1, seed=3)).index.rows
    assert np.flatnonzero(rows["split"] == "test").tolist() == [16, 17, 18, 19, 28, 29, 30, 31, 32, 33, 34, 35]


def several_labels(rng):
    """Patients with images of several classes, some of them rare."""
    classes = int(rng.integers(2, 6))
    shares = rng.dirichlet(np.full(classes, rng.choice([0.5, 1, 3])))
    labels, patients = [], []
    for patient in range(int(rng.integers(6, 60))):
        own, alone = rng.choice(classes, p=shares), rng.random()
        for _ in range(int(rng.integers(1, 6))):
            labels.append(f"class{own if rng.random() < alone else rng.choice(classes, p=shares)}")
            patients.append(str(patient))
    return make_index(labels, patients)


@pytest.mark.parametrize("drawn", [5, 113, 141, 212, 240, 282, 307, 308, 311, 330, *range(10, 30)])
def test_every_class_is_in_every_split_where_patients_have_several_labels(drawn):
    """The first ten had a class without validation or test images, before groups were moved for it."""
    rng = np.random.default_rng(drawn)
    index, seed = several_labels(rng), int(rng.integers(2**31))
    try:
        result = split(index, Recipe(split="grouped", seed=seed)).index
    except DataError as error:
        assert drawn in range(10, 30)
        assert "at least" in str(error) or "single class" in str(error)
        return
    assert (result.counts() > 0).all(axis=None), result.counts()
    assert result.rows.groupby("patient")["split"].nunique().max() == 1
