import numpy as np
import pytest

from chestxray.training.augmentation import DRAWS, POLICIES, Policy, augment, mix

HALF = np.full((2, DRAWS), 0.5, dtype=np.float32)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(20, 230, (2, 12, 10, 1)).astype(np.float32)


def test_draws_in_the_middle_change_nothing(images):
    policy = Policy(rotation=30, shift=0.3, zoom=0.3, contrast=0.5, brightness=50)
    np.testing.assert_allclose(augment(images, HALF, policy), images, atol=1e-3)


def test_no_policy_is_the_identity(images):
    assert augment(images, HALF, POLICIES["none"]) is images


def test_flip_mirrors_left_and_right(images):
    draws = HALF.copy()
    draws[:, 3] = 0.1
    np.testing.assert_allclose(augment(images, draws, Policy(flip=0.5)), images[:, :, ::-1], atol=1e-3)


def test_shift_is_a_share_of_the_side(images):
    draws = HALF.copy()
    draws[:, 5] = 1.0  # the whole range to the right: two of ten columns
    moved = np.asarray(augment(images, draws, Policy(shift=0.2)))
    np.testing.assert_allclose(moved[:, :, :8], images[:, :, 2:], atol=1e-3)
    assert not moved[:, :, 8:].any()


def test_a_quarter_turn_is_a_rotation():
    image = np.random.default_rng(1).uniform(0, 255, (1, 9, 9, 1)).astype(np.float32)
    draws = HALF[:1].copy()
    draws[:, 0] = 1.0
    turned = np.asarray(augment(image, draws, Policy(rotation=90)))[0, ..., 0]
    np.testing.assert_allclose(turned, np.rot90(image[0, ..., 0]), atol=0.05)


def windows(draw_area, draw_ratio, draw_down=0.5, draw_right=0.5):
    """Which rows and columns of an image of ramps the policy's crop shows, as shares of its sides."""
    ramp = np.linspace(0, 200, 41, dtype=np.float32)
    images = np.stack([np.tile(ramp[:, None], (1, 41)), np.tile(ramp, (41, 1))])[..., None]
    draws = np.full((2, DRAWS), 0.5, dtype=np.float32)
    draws[:, [1, 2, 4, 5]] = draw_area, draw_ratio, draw_down, draw_right
    rows, columns = np.asarray(augment(images, draws, Policy(crop=0.2)))[..., 0] / 200
    return rows[:, 20], columns[20]


@pytest.mark.parametrize(
    ("area", "ratio", "height", "width"),
    [(0.0, 0.5, 1.0, 1.0), (1.0, 0.5, 0.894, 0.894), (1.0, 0.75, 0.832, 0.961), (1.0, 1.0, 0.775, 1.0)],
)
def test_a_crop_has_the_area_and_ratio_that_were_drawn(area, ratio, height, width):
    rows, columns = windows(area, ratio)
    assert rows[-1] - rows[0] == pytest.approx(height, abs=0.01)
    assert columns[-1] - columns[0] == pytest.approx(width, abs=0.01)
    assert rows[0] + rows[-1] == pytest.approx(1, abs=0.01), "a draw in the middle is a crop in the middle"


def test_a_crop_lies_within_the_image():
    first, last = windows(1.0, 0.5, draw_down=0.0)[0][[0, -1]]
    assert (first, last) == (pytest.approx(0, abs=0.01), pytest.approx(0.894, abs=0.01))
    first, last = windows(1.0, 0.5, draw_right=1.0)[1][[0, -1]]
    assert (first, last) == (pytest.approx(1 - 0.894, abs=0.01), pytest.approx(1, abs=0.01))


def test_brightness_is_in_grey_levels(images):
    draws = HALF.copy()
    draws[:, 7] = 1.0
    np.testing.assert_allclose(augment(images, draws, Policy(brightness=10)), images + 10, atol=1e-3)


def test_erase_blackens_a_part(images):
    draws = HALF.copy()
    draws[:, 13] = 0.0
    share = (np.asarray(augment(images, draws, Policy(erase=1.0))) == 0).mean()
    assert 0.01 < share < 0.12


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_policies_stay_in_range_and_repeat(name, images):
    draws = np.random.default_rng(2).uniform(size=(2, DRAWS)).astype(np.float32)
    # As bright and as contrasted as can be: without a limit, past both ends.
    images = np.where(images > 120, 255, 0).astype(np.float32)
    draws[0, 6:8], draws[1, 6:8] = 1.0, (1.0, 0.0)
    noise = np.random.default_rng(3).normal(size=images.shape).astype(np.float32)
    once, twice = (np.asarray(augment(images, draws, POLICIES[name], noise)) for _ in range(2))
    np.testing.assert_array_equal(once, twice)
    assert once.shape == images.shape
    assert once.min() >= 0
    assert once.max() <= 255


def test_mixup_mixes_labels_in_the_share_of_the_images():
    images = np.stack([np.zeros((4, 4, 1)), np.full((4, 4, 1), 100)]).astype(np.float32)
    labels = np.eye(2, dtype=np.float32)
    for draw in (0.0, 0.3, 0.9):
        mixed, targets = mix(images, labels, np.full(4, draw, dtype=np.float32), "mixup")
        np.testing.assert_allclose(np.asarray(mixed)[1].mean() / 100, np.asarray(targets)[1, 1], rtol=1e-5)
        np.testing.assert_allclose(np.asarray(targets).sum(axis=1), 1, rtol=1e-6)
        assert targets[1, 1] >= 0.5


def test_cutmix_labels_are_the_share_of_the_area():
    images = np.stack([np.zeros((8, 8, 1)), np.full((8, 8, 1), 100)]).astype(np.float32)
    labels = np.eye(2, dtype=np.float32)
    mixed, targets = mix(images, labels, np.array([0.25, 0.5, 0.5, 0], dtype=np.float32), "cutmix")
    assert np.asarray(mixed)[1].mean() / 100 == pytest.approx(float(targets[1, 1]))
    assert 0.6 < float(targets[1, 1]) < 0.9
