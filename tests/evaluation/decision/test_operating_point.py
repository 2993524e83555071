"""A promised sensitivity: against independent programs, and by simulation."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from chestxray.errors import InputError
from chestxray.evaluation.decision import operating_point, rule, selection
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.predictions import Predictions
from chestxray.recipe import Recipe


def drawn(generator, patients, images=1, shared=0.0, distance=2.0):
    """Scores, states and patients of as many patients with the finding as without."""
    sizes = np.full(2 * patients, 1) if images == 1 else generator.geometric(1 / images, 2 * patients)
    clusters = np.repeat(np.arange(2 * patients), sizes)
    positive = clusters < patients
    common = np.sqrt(shared) * generator.normal(size=2 * patients)[clusters]
    return distance * positive + common + np.sqrt(1 - shared) * generator.normal(size=len(clusters)), positive, clusters


def predictions(scores, positive, patients=None):
    n = len(scores)
    rows = pd.DataFrame({"path": [f"{i:04}" for i in range(n)], "patient": patients or "", "split": "validation"})
    rows["source"], rows["label"] = "made", np.where(positive, "sick", "clear")
    sick = 1 / (1 + np.exp(-np.asarray(scores)))
    return Predictions.from_probabilities(rows, ("clear", "sick"), np.column_stack([1 - sick, sick]))


def binomial(scores, threshold, wanted):
    return stats.binomtest(int((scores >= threshold).sum()), len(scores), wanted, alternative="greater")


@pytest.mark.parametrize(("wanted", "confidence"), [(0.9, 0.95), (0.8, 0.9), (0.95, 0.5)])
def test_the_highest_threshold_is_taken_that_the_exact_binomial_test_allows(wanted, confidence):
    for seed in range(10):
        scores, positive, _ = drawn(np.random.default_rng(seed), 90)
        threshold = operating_point.choose(scores, positive, wanted, confidence=confidence)

        found = binomial(scores[positive], threshold, wanted)
        assert found.pvalue <= 1 - confidence
        assert found.proportion_ci(confidence, "exact").low >= wanted
        # The threshold stands below the first score above it; the next positive one would promise too much.
        higher = np.unique(scores[positive & (scores > threshold)])
        assert binomial(scores[positive], higher[1], wanted).pvalue > 1 - confidence


def test_mapie_finds_the_same_thresholds_valid():
    mapie = pytest.importorskip("mapie.risk_control")
    grid = np.linspace(0.01, 0.99, 99)
    for seed in range(5):
        scores, positive, _ = drawn(np.random.default_rng(seed), 80)
        probability = 1 / (1 + np.exp(1 - scores))
        controller = mapie.BinaryClassificationController(
            lambda rows: np.column_stack([1 - rows[:, 0], rows[:, 0]]), risk="recall", target_level=0.9,
            confidence_level=0.95, list_predict_params=grid, fwer_method="fixed_sequence",
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the precision of thresholds that call nothing positive
            controller.calibrate(probability[:, None], positive.astype(int))
        ours = operating_point.choose(probability, positive, 0.9, confidence=0.95)
        lowest_called = probability[probability >= ours].min()
        assert controller.valid_predict_params.max() == pytest.approx(grid[grid <= lowest_called].max())


@pytest.mark.parametrize(("images", "shared"), [(1, 0.0), (3, 0.9)])
def test_a_promised_sensitivity_is_seldom_missed_and_one_on_validation_alone_every_other_time(images, shared):
    generator = np.random.default_rng(5)
    missed = {0.0: 0, 0.95: 0}
    for _ in range(300):
        scores, positive, clusters = drawn(generator, 60, images, shared)
        for confidence in missed:
            threshold = operating_point.choose(scores, positive, 0.9, confidence=confidence, clusters=clusters)
            missed[confidence] += stats.norm.sf(threshold - 2) < 0.9
    assert missed[0.0] > 0.4 * 300
    assert missed[0.95] <= 0.05 * 300


def test_images_of_one_patient_are_no_further_witnesses():
    scores, positive, clusters = drawn(np.random.default_rng(3), 40)
    plain = operating_point.choose(scores, positive, 0.9, confidence=0.95, clusters=clusters)
    again = [np.repeat(part, 5) for part in (scores, positive, clusters)]
    assert operating_point.choose(*again[:2], 0.9, confidence=0.95, clusters=again[2]) == plain
    assert operating_point.choose(*again[:2], 0.9, confidence=0.95) > plain, "as 200 patients they would promise more"


@pytest.mark.parametrize(("wanted", "confidence", "needed"), [(0.9, 0.95, 29), (0.95, 0.95, 59), (0.95, 0.99, 90)])
def test_as_many_patients_are_needed_as_are_enough(wanted, confidence, needed):
    assert operating_point.patients_needed(wanted, confidence) == needed
    scores = np.arange(2.0 * needed)
    positive = scores >= needed
    assert operating_point.choose(scores, positive, wanted, confidence=confidence) == needed - 0.5, "every one is found"
    with pytest.raises(InputError, match=rf"has {needed - 1} patients .*, {needed} would be needed.*Allowed"):
        operating_point.choose(scores[:-1], positive[:-1], wanted, confidence=confidence)


def test_what_cannot_be_promised_is_known_without_a_model():
    rows = predictions(np.zeros(40), np.arange(40) < 20)
    with pytest.raises(InputError, match="validation has 20 patients with the finding, 29 would be needed"):
        selection.check_promise(rows, Recipe(sensitivity=0.9))
    selection.check_promise(rows, Recipe(sensitivity=0.8))
    selection.check_promise(rows, Recipe(sensitivity=0.9, confidence=0))
    selection.check_promise(rows, Recipe())
    with pytest.raises(InputError, match="no number of them is enough"):
        selection.check_promise(rows, Recipe(sensitivity=1.0))
    one = predictions(np.zeros(80), np.arange(80) < 60, ["p"] * 60 + [""] * 20)
    with pytest.raises(InputError, match="validation has 1 patient with"):
        selection.check_promise(one, Recipe(sensitivity=0.5))


def test_a_confidence_without_a_sensitivity_is_refused():
    with pytest.raises(InputError, match=r"give both. Received: confidence 0\.9"):
        Recipe(confidence=0.9)


def test_the_decision_says_what_is_promised_and_reads_what_earlier_versions_wrote():
    scores, positive, clusters = drawn(np.random.default_rng(0), 50)
    validation = predictions(scores, positive, [f"p{c}" for c in clusters])
    found = selection.decide(validation, Recipe(sensitivity=0.8, confidence=0.9), Calibration())
    assert found.promise == rule.Promise(0.8, 0.9, 50)
    promised = "With confidence 0.9, a sensitivity of at least 80% is promised for patients like the 50 of validation"
    assert promised in found.words
    assert rule.Decision.from_json(found.to_json()) == found
    before = {name: value for name, value in found.to_json().items() if name != "promise"}
    assert rule.Decision.from_json(before).promise is None
    with pytest.raises(ValueError, match=r"promise\.confidence"):
        rule.Decision.from_json(found.to_json() | {"promise": {"sensitivity": 0.8, "confidence": 2, "patients": 5}})
