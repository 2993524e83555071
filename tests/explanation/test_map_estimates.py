import numpy as np
import pytest

from chestxray.explanation import map_priors
from chestxray.explanation.map_estimates import (
    CENTRE,
    FEWEST_PATIENTS,
    OTHERS,
    RANDOM,
    Scores,
    lead_in_words,
    mean,
    verdict,
)

PATIENTS = np.arange(40)


def drawn(rng, patients=25):
    """Rows of some patients: codes, and the patients' own levels at each row."""
    codes = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    return codes, rng.normal(0, 0.15, patients)[codes]


@pytest.mark.parametrize("kind", ["differences", "hits", "shares"])
def test_intervals_cover_what_other_patients_have(kind):
    rng, covered, runs = np.random.default_rng(0), 0, 300
    for run in range(runs):
        codes, level = drawn(rng)
        if kind == "differences":
            values, truth, span = np.clip(0.1 + level + rng.normal(0, 0.1, len(codes)), -1, 1), 0.1, (-1, 1)
        elif kind == "hits":
            # Patients whose maps hit more often than others', 30% on average.
            odds = rng.choice((0.1, 0.6), 25, p=(0.6, 0.4))[codes]
            values, truth, span = (rng.random(len(codes)) < odds).astype(float), 0.3, (0, 1)
        else:
            values, truth, span = rng.beta(2, 6, len(codes)), 0.25, (0, 1)
        found = mean(values, codes, span=span, seed=run)
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / runs <= 0.99


def test_images_of_one_patient_count_as_one_patient():
    rng = np.random.default_rng(0)
    levels = rng.random(15)
    alone, repeated = mean(levels, np.arange(15)), mean(np.repeat(levels, 4), np.repeat(np.arange(15), 4))
    assert repeated.value == pytest.approx(alone.value)
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.05)


def test_equal_values_have_the_interval_of_patients_that_were_not_seen():
    found = mean(np.full(20, 0.4), np.arange(20), span=(-1, 1))
    # Up to 1 - .025 ** (1 / 20) of other patients could be at -1 or 1.
    assert (found.low, found.high) == pytest.approx((0.4 - 1.4 * 0.16843, 0.4 + 0.6 * 0.16843), abs=1e-4)


def judged(own, **priors):
    rng = np.random.default_rng(1)
    names = {"random": RANDOM, "centre": CENTRE, "others": OTHERS}
    scores = Scores(own + rng.normal(0, 0.05, 40), {names[k]: np.full(40, v) for k, v in priors.items()}, PATIENTS)
    return verdict(scores, scores.differences(0))


def test_maps_pass_that_beat_every_prior():
    assert judged(0.5, random=0.2, centre=0.3, others=0.4) == "passes"


def test_maps_fail_that_a_blind_prior_equals_or_beats():
    assert judged(0.5, random=0.2, centre=0.6) == "fails"
    same = Scores(np.full(40, 0.3), {RANDOM: np.full(40, 0.1), CENTRE: np.full(40, 0.3)}, PATIENTS)
    assert verdict(same, same.differences(0)) == "fails"


def test_maps_are_doubtful_where_the_interval_includes_no_gain():
    assert judged(0.5, random=0.2, centre=0.49) == "doubtful"


def test_maps_of_other_images_may_be_as_right_where_the_cue_never_moves():
    assert judged(0.5, random=0.2, centre=0.3, others=0.51) == "doubtful"
    assert judged(0.5, random=0.2, centre=0.3, others=0.6) == "doubtful"


def test_a_lead_that_means_nothing_is_none():
    scores = Scores(np.linspace(0.5, 0.501, 40), {RANDOM: np.full(40, 0.499)}, PATIENTS)
    assert verdict(scores, scores.differences(0)) == "passes"
    assert verdict(scores, scores.differences(0), 0.01) == "fails"


