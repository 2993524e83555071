import numpy as np
import pytest

from chestxray.explanation.faithfulness.pixel_order import deletion, insertion, ranks

CLASSES = np.zeros(1, int)


def brightest(images, classes):
    """The probability: what of the one bright pixel is left."""
    return (images[:, 2, 1, 0] - 50) / 150


@pytest.fixture
def image():
    pixels = np.full((1, 4, 4, 1), 50, np.uint8)
    pixels[0, 2, 1] = 200
    return pixels


def test_places_follow_the_map_and_ties_are_random():
    maps = np.array([[[0.0, 3.0], [2.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_array_equal(ranks(maps, 0)[0], [[3, 0], [1, 2]])
    orders = {tuple(ranks(maps, seed)[1].ravel()) for seed in range(20)}
    assert len(orders) > 5 and all(sorted(order) == [0, 1, 2, 3] for order in orders)


def test_areas_are_those_computed_by_hand(image):
    maps = np.arange(16, dtype=float).reshape(1, 4, 4)
    maps[0, 2, 1] = 99  # first
    left = (image.mean() - 50) / 150
    # Eight steps of two pixels: the first step removes the pixel, whose grey becomes the mean.
    assert deletion(brightest, image, CLASSES, maps, seed=0)[0] == pytest.approx((1 + left) / 16 + left * 7 / 8)
    maps[0, 2, 1] = -1  # last: all steps but the final one leave it
    assert deletion(brightest, image, CLASSES, maps, seed=0)[0] == pytest.approx(7 / 8 + (1 + left) / 16)


def test_insertion_begins_blurred_and_ends_whole(image):
    maps = np.arange(16, dtype=float).reshape(1, 4, 4)
    image = np.random.default_rng(0).integers(0, 256, image.shape).astype(np.uint8)
    seen = []

    def watched(images, classes):
        seen.append(images)
        return brightest(images, classes)

    insertion(watched, image, CLASSES, maps, seed=0)
    np.testing.assert_array_equal(seen[-1], image)
    assert seen[0].std() < image.std()
    assert [int((one == image).sum()) for one in seen][4] == 8
