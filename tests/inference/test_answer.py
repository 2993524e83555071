import dataclasses
import json
import types

import numpy as np
import pytest

from chestxray.data.index import Index
from chestxray.errors import ChestXrayError
from chestxray.evaluation.decision.conformal import quantile
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.predictions import Predictions
from chestxray.inference.answer import abstaining, answered, answers, columns, unreadable
from chestxray.inference.engine import Outputs

CLASSES = ("clear", "sick")
DECISION = Decision(CLASSES, "sick", Calibration(), {"sick": 0.3}, "hand", coverage=0.9, limit=0.45)


def engine(threshold=5.0, decision=DECISION, limit=None):
    decision = dataclasses.replace(decision, limit=limit)
    return types.SimpleNamespace(classes=decision.classes, decision=decision, refusal_threshold=threshold)


def outputs(*sick, distances=None):
    probabilities = np.array([[1 - p, p] for p in sick], dtype=np.float32)
    return Outputs(probabilities, None if distances is None else np.array(distances), None)


def test_the_decision_is_that_of_the_threshold():
    first, second = answers(["a", "b"], outputs(0.29, 0.31), engine(None))
    assert (first.decision, second.decision) == ("clear", "sick")
    assert second.probabilities == pytest.approx({"clear": 0.69, "sick": 0.31})
    assert second.to_json() == {
        "path": "b", "decision": "sick", "probabilities": second.probabilities, "set": None, "abstained": None,
        "refused": None, "distance": None, "unreadable": None,
    }  # fmt: skip
    assert second.words == "sick, with a probability of 0.310."


def test_it_abstains_unless_the_set_is_the_class_decided_on():
    given = answers(list("abc"), outputs(0.1, 0.5, 0.35), engine(None, limit=0.45))
    assert [answer.classes_in_set for answer in given] == [("clear",), (), ("clear",)]
    assert [answer.abstained for answer in given] == [False, True, True]
    assert [answer.decision for answer in given] == ["clear", None, None]
    assert "no class is likely enough" in given[1].words
    assert "other side of the threshold" in given[2].words
    (wide,) = answers(["a"], outputs(0.5), engine(None, limit=0.6))
    assert wide.classes_in_set == CLASSES
    assert "cannot tell clear from sick" in wide.words
    rows = [answer.row(CLASSES) for answer in (*given, wide)]
    assert [row["set"] for row in rows] == ["clear", "-", "clear", "clear|sick"]
    assert [row["abstained"] for row in rows] == ["false", "true", "true", "true"]


def test_what_is_far_is_refused_in_words():
    near, far = answers(["a", "b"], outputs(0.9, 0.9, distances=[5.0, 5.01]), engine())
    assert (near.refused, near.decision) == (False, "sick")
    assert (far.refused, far.decision) == (True, None)
    assert far.probabilities
    assert "its distance from them is 5.01, allowed are up to 5.00" in far.words
    assert far.row(CLASSES)["refused"] == "true"


def test_three_classes_are_decided_by_the_largest():
    three = Decision(("a", "b", "c"), None, Calibration(), {"a": 0.9, "b": 0.9, "c": 0.9}, "")
    given = Outputs(np.array([[0.2, 0.5, 0.3]], dtype=np.float32), None, None)
    (answer,) = answers(["x"], given, engine(None, three))
    assert answer.decision == "b"


def test_unreadable_files_keep_their_place():
    given = answered(["a", "b", "c"], ["", "truncated", ""], outputs(0.1, 0.9), engine(None))
    assert [answer.decision for answer in given] == ["clear", None, "sick"]
    assert [answer.path for answer in given] == ["a", "b", "c"]
    assert given[1].words == "This image cannot be read: truncated."
    assert given[1].to_json()["probabilities"] is None
    assert answered(["a"], ["empty"], None, engine(None))[0].unreadable == "empty"


def test_rows_and_json_hold_the_same():
    given = answered(["a", "b"], ["", "bad"], outputs(0.123456789, distances=[2.5]), engine(limit=0.2))
    for answer in given:
        row, content = answer.row(CLASSES), json.loads(json.dumps(answer.to_json(), allow_nan=False))
        assert tuple(row) == columns(DECISION)
        if answer.unreadable:
            assert [name for name, value in row.items() if value] == ["path", "unreadable"]
            continue
        assert float(row["probability_sick"]) == content["probabilities"]["sick"] == pytest.approx(0.1234568)
        assert float(row["distance"]) == content["distance"] == 2.5
        assert (row["abstained"] == "true") is content["abstained"]
    assert unreadable("p", "why", DECISION).refused is None


@pytest.fixture
def folder(tmp_path):
    probabilities = np.random.default_rng(0).dirichlet((2, 1), 50)
    rows = [{"path": str(i), "label": CLASSES[i % 2], "split": "validation" if i < 40 else "test"} for i in range(50)]
    index = Index.from_records([row | {"patient": ""} for row in rows], name="made")
    Predictions.from_probabilities(index.rows, CLASSES, probabilities).write(tmp_path / "predictions.csv")
    return tmp_path


def test_another_coverage_is_learned_from_validation(folder):
    assert abstaining(folder, DECISION, None).limit == 0.45
    assert abstaining(folder, DECISION, 0.9).limit == 0.45
    validation = Predictions.read(folder / "predictions.csv").of("validation")
    wanted = quantile(validation.probabilities, validation.truth, 0.7, validation.clusters)
    assert abstaining(folder, DECISION, 0.7).limit == wanted
    backwards = Decision(("sick", "clear"), "sick", Calibration(), {"sick": 0.3}, "hand")
    assert abstaining(folder, backwards, 0.7).limit == wanted
    assert abstaining(folder, backwards, None).limit is None


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, 95.0, float("nan")])
def test_a_coverage_is_a_share(folder, coverage):
    with pytest.raises(ChestXrayError, match="abstain must be a coverage above 0 and below 1"):
        abstaining(folder, DECISION, coverage)


def test_without_validation_no_coverage_can_be_had(folder, tmp_path):
    predictions = Predictions.read(folder / "predictions.csv")
    predictions.of("test").write(folder / "predictions.csv")
    with pytest.raises(ChestXrayError, match="has no validation predictions"):
        abstaining(folder, DECISION, 0.8)
    with pytest.raises(ChestXrayError, match=r"has no predictions.csv"):
        abstaining(tmp_path / "nowhere", DECISION, 0.8)
