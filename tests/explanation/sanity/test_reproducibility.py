import itertools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from chestxray.errors import InputError
from chestxray.explanation.sanity.reproducibility import repeatability, reproducibility
from chestxray.explanation.sanity.similarity import rank_correlation

CLASSES = np.arange(24) % 2


def fields(seed, size=24):
    return gaussian_filter(np.random.default_rng(seed).normal(size=(24, size, size)), 3, axes=(1, 2)) * 9


def test_trainings_that_agree_on_each_image_pass_and_others_fail():
    together, apart = fields(0), [fields(1), fields(2), fields(3)]
    check = repeatability([np.exp(together + one) for one in apart], CLASSES, of="vgg16")
    assert check.sentence.startswith("Between 3 trainings of vgg16, two maps of one image have")
    assert check.name == "repeatability" and check.verdict == "passes"
    expected = np.mean(
        [rank_correlation(together + a, together + b).mean() for a, b in itertools.combinations(apart, 2)]
    )
    found = check.figures["rank_correlation"]
    np.testing.assert_allclose(found["value"], expected, atol=1e-6)
    assert found["low"] < expected < found["high"]
    assert abs(check.figures["baseline"]["rank_correlation"]["value"]) < 0.15
    verdicts = [
        reproducibility([np.exp(fields(10 * s + n)) for n in range(3)], CLASSES, seed=s).verdict for s in range(10)
    ]
    assert "passes" not in verdicts and verdicts.count("fails") >= 3


def test_a_pattern_that_all_images_share_is_no_agreement():
    pattern = fields(0)[:1]
    check = reproducibility([np.exp(pattern + 0.3 * fields(n)) for n in (1, 2)], CLASSES)
    assert check.figures["rank_correlation"]["value"] > 0.7
    assert check.verdict != "passes"


def test_maps_that_are_one_and_the_same_are_alike_to_the_end():
    maps = np.exp(fields(0))
    check = repeatability([maps, maps.copy()], CLASSES)
    assert check.verdict == "passes" and "rank correlation of 1.00 (1.00 to 1.00)" in check.sentence
    spot = np.broadcast_to(np.exp(fields(0))[:1], maps.shape)
    check = reproducibility([spot, spot], CLASSES)
    # All maps are the same, so that no other model gives other ones.
    assert check.verdict == "fails" and check.sentence.endswith("what another model agrees on is not of the image.")


def test_maps_of_other_sizes_are_compared_at_the_largest():
    large = np.exp(fields(0))
    check = reproducibility([large, large[:, ::2, ::2], large], CLASSES)
    assert check.verdict == "passes" and 0.7 < check.figures["rank_correlation"]["value"] < 1


def test_a_map_that_is_empty_in_one_training_is_unlike():
    first, second = np.exp(fields(0)), np.exp(fields(0))
    first[:3] = second[:9] = 0
    check = repeatability([first, second], CLASSES)
    assert (check.figures["images"], check.figures["empty"]) == (21, 3)
    np.testing.assert_allclose(check.figures["ssim"]["value"], 15 / 21)
    second[:] = 0
    first[5:] = 0
    check = repeatability([first, second], CLASSES)
    assert check.verdict == "doubtful" and "of 2 patients" in check.sentence


def test_one_training_or_other_images_are_refused():
    maps = np.exp(fields(0))
    with pytest.raises(InputError, match=r"needs those of two models or more.* 1 models, with 24 images"):
        repeatability([maps], CLASSES)
    with pytest.raises(InputError, match="20 and 24 images"):
        reproducibility([maps, maps[:20]], CLASSES)
