"""Which images are compared with the masks and boxes that the data have, and of which finding."""

import json

import numpy as np
import pandas as pd
import pytest

from chestxray.data.boxes import box
from chestxray.errors import DataError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation.localisation.located import located

SIDE = 16


def of_classes(truth, probability, classes=("well", "Mass")):
    paths = [f"{i}.png" for i in range(len(truth))]
    rows = pd.DataFrame({"path": paths, "label": [classes[i] for i in truth], "patient": paths})
    rows = rows.assign(split="test", source="s")
    p = np.array(probability)
    return Predictions.from_probabilities(rows, classes, np.stack([1 - p, p], axis=1))


def films(predictions):
    return {path: np.full((SIDE, SIDE), i % 256, np.uint8) for i, path in enumerate(predictions.rows["path"])}


def found(predictions, rows, most=200):
    return located(predictions, films(predictions), rows, "stretch", most=most, seed=0)


def mass(*names):
    return json.dumps([box(name, (0, 0, 4, 4), (SIDE, SIDE)) for name in names])


def test_the_few_boxes_of_many_films_are_all_used():
    """A box in 100 films: the films of the other checks, drawn at random, would have two of them."""
    count = 1000
    predictions = of_classes([1] * count, [0.9] * count)
    rows = predictions.rows[["path"]].assign(boxes=[mass("Mass") if i % 100 == 7 else "" for i in range(count)])
    some = found(predictions, rows)
    assert some.pixels.shape == (10, SIDE, SIDE, 1) and some.masks[:, :4, :4].all() and some.masks.sum() == 160
    assert len(np.unique(some.patients)) == 10
    assert len(found(predictions, rows, most=4).classes) == 4


def test_the_true_class_is_looked_for_where_the_model_missed_it():
    predictions = of_classes([1, 1, 0], [0.9, 0.1, 0.9])
    some = found(predictions, predictions.rows[["path"]].assign(boxes=mass("Mass")))
    assert some.classes.tolist() == [1, 1]
    assert some.pixels[:, 0, 0, 0].tolist() == [0, 1]


def test_of_several_findings_the_most_probable_with_a_known_place_is_looked_for():
    names = ("Effusion", "Mass", "Nodule")
    p, truth = [[0.9, 0.2, 0.3], [0.9, 0.2, 0.3], [0.9, 0.2, 0.3]], [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    columns = {"path": list("abc"), "patient": "", "split": "test", "source": "s", "label": ""}
    for i, name in enumerate(names):
        columns |= {f"probability_{name}": [row[i] for row in p], f"predicted_{name}": 0.0}
        columns |= {f"truth_{name}": [float(row[i]) for row in truth]}
    predictions = FindingPredictions(pd.DataFrame(columns), names)
    rows = pd.DataFrame({"path": list("abc"), "boxes": [mass("Mass", "Nodule")] * 3})
    assert found(predictions, rows).classes.tolist() == [2, 1]


def test_without_a_known_place_there_is_nothing():
    predictions = of_classes([1, 0], [0.9, 0.1])
    assert found(predictions, predictions.rows[["path"]]) is None
    assert found(predictions, predictions.rows[["path"]].assign(boxes=["", mass("Mass")], mask=np.nan)) is None


@pytest.mark.parametrize("name", ["x", "of", "width", "finding", "Masse \u00e0 droite"])
def test_a_finding_is_not_taken_for_a_word_of_the_boxes(name):
    predictions = of_classes([1, 1], [0.9, 0.9], ("well", name))
    rows = predictions.rows[["path"]]
    assert found(predictions, rows.assign(boxes=mass("Mass"))) is None
    plain = json.dumps([box(name, (0, 0, 4, 4), (SIDE, SIDE))], ensure_ascii=False)
    for text in (mass(name), plain):
        some = found(predictions, rows.assign(boxes=[mass("Mass"), text]))
        assert some.pixels[:, 0, 0, 0].tolist() == [1]


def test_a_mask_that_cannot_be_read_is_named(tmp_path):
    predictions = of_classes([1], [0.9])
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        found(predictions, predictions.rows[["path"]].assign(mask=str(tmp_path / "gone.png")))
