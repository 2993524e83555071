"""Further columns of an index are what they are declared to be, when it is built, loaded, merged, written and read."""

import json

import numpy as np
import pandas as pd
import pytest

from chestxray.data import boxes
from chestxray.data.column_kinds import KINDS, RESERVED
from chestxray.data.index import COLUMNS, Index
from chestxray.data.label_mapping import merge
from chestxray.errors import DataError

BOX = json.dumps([boxes.box("mass", (1, 2, 3, 4.5), (64, 64)), boxes.box("nodule", (0, 0, 1, 1), None)])


def made(name="made", kinds=None, **columns):
    count = len(next(iter(columns.values())))
    table = pd.DataFrame({"path": [f"/{name}{n}.png" for n in range(count)], "label": "x", **columns}, dtype=object)
    return Index.from_records(table.to_dict("records"), name=name, kinds=kinds)


def test_columns_are_kept_by_their_kind():
    kinds = {"dose": "number", "ward": "category", "outline": "path", "drawn_boxes": "boxes"}
    index = made(
        kinds=kinds, dose=["1.5", 2, None], ward=["a", None, ""], outline=["/o.png", "", ""], drawn_boxes=[BOX, "", ""]
    )
    index.require_columns()
    assert index.rows["dose"].dtype == np.float64 and np.isnan(index.rows["dose"].iloc[2])
    assert index.rows["ward"].tolist() == ["a", "", ""]
    assert set(kinds.values()) == set(KINDS)
    assert [index.kind(column) for column in (*kinds, "lung_mask", "mask:mass", "boxes", "sex")] == [
        *kinds.values(), "path", "path", "boxes", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kinds", "values", "message"),
    [
        ({"c": "number"}, ["1", "two"], "column 'c', of numbers, has one that is not finite. Received: 'two'"),
        ({"c": "number"}, [1.0, float("inf")], "Received: 'inf'"),
        ({"c": "category"}, ["a", 2], "column 'c', of kind category, that holds no text"),
        ({"c": "colour"}, ["a", "b"], "declares the column 'c' as 'colour'. Allowed: .* category, number, path, boxes"),
        ({"d": "number"}, ["a", "b"], "declares the column 'd'"),
    ],
)
def test_what_is_not_of_its_kind_is_refused_when_the_index_is_built(kinds, values, message):
    with pytest.raises(DataError, match=message):
        made(kinds=kinds, c=values)


@pytest.mark.parametrize("text", ["no JSON", "{}", "[1]", BOX.replace('"x": 1.0', '"x": "1"'),
                                  BOX.replace('"of": null', '"of": [1]'), BOX.replace('"y": 2.0, ', ""),
                                  BOX.replace('"x": 1.0', '"x": NaN')])  # fmt: skip
def test_boxes_have_one_format(text):
    made(boxes=["", BOX]).require_columns()
    with pytest.raises(DataError, match="column 'boxes', of boxes, has a text that is none of a JSON list"):
        made(boxes=["", text]).require_columns()


def test_a_column_of_several_types_and_one_of_ours_are_refused():
    with pytest.raises(DataError, match="'age' that holds int, str"):
        made(age=["58", 59]).require_columns()
    with pytest.raises(DataError, match="'area' that holds list"):
        made(area=[[1], [2]]).require_columns()
    for name in ("audit", "key", "finding:mass"):
        with pytest.raises(DataError, match=f"a column '{name}', a name that chestxray gives to columns of its own"):
            made(**{name: ["a", "b"]}).require_columns()
    made(age=[58, 59.5], sex=["F", None], drawn=[True, False]).require_columns()


def test_kinds_are_written_and_read(tmp_path):
    index = made(kinds={"dose": "number", "ward": "category"}, dose=[1, None], ward=["a", ""])
    index.write(tmp_path / "index.parquet")
    again = Index.read(tmp_path / "index.parquet")
    assert again.kinds == index.kinds and again.rows["dose"].dtype == np.float64


def test_merged_sets_keep_the_kinds_on_which_they_agree(tmp_path):
    one = made(
        "one", {"dose": "number", "age": "number", "ward": "category"}, dose=[1, 2], age=[58, 60.5], ward=["a", "b"]
    )
    two = made("two", {"dose": "number"}, dose=[3, None], age=["061Y", ""])
    both = merge([one, two])
    assert both.kinds == {"dose": "number", "ward": "category"}
    assert both.rows["age"].tolist() == ["58", "60.5", "061Y", ""]
    assert both.rows["ward"].tolist() == ["a", "b", "", ""]
    both.require_columns()
    both.write(tmp_path / "index.parquet")
    assert Index.read(tmp_path / "index.parquet").rows["age"].tolist() == both.rows["age"].tolist()


def test_every_column_that_a_run_adds_is_reserved(folder, tmp_path):
    from chestxray import workflow
    from chestxray.recipe import Recipe

    recipe = Recipe(model="shallow_cnn", data=f"folder:{folder}", image_size=16)
    prepared = workflow.prepare(recipe.replace(image_size=(16, 16)), tmp_path / "cache", workflow.Clock())
    assert set(prepared.index.rows) - set(COLUMNS) <= RESERVED
    elsewhere = {"unreadable", "external", "key", "opener", "lung_box"}
    assert RESERVED - set(prepared.index.rows) == elsewhere - set(prepared.index.rows)
