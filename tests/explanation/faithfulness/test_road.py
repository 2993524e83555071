import numpy as np
import pytest

from chestxray.explanation.faithfulness.road import NOISE, SHARES, impute, road


def test_one_pixel_becomes_the_weighted_mean_of_its_neighbours():
    image = np.arange(9.0).reshape(3, 3, 1) ** 2
    hidden = np.zeros((3, 3), bool)
    hidden[1, 1] = True
    found = impute(image, hidden)
    flat = image.ravel()
    assert found[1, 1, 0] == pytest.approx(flat[[1, 3, 5, 7]].sum() / 6 + flat[[0, 2, 6, 8]].sum() / 12)
    np.testing.assert_array_equal(found[~hidden], image[~hidden])


def test_pixels_at_the_edge_solve_the_equations_written_by_hand():
    image = np.array([[1.0, 5.0, 2.0], [4.0, 3.0, 9.0]])[..., np.newaxis]
    hidden = np.array([[True, True, False], [False, False, False]])
    # a, the corner, has b beside it, 4 below it and 3 at its corner; b has a and 2 beside, 3 below, 4 and 9 at corners.
    # a (1/6 + 1/6 + 1/12) = b/6 + 4/6 + 3/12; b (1/6 + 1/6 + 1/6 + 1/12 + 1/12) = a/6 + 2/6 + 3/6 + 4/12 + 9/12
    a, b = np.linalg.solve([[5 / 12, -1 / 6], [-1 / 6, 8 / 12]], [4 / 6 + 3 / 12, 2 / 6 + 3 / 6 + 4 / 12 + 9 / 12])
    np.testing.assert_allclose(impute(image, hidden)[0, :2, 0], [a, b])


def test_each_channel_is_filled_by_itself_and_a_plane_stays_a_plane():
    slope = np.stack([np.outer(np.arange(12.0), np.ones(10)), np.outer(np.ones(12), np.arange(10.0))], axis=-1)
    hidden = np.zeros((12, 10), bool)
    hidden[3:8, 2:7] = True
    np.testing.assert_allclose(impute(slope, hidden), slope, atol=1e-9)


def test_nothing_hidden_and_everything_hidden():
    image = np.arange(4.0).reshape(2, 2, 1)
    np.testing.assert_array_equal(impute(image, np.zeros((2, 2), bool)), image)
    np.testing.assert_array_equal(impute(image, np.ones((2, 2), bool)), np.full((2, 2, 1), 1.5))


@pytest.mark.parametrize("side", [20, 150])
def test_a_map_of_the_cue_scores_half_and_its_opposite_minus_half(side):
    # The probability is 1 while the bright square is there; the map is of the square, or of all else.
    pixels = np.full((2, side, side, 3), 60, np.uint8)
    pixels[:, 2:6, 3:7] = 220
    cue = (pixels[..., 0] == 220).astype(float)
    seen = []

    def predict(images, classes):
        seen.append(images)
        return (images[:, 2:6, 3:7].mean(axis=(1, 2, 3)) > 190).astype(float)

    classes = np.zeros(2, int)
    np.testing.assert_allclose(road(predict, pixels, classes, cue, seed=0), 0.5)
    np.testing.assert_allclose(road(predict, pixels, classes, 1 - cue, seed=0), -0.5)
    most = seen[1]
    kept = np.mean(most == pixels)
    assert kept == pytest.approx(1 - SHARES[0], abs=0.03)
    # What is filled in is grey as its surroundings, with the stated noise, alike in all channels.
    gone = (most != pixels).all(axis=3) & (cue == 0)
    assert most[gone].std() == pytest.approx(NOISE * 255, rel=0.2)
    np.testing.assert_array_equal(most[..., 0], most[..., 2])
