import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from chestxray import abstention, calibration, thresholds
from chestxray.decision import Decision, decide
from chestxray.errors import DataError
from chestxray.files import write_json
from chestxray.prediction import Predictions
from chestxray.recipe import Recipe
from chestxray.shares import share


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
    return calibration.rescaled(true, 1 / temperature), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    probabilities, truth = overconfident(0, 20_000, temperature)
    assert calibration.fit_temperature(probabilities, truth) == pytest.approx(temperature, rel=0.05)


def test_calibration_lowers_error_and_keeps_every_order():
    probabilities, truth = overconfident(1, 4000, 4.0)
    names = ("a", "b", "c")
    before = made(probabilities, [names[k] for k in truth], names)
    after = calibration.calibrated(before, calibration.fit_temperature(probabilities, truth))
    rows = np.arange(len(truth))

    def loss(predictions):
        return -np.log(predictions.probabilities[rows, truth]).mean()

    assert loss(after) < loss(before) - 0.1
    np.testing.assert_array_equal(before.predicted, after.predicted)
    np.testing.assert_allclose(after.probabilities.sum(axis=1), 1)


def test_rescaling_is_what_softmax_of_divided_logits_is():
    logits = np.random.default_rng(0).normal(0, 4, (50, 3)).astype(np.float32)

    def softmax(values):
        e = np.exp(values - values.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    np.testing.assert_allclose(calibration.rescaled(softmax(logits), 2.5), softmax(logits / 2.5), atol=1e-6)


def test_a_faultless_validation_ends_at_the_bound_and_is_known():
    sure = np.tile([0.9, 0.1], (10, 1))
    temperature = calibration.fit_temperature(sure, np.zeros(10, dtype=int))
    assert calibration.at_bound(temperature)
    assert not calibration.at_bound(1.0)


scores = arrays.arrays(np.float64, 30, elements=st.floats(0, 1, width=32))


@settings(max_examples=60, deadline=None)
@given(scores, arrays.arrays(np.bool_, 30))
def test_no_threshold_is_better_by_youden(score, positive):
    if positive.all() or not positive.any():
        assert thresholds.choose(score, positive) == 0.5
        return

    def youden(threshold):
        return (score >= threshold)[positive].mean() + (score < threshold)[~positive].mean()

    best = max(youden(t) for t in [*score, 2.0])
    # Calling nothing positive is no threshold to choose; calling all so is as good.
    assert youden(thresholds.choose(score, positive)) >= best - 1e-9


@settings(max_examples=60, deadline=None)
@given(scores, arrays.arrays(np.bool_, 30), st.floats(0.05, 1))
def test_the_wanted_sensitivity_is_reached_by_the_highest_threshold(score, positive, wanted):
    if positive.all() or not positive.any():
        return
    threshold = thresholds.choose(score, positive, wanted)
    assert (score >= threshold)[positive].mean() >= wanted - 1e-12
    higher = score[score > threshold]
    above = np.unique(higher)
    if len(above) > 1:
        # The threshold stands below the first of these; the next one would miss.
        assert (score >= above[1])[positive].mean() < wanted


def test_a_decision_about_one_class_is_told_in_two():
    predictions = made([[0.2, 0.5, 0.3], [0.1, 0.3, 0.6]], ["b", "c"], ("a", "b", "c"))
    told = thresholds.decided(predictions, "b", 0.4)
    assert told.classes == (thresholds.REST, "b")
    assert told.rows["predicted"].tolist() == ["b", thresholds.REST]
    assert told.rows["label"].tolist() == ["b", thresholds.REST]
    np.testing.assert_allclose(told.probabilities, [[0.5, 0.5], [0.7, 0.3]])


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_cover_new_rows_as_often_as_promised(coverage):
    kept = []
    for seed in range(40):
        probabilities, truth = overconfident(seed, 600, 3.0)
        limit = abstention.quantile(probabilities[:300], truth[:300], coverage)
        inside = abstention.sets(probabilities[300:], limit)
        kept.append(inside[np.arange(300), truth[300:]].mean())
    # The promise is from coverage to coverage + 1/301 on average over draws.
    assert np.mean(kept) == pytest.approx(coverage, abs=0.012)


def test_too_few_rows_promise_nothing_but_everything():
    assert abstention.quantile(np.array([[0.9, 0.1]] * 5), np.zeros(5, dtype=int), 0.95) == 1.0
    everything = abstention.sets(np.array([[0.9, 0.1]]), 1.0)
    assert everything.all()
    assert not abstention.answered(everything, np.array([0])).any()


def test_an_answer_is_one_class_and_the_one_decided_on():
    inside = abstention.sets(np.array([[0.9, 0.1], [0.5, 0.5], [0.9, 0.1], [0.35, 0.65]]), 0.2)
    assert inside.tolist() == [[True, False], [False, False], [True, False], [False, False]]
    both = np.array([[True, True], *inside])
    # In the last but one, a threshold below 0.1 decides for the class that is not in the set.
    assert abstention.answered(both, np.array([0, 0, 0, 1, 1])).tolist() == [False, True, False, False, False]


def test_a_decision_is_chosen_on_what_was_calibrated_and_can_be_read_again(tmp_path):
    probabilities, truth = overconfident(2, 400, 3.0, classes=2)
    validation = made(probabilities, [("clear", "sick")[k] for k in truth])
    decision = decide(validation, Recipe(abstain=0.9, sensitivity=0.9))
    assert decision.temperature > 2
    assert decision.positive == "sick"
    scored = calibration.calibrated(validation, decision.temperature)
    found = decision.decided(scored.probabilities)[truth == 1].mean()
    assert 0.9 <= found < 0.93
    write_json(tmp_path / "decision.json", decision.to_json())
    assert Decision.read(tmp_path / "decision.json") == decision
    (tmp_path / "decision.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        Decision.read(tmp_path / "decision.json")


def test_with_many_classes_the_most_probable_is_decided_on():
    probabilities, truth = overconfident(3, 200, 1.0)
    decision = decide(
        made(probabilities, [("a", "b", "c")[k] for k in truth], ("a", "b", "c")), Recipe(calibrate=False)
    )
    assert decision.temperature == 1
    assert decision.threshold is None
    assert set(decision.thresholds) == {"a", "b", "c"}
    np.testing.assert_array_equal(decision.decided(probabilities), probabilities.argmax(axis=1))


def test_a_share_is_wider_where_patients_have_many_images():
    flags = np.repeat(np.arange(50) % 4 == 0, 4)
    alone = share(flags, np.arange(200))
    together = share(flags, np.repeat(np.arange(50), 4))
    assert alone.value == together.value == pytest.approx(0.26)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    assert share(np.empty(0, dtype=bool), np.empty(0, dtype=int)).value is None
