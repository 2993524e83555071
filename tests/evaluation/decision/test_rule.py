import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from chestxray.errors import DataError, InputError
from chestxray.evaluation.decision import conformal, operating_point, temperature_scaling
from chestxray.evaluation.decision.rule import Decision, Promise
from chestxray.evaluation.decision.selection import decide
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.proportions import share
from chestxray.recipe import Recipe
from chestxray.storage.files import write_json


def made(probabilities, labels, classes=("clear", "sick")) -> Predictions:
    """Validation rows with these probabilities (rows, classes) and labels."""
    n = len(labels)
    columns = {"path": [f"/{i}.png" for i in range(n)], "patient": "", "split": "validation", "source": "made"}
    return Predictions.from_probabilities(
        pd.DataFrame(columns | {"label": list(labels)}), classes, np.asarray(probabilities)
    )


def overconfident(seed, n, temperature, classes=3):
    """Probabilities whose logits are `temperature` times what is true, and outcomes of the true ones."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (n, classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (true.cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    return Calibration(1 / temperature).applied(true), truth


scores = arrays.arrays(np.float64, 30, elements=st.floats(0, 1, width=32))


@settings(max_examples=60)
@given(scores, arrays.arrays(np.bool_, 30))
def test_no_threshold_is_better_by_youden(score, positive):
    if positive.all() or not positive.any():
        assert operating_point.choose(score, positive) == 0.5
        return

    def youden(threshold):
        return (score >= threshold)[positive].mean() + (score < threshold)[~positive].mean()

    best = max(youden(t) for t in [*score, 2.0])
    # Calling nothing positive is no threshold to choose; calling all so is as good.
    assert youden(operating_point.choose(score, positive)) >= best - 1e-9


@settings(max_examples=60)
@given(scores, arrays.arrays(np.bool_, 30), st.floats(0.05, 1))
def test_the_wanted_sensitivity_is_reached_by_the_highest_threshold(score, positive, wanted):
    if positive.all() or not positive.any():
        return
    threshold = operating_point.choose(score, positive, wanted)
    assert (score >= threshold)[positive].mean() >= wanted - 1e-12
    higher = score[score > threshold]
    above = np.unique(higher)
    if len(above) > 1:
        # The threshold stands below the first of these; the next one would miss.
        assert (score >= above[1])[positive].mean() < wanted


def test_a_decision_about_one_class_is_told_in_two():
    predictions = made([[0.2, 0.5, 0.3], [0.1, 0.3, 0.6]], ["b", "c"], ("a", "b", "c"))
    told = operating_point.decided(predictions, "b", 0.4)
    assert told.classes == (operating_point.REST, "b")
    assert told.rows["predicted"].tolist() == ["b", operating_point.REST]
    assert told.rows["label"].tolist() == ["b", operating_point.REST]
    np.testing.assert_allclose(told.probabilities, [[0.5, 0.5], [0.7, 0.3]])


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_cover_new_rows_as_often_as_promised(coverage):
    kept = []
    for seed in range(40):
        probabilities, truth = overconfident(seed, 600, 3.0)
        limit = conformal.quantile(probabilities[:300], truth[:300], coverage, np.arange(300))
        inside = conformal.sets(probabilities[300:], limit)
        kept.append(inside[np.arange(300), truth[300:]].mean())
    # The promise is from coverage to coverage + 1/301 on average over draws.
    assert np.mean(kept) == pytest.approx(coverage, abs=0.012)


def test_too_few_rows_promise_nothing_but_everything():
    assert conformal.quantile(np.array([[0.9, 0.1]] * 5), np.zeros(5, dtype=int), 0.95, np.arange(5)) == 1.0
    everything = conformal.sets(np.array([[0.9, 0.1]]), 1.0)
    assert everything.all()
    assert not conformal.answered(everything, np.array([0])).any()


def test_an_answer_is_one_class_and_the_one_decided_on():
    inside = conformal.sets(np.array([[0.9, 0.1], [0.5, 0.5], [0.9, 0.1], [0.35, 0.65]]), 0.2)
    assert inside.tolist() == [[True, False], [False, False], [True, False], [False, False]]
    both = np.array([[True, True], *inside])
    # In the last but one, a threshold below 0.1 decides for the class that is not in the set.
    assert conformal.answered(both, np.array([0, 0, 0, 1, 1])).tolist() == [False, True, False, False, False]


def test_a_decision_is_chosen_on_what_was_calibrated_and_can_be_read_again(tmp_path):
    probabilities, truth = overconfident(2, 400, 3.0, classes=2)
    validation = made(probabilities, [("clear", "sick")[k] for k in truth])
    fitted = temperature_scaling.fit(validation)
    assert fitted.temperature > 2
    scored = temperature_scaling.calibrated(validation, fitted)
    decision = decide(scored, Recipe(abstain=0.9, sensitivity=0.9), fitted)
    assert decision.positive == "sick"
    found = decision.decided(scored.probabilities)[truth == 1].mean()
    assert 0.91 <= found < 0.97, "above what is promised, but no higher than that takes"
    assert decision.promise == Promise(0.9, 0.95, (truth == 1).sum())
    assert "With confidence 0.95, a sensitivity of at least 90% is promised" in decision.words
    alone = decide(scored, Recipe(abstain=0.9, sensitivity=0.9, confidence=0), fitted)
    assert 0.9 <= alone.decided(scored.probabilities)[truth == 1].mean() < 0.93
    assert "nothing is promised" in alone.words
    write_json(tmp_path / "decision.json", decision.to_json())
    assert Decision.read(tmp_path / "decision.json") == decision
    content = decision.to_json()
    damaged = (
        {},
        *(content | {"thresholds": given} for given in ({}, {"sick": float("nan")}, {"sick": 1.5}, {"sick": "1"})),
    )
    for fields in damaged:
        (tmp_path / "decision.json").write_text(json.dumps(fields))
        with pytest.raises(DataError, match="damaged"):
            Decision.read(tmp_path / "decision.json")


THREE = ("a", "b", "c")


def test_with_many_classes_the_most_probable_is_decided_on():
    probabilities, truth = overconfident(3, 200, 1.0)
    decision = decide(made(probabilities, [THREE[k] for k in truth], THREE), Recipe(class_weights=False), Calibration())
    assert decision.threshold is None
    assert set(decision.thresholds) == set(THREE)
    np.testing.assert_array_equal(decision.decided(probabilities), probabilities.argmax(axis=1))


def test_weighted_classes_stay_weighted_in_the_decision(tmp_path):
    generator = np.random.default_rng(4)
    logits = generator.normal(0, 1.5, (3000, 3)) + np.array([2.5, 0, 0])
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (true.cumsum(axis=1) < generator.random((3000, 1))).sum(axis=1)
    decision = decide(made(true, [THREE[k] for k in truth], THREE), Recipe(class_weights=True), Calibration())
    assert decision.priors == pytest.approx(np.bincount(truth) / 3000)

    def balanced(decided):
        return np.mean([(decided == k)[truth == k].mean() for k in range(3)])

    assert balanced(decision.decided(true)) > balanced(true.argmax(axis=1)) + 0.1
    write_json(tmp_path / "decision.json", decision.to_json())
    assert Decision.read(tmp_path / "decision.json") == decision


def test_a_sensitivity_is_refused_where_no_threshold_decides():
    probabilities, truth = overconfident(3, 60, 1.0)
    validation = made(probabilities, [THREE[k] for k in truth], THREE)
    with pytest.raises(InputError, match=r"sensitivity is for two classes.*Received: 0\.9"):
        decide(validation, Recipe(sensitivity=0.9), Calibration())


def test_what_is_decided_stands_in_the_table_and_what_is_not_answered_is_empty(tmp_path):
    plain = made([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.55, 0.45]], ["clear", "sick", "sick", "clear"])
    assert plain.rows["predicted"].tolist() == ["clear", "clear", "sick", "clear"]
    decision = Decision(("clear", "sick"), "sick", Calibration(), {"sick": 0.35}, "hand", coverage=0.9, limit=0.59)
    found = decision.applied(plain, np.array([False, False, True, False]))
    assert found.rows["predicted"].tolist() == ["clear", "sick", "sick", "sick"]
    assert found.rows["refused"].tolist() == ["false", "false", "true", "false"]
    # In the second row the set holds the other class alone, in the last one it holds both.
    assert found.rows["abstained"].tolist() == ["false", "true", "false", "true"]
    assert found.rows["decision"].tolist() == ["clear", "", "", ""]
    found.write(tmp_path / "predictions.csv")
    again = Predictions.read(tmp_path / "predictions.csv")
    pd.testing.assert_frame_equal(again.rows[found.rows.columns], found.rows)
    assert again.rows.columns.tolist()[5:9] == ["predicted", "decision", "abstained", "refused"]
    other = Decision(("clear", "sick"), "sick", Calibration(), {"sick": 0.5}, "hand")
    after = other.applied(again)
    assert after.rows["decision"].tolist() == ["clear", "clear", "", "clear"], "what was refused stays refused"
    assert after.rows["abstained"].tolist() == [""] * 4


def test_a_share_is_wider_where_patients_have_many_images():
    flags = np.repeat(np.arange(50) % 4 == 0, 4)
    alone = share(flags, np.arange(200))
    together = share(flags, np.repeat(np.arange(50), 4))
    assert alone.value == together.value == pytest.approx(0.26)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    assert share(np.empty(0, dtype=bool), np.empty(0, dtype=int)).value is None
