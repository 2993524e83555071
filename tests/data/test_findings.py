import dataclasses

import numpy as np
import pandas as pd
import pytest

from chestxray.data.findings import ABSENT, PRESENT, SOFT, UNCERTAIN, UNKNOWN, Uncertain
from chestxray.data.index import Index
from chestxray.errors import DataError, InputError

NAMES = ("Edema", "Mass")


def index_of(states, **columns):
    rows = pd.DataFrame({"path": [f"/{i}.png" for i in range(len(states))], **columns})
    for name, column in zip(NAMES, np.transpose(states), strict=True):
        rows[f"finding:{name}"] = column
    return Index.from_findings(rows, NAMES, name="made")


def test_what_is_not_known_is_neither_present_nor_absent():
    made = index_of([[PRESENT, ABSENT], [ABSENT, UNKNOWN], [UNKNOWN, UNKNOWN], [UNCERTAIN, ABSENT]])
    assert made.task == "findings" and made.classes == NAMES
    assert made.rows["label"].tolist() == ["Edema", "No Finding", "", ""]
    np.testing.assert_array_equal(made.truth, np.array([[1, 0], [0, np.nan], [np.nan] * 2, [np.nan, 0]], np.float32))


@pytest.mark.parametrize(
    ("items", "target", "truth"),
    [([], np.nan, np.nan), (["positive"], 1, 1), (["negative"], 0, 0), (["soft"], SOFT, np.nan)],
)
def test_what_is_done_with_uncertain_findings(items, target, truth):
    states = np.array([[UNCERTAIN, PRESENT]])
    rule = Uncertain.parse(items, NAMES)
    np.testing.assert_array_equal(rule.targets(states, NAMES), np.array([[target, 1]], np.float32))
    np.testing.assert_array_equal(rule.truth(states, NAMES), np.array([[truth, 1]], np.float32))
    assert Uncertain.parse(rule.to_items(), NAMES) == rule


def test_a_finding_has_its_own_choice():
    rule = Uncertain.parse(["negative", "Mass=soft"], NAMES)
    np.testing.assert_array_equal(rule.targets(np.full((1, 2), UNCERTAIN), NAMES), np.array([[0, SOFT]], np.float32))


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (["maybe"], "uncertain must be one of ignore"),
        (["Masss=soft"], "Did you mean"),
        (["Mass=soft", "Mass=negative"], "two choices for Mass"),
        (["soft", "negative"], "two choices for all"),
    ],
)
def test_a_wrong_choice_is_one_line(items, words):
    with pytest.raises(InputError, match=words) as raised:
        Uncertain.parse(items, NAMES)
    assert "\n" not in str(raised.value)


def test_one_finding_is_a_task_of_two_classes_on_the_rows_where_it_is_known():
    made = index_of([[PRESENT, ABSENT], [ABSENT, UNKNOWN], [UNKNOWN, PRESENT]])
    alone = made.of_finding("Mass")
    assert alone.task == "classes" and alone.classes == ("no Mass", "Mass")
    assert alone.rows["label"].tolist() == ["no Mass", "Mass"] and alone.rows.index.tolist() == [0, 2]


def test_one_finding_is_written_and_read_whatever_another_does_with_uncertain_ones(tmp_path):
    made = index_of([[UNCERTAIN, UNCERTAIN], [ABSENT, PRESENT]])
    alone = dataclasses.replace(made, uncertain=Uncertain.parse(["Edema=positive"], NAMES)).of_finding("Edema")
    assert alone.rows["label"].tolist() == ["Edema", "no Edema"]
    alone.write(tmp_path / "index.parquet")
    assert Index.read(tmp_path / "index.parquet").classes == alone.classes


def test_findings_are_counted_where_they_are_present():
    made = index_of([[PRESENT, PRESENT], [PRESENT, ABSENT], [UNCERTAIN, UNKNOWN]], split=["train", "test", "test"])
    assert made.counts().loc["Edema"].to_dict() == {"test": 1, "train": 1}
    assert made.counts_by_split().columns.tolist() == ["train", "test"]
    assert made.counts_by_source().loc["Mass", "made"] == 1


def test_it_is_read_as_it_was_written(tmp_path):
    made = index_of([[PRESENT, ABSENT], [UNCERTAIN, UNKNOWN]])
    made = Index(**{**vars(made), "uncertain": Uncertain.parse(["soft", "Mass=negative"], NAMES)})
    made.write(tmp_path / "index.parquet")
    again = Index.read(tmp_path / "index.parquet")
    pd.testing.assert_frame_equal(again.rows, made.rows, check_dtype=False)
    assert (again.task, again.classes, again.uncertain) == ("findings", NAMES, made.uncertain)
    assert again.rows["finding:Mass"].dtype == np.int8


def test_damage_is_said(tmp_path):
    made = index_of([[PRESENT, ABSENT]])
    with pytest.raises(DataError, match="none of 1, 0, -1, -2"):
        index_of([[3, ABSENT]])
    made.replace(made.rows.assign(**{"finding:Mass": 7})).write(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="damaged"):
        Index.read(tmp_path / "a.parquet")
    made.replace(made.rows.drop(columns="finding:Mass")).write(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="finding:Mass is missing"):
        Index.read(tmp_path / "b.parquet")
