import dataclasses
import json
import types

import numpy as np
import pytest

from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.inference.answer import answered, answers, columns
from chestxray.inference.engine import Outputs
from drawn_findings import example

NAMES = ("Edema", "Mass", "Rare")


def rule(limit=None, **thresholds):
    chosen = {"Edema": 0.3, "Mass": 0.1, "Rare": 0.5} | thresholds
    return FindingDecision({
        name: Decision(
            (f"no {name}", name), name, Calibration(), {name: threshold},
            "not chosen: validation has 2 patients with it" if name == "Rare" else "Youden's index",
            limit=None if name == "Rare" else limit,
        )
        for name, threshold in chosen.items()
    })  # fmt: skip


def engine(decision, threshold=None):
    return types.SimpleNamespace(classes=decision.classes, decision=decision, refusal_threshold=threshold)


def of(*probabilities, limit=None, distance=None):
    outputs = Outputs(np.array([probabilities]), None if distance is None else np.array([distance]), None)
    (answer,) = answers(["a"], outputs, engine(rule(limit), None if distance is None else 1.0))
    return answer


def test_each_finding_is_decided_by_its_own_threshold():
    answer = of(0.29, 0.1, 0.49)
    assert {name: one.present for name, one in answer.findings.items()} == dict(
        zip(NAMES, (False, True, False), strict=True)
    )
    assert answer.abstained is None and answer.outcome == "decided"
    assert answer.to_json()["findings"]["Rare"] == {
        "probability": 0.49, "threshold": 0.5, "threshold_chosen": False, "present": False, "abstained": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("probabilities", "limit", "words"),
    [
        ((0.4, 0.81, 0.1), None, "Mass 0.810 and Edema 0.400 reach their thresholds."),
        ((0.4, 0.01, 0.1), None, "Edema 0.400 reaches its threshold."),
        ((0.1, 0.01, 0.1), None, "No finding reaches its threshold."),
        ((0.1, 0.01, 0.6), None, "Rare 0.600 reaches its threshold. The threshold of Rare was not chosen on "
         "validation."),
        ((0.5, 0.01, 0.1), 0.3, "No finding that the model decides on reaches its threshold. The model abstains "
         "from Edema."),
        ((0.5, 0.9, 0.1), 0.3, "Mass 0.900 reaches its threshold. The model abstains from Edema."),
    ],
)  # fmt: skip
def test_the_answer_in_words(probabilities, limit, words):
    answer = of(*probabilities, limit=limit)
    assert answer.words == words
    assert "normal" not in words.lower()


def test_it_abstains_from_every_finding():
    alone = FindingDecision({"Edema": rule(0.3).findings["Edema"]})
    (answer,) = answers(["a"], Outputs(np.array([[0.5]]), None, None), engine(alone))
    assert answer.words == "The model abstains from every finding: nothing is decided."
    assert answer.outcome == "abstained"


def test_nothing_is_decided_in_what_is_refused():
    answer = of(0.9, 0.9, 0.9, limit=0.2, distance=1.01)
    assert answer.refused and answer.present == () and answer.outcome == "refused"
    assert "does not look like the chest radiographs" in answer.words
    row = answer.row(NAMES)
    assert [row[f"predicted_{name}"] for name in NAMES] == ["", "", ""] and row["refused"] == "true"


def test_rows_and_json_hold_the_same():
    given = answered(["a", "b"], ["", "truncated"], Outputs(np.array([[0.5, 0.9, 0.6]]), None, None), engine(rule(0.3)))
    row, content = given[0].row(NAMES), json.loads(json.dumps(given[0].to_json(), allow_nan=False))
    assert tuple(row) == columns(rule())
    assert list(row.values()) == ["a", "0.5", "0.9", "0.6", "", "1", "1", "Edema", "", "", ""]
    assert content["findings"]["Edema"]["present"] is None and content["findings"]["Edema"]["abstained"]
    unread = given[1].row(NAMES)
    assert {name for name, value in unread.items() if value} == {"path", "unreadable"}
    assert given[1].to_json()["findings"] is None
    assert of(0.9, 0.9, 0.9, limit=0.3).row(NAMES)["abstained"] == "-"


def test_answers_are_those_of_the_table_of_predictions():
    """The rule applied to a table, as the run was, and to the outputs of an engine."""
    predictions = example(120)
    decision = FindingDecision({
        name: dataclasses.replace(rule(0.35).findings["Edema"], classes=(f"no {name}", name), positive=name,
                                  thresholds={name: 0.25})
        for name in predictions.findings
    })  # fmt: skip
    refused = np.arange(120) % 5 == 0
    wanted = decision.applied(FindingPredictions(predictions.rows, predictions.findings), refused).rows
    outputs = Outputs(predictions.probabilities, refused * 2.0, None)
    given = answers(list(wanted["path"]), outputs, engine(decision, 1.0))
    for answer, (_, row) in zip(given, wanted.iterrows(), strict=True):
        assert answer.refused == (row["refused"] == "true")
        for name, one in answer.findings.items():
            assert one.abstained == (row[f"abstained_{name}"] == "true")
            silent = answer.refused or one.abstained
            assert one.present == (None if silent else row[f"predicted_{name}"] == 1)
    assert {one.present for answer in given for one in answer.findings.values()} == {True, False, None}
