"""The table of predictions of findings."""

import numpy as np
import pandas as pd
import pytest

from chestxray.data.findings import IGNORED, Uncertain
from chestxray.errors import DataError
from chestxray.evaluation.finding_predictions import FEWEST_PATIENTS, FindingPredictions, Known
from chestxray.evaluation.predictions import Predictions, together
from drawn_findings import NAMES, example, index_of, made
from drawn_predictions import example as of_classes

NAN = np.nan


def test_the_table_says_what_the_index_says():
    truth = np.array([[1, 0, NAN], [NAN, NAN, NAN], [0, 1, 0.0]])
    index = index_of(truth, NAMES, [7, 7, 8])
    table = FindingPredictions.from_probabilities(index, np.full((3, 3), 0.5))
    np.testing.assert_array_equal(table.truth, truth)
    assert table.rows["label"].tolist() == ["Mass", "", "Edema"]
    assert table.predicted.all()
    assert table.clusters.tolist() == [0, 0, 1]
    some = FindingPredictions.from_probabilities(index, np.full((1, 3), 0.2), np.array([2]))
    assert (some.rows["path"].tolist(), some.predicted.any()) == (["/00002.png"], False)


@pytest.mark.parametrize(("uncertain", "known"), [(IGNORED, 1), (Uncertain("soft"), 1), (Uncertain("positive"), 2)])
def test_nobody_is_tested_on_an_uncertain_finding_unless_a_choice_says_so(uncertain, known):
    index = index_of(np.array([[0.0], [1.0]]), ("Mass",))
    index.rows.loc[1, "finding:Mass"] = -1
    index = index.__class__(index.rows, index.classes, "demo", task="findings", uncertain=uncertain)
    table = FindingPredictions.from_probabilities(index, np.array([[0.1], [0.6]]))
    assert len(table.of_finding("Mass").rows) == known


def test_one_finding_is_a_table_of_two_classes():
    table = example()
    for name in NAMES:
        one, column = table.of_finding(name), NAMES.index(name)
        known = ~np.isnan(table.truth[:, column])
        assert one.classes == (f"no {name}", name)
        assert (one.truth == table.truth[known, column]).all()
        assert (one.predicted == table.predicted[known, column]).all()
        assert (one.probabilities[:, 1] == table.probabilities[known, column]).all()
        assert (one.rows.index == np.flatnonzero(known)).all(), "rows can be found again"


def test_it_is_read_as_it_was_written(tmp_path):
    table = example()
    table.write(tmp_path / "predictions.csv")
    again = FindingPredictions.read(tmp_path / "predictions.csv")
    assert again.findings == NAMES
    pd.testing.assert_frame_equal(again.rows[table.rows.columns], table.rows, rtol=1e-15)
    first = (tmp_path / "predictions.csv").read_text().splitlines()[1]
    assert "nan" not in first
    assert "1.0," not in first
    of_classes().write(tmp_path / "classes.csv")
    with pytest.raises(DataError, match="truth_NORMAL"):
        FindingPredictions.read(tmp_path / "classes.csv")
    with pytest.raises(DataError, match="predicted is missing"):
        Predictions.read(tmp_path / "predictions.csv")


def test_a_table_in_which_nothing_is_known_is_read(tmp_path):
    made(np.full((2, 1), NAN), np.zeros((2, 1)), ("Mass",)).write(tmp_path / "a.csv")
    assert np.isnan(FindingPredictions.read(tmp_path / "a.csv").truth).all()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("truth_Mass", 2, "truth_Mass must have 1, 0 or nothing alone. Received: 2 in line 2"),
        ("truth_Mass", "yes", "truth_Mass must have only numbers"),
        ("truth_Edema", -1, "truth_Edema must have 1, 0 or nothing"),
        ("predicted_Mass", "", "predicted_Mass must have only numbers"),
        ("predicted_Mass", 0.5, "predicted_Mass must have 1 or 0 alone"),
        (
            "probability_Mass",
            1.5,
            "probability_Mass must have a probability from 0 to 1 alone. Received: 1.5 in line 2",
        ),
        ("probability_Mass", "", "probability_Mass must have only numbers"),
        ("split", "exam", "column split must have only train, validation, test"),
        ("predicted_Edema", None, "not a table of predictions: predicted_Edema is missing"),
        ("patient", None, "not a table of predictions: patient is missing"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(tmp_path, column, value, message):
    rows = example(20).rows.astype(object)
    if value is None:
        rows = rows.drop(columns=column)
    else:
        rows.loc[0, column] = value
    rows.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=message) as error:
        FindingPredictions.read(tmp_path / "a.csv")
    assert "\n" not in str(error.value)


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read as a table"):
        FindingPredictions.read(tmp_path / "missing.csv")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"probability_\.\.\. is missing"):
        FindingPredictions.read(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError):
        FindingPredictions.read(tmp_path / "b.csv")


def test_tables_together_are_by_path():
    table = example(20)
    rows = table.rows.assign(split=np.where(np.arange(20) % 2, "test", "validation"))
    table = FindingPredictions(rows, NAMES)
    again = together([table.of("test"), table.of("validation")])
    pd.testing.assert_frame_equal(again.rows, table.rows)


def test_few_patients_are_counted_not_images():
    truth = np.array([[1.0]] * 40 + [[0.0]] * 40)
    for patients, few in ((FEWEST_PATIENTS, False), (FEWEST_PATIENTS - 1, True)):
        codes = np.concatenate([np.arange(40) % patients, 100 + np.arange(40)])
        table = made(truth, truth, ("Mass",), codes)
        known = Known.of(table.of_finding("Mass"), "Mass")
        assert (known.rows, known.positive, known.patients) == (80, 40, patients + 40)
        assert bool(known.too_few) == few
    assert known.too_few == "5 patients with it and 40 without; 6 of each are needed"