@pytest.mark.parametrize(("lead", "expected"), [(0.0095, "fails"), (0.0118, "passes"), (0.3, "passes")])
def test_words_tell_leads_apart_that_verdicts_tell_apart(lead, expected):
    noise = np.random.default_rng(0).normal(0, 0.0002, 40)
    scores = Scores(0.5 + noise - noise.mean(), {RANDOM: np.full(40, 0.5 - lead)}, PATIENTS)
    differences = scores.differences(0)
    assert verdict(scores, differences, 0.01) == expected
    said = lead_in_words(scores, differences, 0.01)
    assert said.startswith(f"The lead over that is {'+0.30' if lead > 0.1 else f'+{lead:.3f}'} (95% interval")
    assert said.endswith("over 40 images of 40 patients.") == (expected == "passes")
    assert ("A lead of less than 0.01 counts as none." in said) == (expected == "fails")


def test_the_lead_that_leaves_a_doubt_is_named_though_it_is_not_the_least():
    rng = np.random.default_rng(0)
    own = np.full(40, 0.5) + rng.normal(0, 0.001, 40)
    wide = rng.normal(0, 0.5, 40)
    scores = Scores(own, {RANDOM: 0.38 + wide - wide.mean(), CENTRE: np.full(40, 0.45)}, PATIENTS)
    differences = scores.differences(0)
    assert scores.better == CENTRE and verdict(scores, differences, 0.01) == "doubtful"
    said = lead_in_words(scores, differences, 0.01)
    assert "The lead over the best of these is +0.05" in said and "Over random maps it is +" in said


def test_the_least_lead_is_said_of_leads_that_are_shown_alone():
    noise = np.random.default_rng(0).normal(0, 0.02, 40)
    own = 0.1 + noise - noise.mean()
    scores = Scores(own, {RANDOM: np.full(40, 0.088), CENTRE: np.full(40, 0.13)}, PATIENTS)
    differences = scores.differences(0)
    assert 0 < differences[RANDOM].low < 0.01
    assert lead_in_words(scores, differences, 0.01).endswith("over 40 images of 40 patients.")


def test_no_lead_over_maps_of_other_images_is_explained():
    own = np.full(40, 0.5) + np.random.default_rng(0).normal(0, 0.01, 40)
    scores = Scores(own, {RANDOM: np.full(40, 0.2), OTHERS: np.full(40, 0.6)}, PATIENTS)
    differences = scores.differences(0)
    assert verdict(scores, differences, 0.01) == "doubtful"
    assert lead_in_words(scores, differences, 0.01).endswith("no lead over them alone fails no method.")


def test_few_patients_are_no_ground_for_a_verdict():
    few = FEWEST_PATIENTS - 1
    codes = np.repeat(np.arange(few), 10)
    scores = Scores(np.linspace(0.8, 0.9, 10 * few), {RANDOM: np.zeros(10 * few)}, codes)
    assert verdict(scores, scores.differences(0)) == "doubtful"


def test_maps_that_are_random_seldom_pass():
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(100):
        own, *priors = rng.random((3, 40))
        scores = Scores(own, dict(zip((RANDOM, CENTRE), priors, strict=True)), PATIENTS)
        verdicts.append(verdict(scores, scores.differences(0)))
    assert verdicts.count("passes") <= 3
    assert verdicts.count("fails") >= 55


def test_the_mean_of_others_leaves_the_patient_out():
    maps = np.zeros((4, 2, 2), np.float32)
    maps[0, 0, 0], maps[1, 0, 1], maps[2, 1, 0] = 5.0, 1.0, 2.0
    found = map_priors.mean_of_others(maps, np.array([0, 0, 1, 2]))
    # Image 3 is empty: it adds nothing to the others' means, and gets that of the three others.
    np.testing.assert_allclose(found[0], [[0, 0], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(found[2], [[0.5, 0.5], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(found[3], [[1 / 3, 1 / 3], [1 / 3, 0]], atol=1e-6)


def test_random_maps_are_as_coarse_as_maps_are():
    maps = map_priors.random(2, (33, 47), seed=3)
    assert maps.shape == (2, 33, 47) and maps.min() >= 0 and maps.max() <= 1
    assert np.abs(np.diff(maps, axis=2)).max() < 0.3
    assert not np.array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps, map_priors.random(2, (33, 47), seed=3))
