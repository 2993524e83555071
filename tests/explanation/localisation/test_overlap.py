import numpy as np
import pytest

from chestxray.explanation.localisation.overlap import area, iou, pointing, share_inside, tuned_threshold
from chestxray.explanation.localisation.overlap_checks import Tuning, lung_check, overlap_checks
from chestxray.explanation.map_priors import centre, random

SIZE = (24, 20)
MASK = np.zeros((1, *SIZE), bool)
MASK[0, 3:9, 2:7] = True


def test_figures_are_those_counted_by_hand():
    maps = np.zeros((1, *SIZE))
    maps[0, 4, 4], maps[0, 20, 15] = 3.0, 1.0
    assert area(MASK)[0] == 30 / 480
    assert pointing(maps, MASK)[0] == 1
    assert share_inside(maps, MASK)[0] == pytest.approx(0.75)
    assert iou(maps, MASK, 0.5)[0] == 1 / 30
    assert iou(maps, MASK, 0.2)[0] == 1 / 31


def test_an_empty_map_scores_as_chance_does_and_overlaps_nothing():
    maps = np.zeros((1, *SIZE))
    assert pointing(maps, MASK)[0] == share_inside(maps, MASK)[0] == area(MASK)[0]
    assert iou(maps, MASK, 0.05)[0] == 0


def test_two_strongest_points_share_the_hit():
    maps = np.zeros((1, *SIZE))
    maps[0, 4, 4] = maps[0, 20, 15] = 3.0
    assert pointing(maps, MASK)[0] == 0.5


def test_the_threshold_is_the_one_with_the_best_overlap():
    maps = np.where(MASK, 1.0, np.where(np.roll(MASK, 8, axis=1), 0.62, 0.3))
    assert tuned_threshold(maps, MASK) == 0.65
    assert iou(maps, MASK, 0.65)[0] == 1


def boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *SIZE), bool)
    for mask in masks:
        row, column = rng.integers(0, 16), rng.integers(0, 13)
        mask[row : row + 7, column : column + 6] = True
    return masks


def verdicts(maps, masks, **options):
    patients = np.arange(len(masks)) // 2
    return {one.name: one.verdict for one in overlap_checks(maps, masks, patients, **options)}


def test_maps_that_are_the_truth_pass():
    masks = boxes(60)
    maps = masks * 2.0 + 0.1
    found = verdicts(maps, masks, tuning=Tuning(boxes(30, 1) + 0.05, boxes(30, 1)))
    assert found == dict.fromkeys(("pointing-game", "share-inside", "iou"), "passes")


def test_random_maps_and_blobs_in_the_middle_fail():
    masks = boxes(60)
    blob = np.repeat(centre(SIZE)[np.newaxis], 60, axis=0)
    assert set(verdicts(blob, masks).values()) == {"fails"}
    passed = [verdicts(random(60, SIZE, seed), boxes(60, seed)) for seed in range(20)]
    assert sum("passes" in one.values() for one in passed) <= 1
    assert sum("fails" in one.values() for one in passed) >= 15


def test_random_points_are_chance_on_average():
    masks = boxes(400)
    points = np.random.default_rng(1).random(masks.shape)
    own = overlap_checks(points, masks, np.arange(400))[0].figures
    assert own["value"]["low"] < own["priors"]["chance, the share of the area"]["value"] < own["value"]["high"]


def test_figures_are_given_by_finding_and_what_has_no_mask_is_left_out():
    masks = boxes(40)
    masks[30:] = False
    maps = np.where(np.arange(40)[:, None, None] < 15, masks, ~masks) * 1.0
    found = overlap_checks(maps, masks, np.arange(40), findings=["a"] * 15 + ["b"] * 25)[0]
    assert found.figures["images"] == 30
    assert [found.figures["by_finding"][name]["value"]["value"] for name in "ab"] == [1, 0]
    assert found.figures["value"]["value"] == 0.5
    assert overlap_checks(maps, np.zeros_like(masks), np.arange(40)) == []


def test_few_patients_are_named_as_the_reason():
    found = overlap_checks(boxes(6) * 1.0, boxes(6), np.arange(6))[0]
    assert found.verdict == "doubtful" and "6 patients are too few" in found.sentence


def test_the_share_inside_the_lungs_is_beside_their_share_of_the_film():
    lungs = np.repeat(MASK | np.roll(MASK, 10, axis=2), 20, axis=0)
    inside, outside = (lung_check(one * 1.0, lungs, np.arange(20))[0] for one in (lungs, ~lungs))
    even = lung_check(np.ones(lungs.shape), lungs, np.arange(20))[0]
    assert [one.verdict for one in (inside, outside, even)] == ["passes", "doubtful", "doubtful"]
    assert even.figures["value"]["value"] == pytest.approx(lungs.mean(), abs=1e-6)
    assert lung_check(lungs * 1.0, np.zeros_like(lungs), np.arange(20)) == []


def test_a_map_that_only_avoids_the_bars_of_padded_films_is_not_better_than_chance():
    rng = np.random.default_rng(0)
    films, masks = np.zeros((40, 24, 24), bool), np.zeros((40, 24, 24), bool)
    films[:, :, 6:18] = True
    for mask, top, left in zip(masks, rng.integers(14, 17, 40), rng.integers(6, 12, 40), strict=True):
        mask[top : top + 8, left : left + 6] = True
    maps, patients = np.where(films, 1 + 0.01 * rng.random(films.shape), 0), np.arange(40)
    tuning = Tuning(maps, masks, films)
    for name, given in (("all", None), ("film", films)):
        tuned = Tuning(maps, masks, given)
        found = overlap_checks(maps, masks, patients, tuning=tuned, films=given)
        found += lung_check(maps, masks, patients, films=given)
        verdicts = {one.name: one.verdict for one in found}
        assert (verdicts["share-inside"] == "passes") == (name == "all"), verdicts
        assert (verdicts["inside-lungs"] == "passes") == (name == "all")
    found = overlap_checks(np.zeros_like(maps), masks, patients, tuning=tuning, films=films)
    assert all("40 of the maps are empty." in one.sentence for one in found)
    assert {one.name: one.figures["value"]["value"] for one in found}["iou"] == 0


def test_a_lead_that_is_certain_and_tiny_is_doubtful():
    """Maps a half percent more inside than chance, on every one of 100 films."""
    lungs = np.zeros((100, 20, 20), bool)
    lungs[:, :, :10] = True
    more = np.random.default_rng(0).uniform(0.005, 0.015, (100, 1, 1))  # equal leads have the interval of a proportion
    maps = np.where(lungs, 1 + more, 1 - more)
    (found,) = lung_check(maps, lungs, np.arange(100), seed=0)
    assert found.figures["better_by"]["chance, the share of the area"]["low"] > 0
    assert found.verdict == "doubtful"
