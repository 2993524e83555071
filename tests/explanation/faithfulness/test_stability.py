import numpy as np
import pytest
from scipy import ndimage

from chestxray.evaluation.intervals import Figure
from chestxray.explanation.faithfulness import image_checks
from chestxray.explanation.faithfulness import stability as module
from chestxray.explanation.faithfulness.stability import Stability, correlation, stability
from chestxray.explanation.map_priors import centre

ROWS, SIDE = 16, 40


@pytest.fixture(scope="module")
def films():
    """Films with one bright patch each."""
    rng = np.random.default_rng(0)
    pixels = np.full((ROWS, SIDE, SIDE, 1), 60, np.uint8)
    for image in pixels:
        row, column = rng.integers(8, SIDE - 14, 2)
        image[row : row + 6, column : column + 6] = 220
    return pixels


def steady(images, classes):
    return np.full(len(images), 0.8)


def patch(model, pixels, classes):
    return np.stack([ndimage.gaussian_filter(np.maximum(one[..., 0] - 80.0, 0), 5) for one in pixels])


def middle(model, pixels, classes):
    return np.repeat(centre((SIDE, SIDE))[np.newaxis], len(pixels), axis=0)


def scattered(model, pixels, classes):
    return np.random.default_rng(int(pixels.astype(int).sum())).random(pixels.shape[:3])


def empty(model, pixels, classes):
    return np.zeros(pixels.shape[:3])


def of(explain, films, predict=steady):
    classes = np.zeros(ROWS, int)
    maps = explain(None, films, classes)
    return stability(None, explain, predict, films, classes, np.arange(ROWS), maps, seed=0)


def test_maps_that_follow_the_patch_pass(films):
    found = of(patch, films)
    assert found.verdict == "passes"
    assert found.own.value > 0.9 and found.pairs.value < 0.5
    assert (found.compared, found.unsteady) == (3 * ROWS, 0)


def test_one_image_or_several_are_left_out_in_words_that_fit():
    none = Figure(None, None, None)
    for count, image, patient, change in (
        (1, "The image whose map is the same everywhere is left", "1 patient is too few", "by more than 0.05 is left"),
        (2, "The 2 images whose map is the same everywhere are left", "2 patients are", "by more than 0.05 are left"),
    ):
        kept = Stability(none, none, none, count, count, count, 0, count)
        assert image in (said := image_checks._stability_check(kept).sentence) and change in said
        known = Stability(*(Figure(0.5, 0.4, 0.6) for _ in range(3)), count, count, count, 3, count)
        assert patient in image_checks._stability_check(known).sentence


def test_maps_that_are_always_alike_fail_although_they_are_stable(films):
    found = of(middle, films)
    assert found.own.value > 0.95 and found.pairs.value == 1
    assert found.verdict == "fails"


def test_maps_of_noise_do_not_pass(films):
    found = of(scattered, films)
    assert abs(found.own.value) < 0.1 and found.verdict != "passes"


def test_maps_that_show_no_place_are_left_out_and_counted(films):
    found = of(empty, films)
    assert (found.own.value, found.shown, found.even, found.verdict) == (None, 0, ROWS, "doubtful")
    verdicts = []
    for kept in (12, 7):

        def few(model, pixels, classes, kept=kept):
            maps = patch(model, pixels, classes)
            # The images that are explained without a change come all at once.
            return np.where(np.arange(len(maps))[:, None, None] < kept, maps, 1.0) if len(maps) == ROWS else maps

        found = of(few, films)
        assert (found.shown, found.even) == (kept, ROWS - kept) and found.own.value > 0.9
        verdicts.append(found.verdict)
    assert verdicts == ["passes", "doubtful"]


def test_an_image_whose_probability_changes_is_left_out(films):
    def fickle(images, classes):
        return np.where((images == np.round(images)).all(axis=(1, 2, 3)) & (images[:, 0, 0, 0] == 60), 0.9, 0.2)

    found = of(patch, films, fickle)
    assert found.unsteady > 0 and found.compared == 3 * ROWS - found.unsteady


def test_nothing_is_said_where_every_probability_changes(films):
    first = []

    def changing(images, classes):
        first.append(1)
        return np.full(len(images), 0.9 if len(first) == 1 else 0.1)

    found = of(patch, films, changing)
    assert found.compared == 0 and found.verdict == "doubtful" and found.own.value is None


@pytest.mark.parametrize("change", ["shift", "rotation"])
def test_what_is_moved_and_moved_back_is_where_it_was(change):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((SIDE, 50)), 4)
    move = module._move(change, smooth.shape, np.random.default_rng(1))
    moved = module._moved(smooth, move)
    assert np.abs(moved - smooth)[8:-8, 8:-8].max() > 0.04 * np.ptp(smooth)
    back = module._moved(moved, move, back=True)
    np.testing.assert_allclose(back[8:-8, 8:-8], smooth[8:-8, 8:-8], atol=0.02 * np.ptp(smooth))


def test_correlation_is_of_ranks():
    values = np.random.default_rng(0).random(100)
    assert correlation(values, np.exp(5 * values)) == 1
    assert correlation(values, -values) == -1
