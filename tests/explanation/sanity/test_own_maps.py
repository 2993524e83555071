from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from chestxray.evaluation.intervals import Figure
from chestxray.explanation.sanity.own_maps import PAIRS, Meaning, OwnMaps, choose_pairs, fallen, high, low

SIZE, IMAGES = 24, 24
MEANING = Meaning(passes="they do", fails="they do not")


def fields(rng, count=IMAGES):
    """Smooth random maps, which have nothing to do with each other."""
    drawn = gaussian_filter(rng.normal(size=(count, SIZE, SIZE)), 3, axes=(1, 2))
    return drawn / drawn.std()


def own_of(maps, seed=0, patients=None, classes=None):
    classes = np.arange(len(maps)) % 2 if classes is None else classes
    pixels = np.zeros((len(maps), SIZE, SIZE, 1), np.uint8)
    return OwnMaps.of(None, lambda *_: maps, pixels, classes, patients=patients, seed=seed)


def verdicts(kept, common=0.0, trials=20, images=IMAGES):
    """The verdicts where a share `kept` of each map outlives the change, and all maps share a pattern `common`."""
    found = []
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        pattern = common**0.5 * fields(rng, 1)
        own = (1 - common) ** 0.5 * fields(rng, images) + pattern
        others = [kept**0.5 * own + (1 - kept) ** 0.5 * (fields(rng, images) + pattern) for _ in range(4)]
        maps, *others = (np.exp(one) for one in (own, *others))
        of = own_of(maps, seed)
        found.append(fallen(of.level(*others, drawn=True), of.baseline))
    return found


@pytest.mark.parametrize("common", [0.0, 0.3])
def test_maps_that_become_those_of_another_image_do_not_fail(common):
    found = verdicts(0.0, common)
    assert "fails" not in found and found.count("passes") >= 10


@pytest.mark.parametrize("common", [0.0, 0.3])
def test_maps_that_stay_for_a_good_part_do_not_pass(common):
    found = verdicts(0.3, common)
    assert "passes" not in found and found.count("fails") >= 18


def test_few_images_let_no_more_methods_pass():
    found = verdicts(0.1, 0.3, images=8)
    assert found.count("passes") <= 1


def test_where_all_images_have_one_map_there_is_no_level_to_fall_to():
    assert set(verdicts(0.0, 0.95, trials=10)) == {"fails"}


def test_a_level_far_below_the_baseline_passes_and_one_above_fails():
    baseline = {"rank_correlation": Figure(0.3, 0.2, 0.4), "ssim": Figure(0.3, 0.2, 0.4)}

    def of(rank, similar=(0.0, -0.1, 0.1)):
        return fallen({"rank_correlation": Figure(*rank), "ssim": Figure(*similar)}, baseline)

    assert of((0.1, 0.0, 0.2)) == "passes"
    assert of((0.1, -0.3, 0.5)) == "doubtful"
    assert of((0.35, 0.3, 0.39)) == "passes"
    assert of((0.5, 0.41, 0.6)) == "fails"
    assert of((0.1, 0.0, 0.2), (0.8, 0.7, 0.9)) == "doubtful"


@pytest.mark.parametrize(
    ("rank", "similar", "pairs", "verdict", "said"),
    [
        ((0.1, 0.0, 0.2), (0.1, 0.0, 0.2), (0.3, 0.2, 0.4), "passes", "The maps fall to that level: they do."),
        ((0.5, 0.41, 0.6), (0.1, 0.0, 0.2), (0.3, 0.2, 0.4), "fails", "do not fall to that level: they do not."),
        # Below the pairs, which are as alike as a fixed spot would make them.
        ((0.59, 0.54, 0.64), (0.6, 0.5, 0.7), (0.77, 0.62, 0.87), "fails", "Above 0.5 they have not changed enough"),
        ((0.45, 0.4, 0.55), (0.6, 0.5, 0.7), (0.77, 0.62, 0.87), "doubtful", "0.5 must not be passed"),
        ((0.3, 0.1, 0.5), (0.1, 0.0, 0.2), (0.3, 0.2, 0.4), "doubtful", "Whether the maps fall to that level"),
        ((0.1, 0.0, 0.2), (0.8, 0.7, 0.9), (0.3, 0.2, 0.4), "doubtful", "0.80 (0.70 to 0.90) beside 0.30"),
        ((0.35, 0.3, 0.39), (0.1, 0.0, 0.2), (0.3, 0.2, 0.4), "passes", "are not shown to stay above that level"),
        # A level of which little is known is no easier to fall to.
        ((0.45, 0.42, 0.49), (0.1, 0.0, 0.2), (0.1, -0.5, 0.6), "doubtful", "Whether the maps fall to that level"),
        ((0.45, 0.4, 0.55), (0.8, 0.7, 0.9), (0.6, 0.5, 0.7), "doubtful", "0.5 must not be passed"),
    ],
)  # fmt: skip
def test_a_verdict_is_said_with_the_reason_that_it_has(rank, similar, pairs, verdict, said):
    baseline = {name: Figure(*pairs) for name in ("rank_correlation", "ssim")}
    own = replace(own_of(np.exp(fields(np.random.default_rng(0)))), baseline=baseline)
    level = {"rank_correlation": Figure(*rank), "ssim": Figure(*similar)}
    check = own.check("x", "So", level, MEANING)
    assert check.verdict == verdict and said in check.sentence


