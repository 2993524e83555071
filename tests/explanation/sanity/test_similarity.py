import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import spearmanr

from chestxray.explanation.sanity.similarity import is_constant, rank_correlation, similarities, ssim


def maps(seed, count=6, size=(17, 23)):
    """Maps with many zeros, as those of Grad-CAM."""
    drawn = np.random.default_rng(seed).normal(size=(count, *size)).astype(np.float32)
    return np.maximum(drawn + np.linspace(-1, 2, size[1], dtype=np.float32), 0)


def test_rank_correlations_of_many_maps_are_those_of_scipy_one_by_one():
    first, second = maps(0), maps(1) ** 2
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    assert min(expected) > 0.1
    np.testing.assert_allclose(rank_correlation(first, second), expected, atol=1e-12)


def test_structural_similarities_are_those_of_tensorflow():
    first, second = maps(0), maps(1)
    scaled = [one / one.max(axis=(1, 2), keepdims=True) for one in (first, second)]
    expected = tf.image.ssim(*(tf.constant(one[..., np.newaxis]) for one in scaled), max_val=1.0)
    np.testing.assert_allclose(ssim(first, second), expected, atol=1e-5)
    assert np.ptp(ssim(first, second)) > 0.01


def test_the_unit_of_a_map_does_not_count():
    first, second = maps(0), maps(1)
    np.testing.assert_allclose(similarities(1e-4 * first, 1e3 * second), similarities(first, second), atol=1e-6)


def test_a_map_is_like_itself_and_in_ranks_the_opposite_of_its_negative():
    first = maps(2)
    np.testing.assert_allclose(similarities(first, first), 1)
    np.testing.assert_allclose(rank_correlation(first, first.max() - first), -1)


def test_a_map_smaller_than_a_window_has_a_structural_similarity():
    first, second = maps(0, size=(8, 8)), maps(1, size=(8, 8))
    assert (ssim(first, second) < 0.9).all()
    np.testing.assert_allclose(ssim(first, first), 1)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_map_is_like_constant_ones_alone(value):
    first = maps(0, 3)
    second = np.full_like(first, value)
    spot = np.zeros_like(first)
    spot[:, 3, 3] = 1
    assert is_constant(second).all() and not is_constant(spot).any()
    np.testing.assert_array_equal(similarities(first, second), 0)
    np.testing.assert_array_equal(similarities(second, spot), 0)
    np.testing.assert_array_equal(similarities(second, np.zeros_like(first)), 1)