def test_changes_drawn_at_random_widen_the_interval():
    rng = np.random.default_rng(0)
    own = own_of(np.exp(fields(rng)))
    changed = [own.maps, np.exp(fields(rng)), np.exp(fields(rng))]
    fixed, drawn = own.level(*changed), own.level(*changed, drawn=True)
    assert fixed["ssim"].value == drawn["ssim"].value
    for name in fixed:
        assert high(drawn[name]) - low(drawn[name]) > 3 * (high(fixed[name]) - low(fixed[name]))


def test_a_map_that_does_not_change_at_all_is_no_matter_of_chance():
    own = own_of(np.exp(fields(np.random.default_rng(0))))
    assert own.level(own.maps)["rank_correlation"] == Figure(1.0, 1.0, 1.0)


def test_pairs_are_of_other_patients_and_of_one_class_while_there_are_any():
    classes = np.repeat([0, 1], [21, 3])
    patients = np.arange(24) // 3
    first, second = choose_pairs(classes, patients, 0)
    assert len(first) == PAIRS and len({*zip(first, second, strict=True)}) == PAIRS
    assert (patients[first] != patients[second]).all() and (classes[first] == classes[second]).all()
    first, second = choose_pairs(classes[-5:], np.arange(5), 0)
    assert (classes[-5:][first] == classes[-5:][second]).tolist() == [True] * 4 + [False] * 6
    assert not np.array_equal(choose_pairs(classes, patients, 1)[0], choose_pairs(classes, patients, 0)[0])


def test_empty_maps_are_left_out_and_said():
    maps = np.exp(fields(np.random.default_rng(0)))
    changed = np.exp(fields(np.random.default_rng(1)))
    maps[::2] = 0
    own = own_of(maps)
    assert (len(own.maps), own.empty, len(own.pixels), len(own.classes)) == (12, 12, 12, 12)
    check = own.check("x", "So", own.level(changed[1::2]), MEANING)
    assert "The 12 of 24 images whose map is empty or the same everywhere are left out." in check.sentence
    assert check.figures["empty"] == 12 and check.figures["images"] == 12


def test_a_method_with_mostly_empty_maps_does_not_pass():
    maps = np.exp(fields(np.random.default_rng(0)))
    maps += maps.mean(axis=0)  # a pattern in common, so that there is a level to fall to
    verdicts = []
    for empty in (0, 14):
        own = own_of(np.where(np.arange(24)[:, None, None] < empty, 0, maps))
        vanished = own.level(np.zeros_like(own.maps))
        assert [figure.value for figure in vanished.values()] == [0, 0]
        verdicts.append(own.check("x", "So", vanished, MEANING).verdict)
    assert verdicts == ["passes", "doubtful"]


@pytest.mark.parametrize(("shown", "patients"), [(0, None), (5, None), (24, np.repeat(np.arange(4), 6))])
def test_too_few_maps_or_patients_give_no_verdict(shown, patients):
    maps = np.exp(fields(np.random.default_rng(0)))
    maps[shown:] = 0
    own = own_of(maps, patients=patients)
    assert f"the same everywhere for {24 - shown} of 24 images" in own.unable()
    assert own.doubtful("x", own.unable()).verdict == "doubtful"


def test_images_of_one_patient_count_less():
    rng = np.random.default_rng(3)
    maps = np.exp(np.repeat(fields(rng, 12), 2, axis=0) + 0.1 * fields(rng))
    changed = np.exp(np.repeat(fields(rng, 12), 2, axis=0))
    alone, together = (own_of(maps, patients=p).level(changed)["ssim"] for p in (None, np.arange(24) // 2))
    assert alone.value == together.value
    assert high(together) - low(together) > 1.2 * (high(alone) - low(alone))
