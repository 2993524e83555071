import dataclasses

import numpy as np
import pytest

from chestxray import refusal
from chestxray.errors import DataError
from chestxray.other_pictures import KINDS, other_pictures


def features(seed, rows, dimensions=20, rank=5):
    """Vectors near a plane of low dimension, as pooled features are."""
    plane = np.random.default_rng(99).normal(size=(rank, dimensions))
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, rank)) @ plane + 0.1 * generator.normal(size=(rows, dimensions)) + 3


def test_as_many_as_allowed_are_refused_and_strangers_nearly_all():
    familiar = refusal.learn(features(0, 1000), features(1, 2000), 0.05)
    assert familiar.refused(features(1, 2000)).mean() == pytest.approx(0.05, abs=0.001)
    assert familiar.refused(features(2, 2000)).mean() == pytest.approx(0.05, abs=0.02)
    strangers = np.random.default_rng(3).normal(3, 1, (200, 20))  # of the same size, but off the plane
    assert familiar.refused(strangers).mean() > 0.95


def test_distances_are_mahalanobis_where_all_components_count():
    training = features(0, 4000, dimensions=4, rank=4)
    familiar = refusal.learn(training, training, 0.01)
    inverse = np.linalg.inv(np.cov(training, rowvar=False))
    apart = training - training.mean(axis=0)
    plain = np.sqrt(np.einsum("ni,ij,nj->n", apart, inverse, apart))
    np.testing.assert_allclose(familiar.distances(training), plain, rtol=0.01)


def test_with_a_small_validation_the_farthest_is_the_threshold():
    validation = features(1, 10)
    familiar = refusal.learn(features(0, 100), validation, 0.01)
    assert familiar.threshold == familiar.distances(validation).max()


def test_what_is_too_little_to_learn_from_is_none():
    assert refusal.learn(features(0, 3), features(1, 3), 0.01) is None
    assert refusal.learn(np.zeros((100, 8)), np.zeros((10, 8)), 0.01) is None, "a layer whose units are all dead"
    rounding = 5 + 1e-7 * np.random.default_rng(0).normal(size=(100, 8))
    assert refusal.learn(rounding, rounding, 0.01) is None


def test_constant_features_do_no_harm():
    training = np.concatenate([features(0, 200), np.ones((200, 3))], axis=1)
    assert np.isfinite(refusal.learn(training, training, 0.01).distances(training)).all()


def test_it_is_written_and_read(tmp_path):
    familiar = refusal.learn(features(0, 100), features(1, 100), 0.01)
    familiar.write(tmp_path / refusal.FILE)
    again = refusal.Familiar.read(tmp_path / refusal.FILE)
    for field in dataclasses.fields(familiar):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(familiar, field.name))
    (tmp_path / refusal.FILE).write_bytes(b"no")
    with pytest.raises(DataError, match="damaged"):
        refusal.Familiar.read(tmp_path / refusal.FILE)


def test_other_pictures_are_many_and_of_every_kind():
    pictures, kinds = other_pictures((24, 32), each=5)
    assert pictures.shape == (25, 24, 32)
    assert pictures.dtype == np.uint8
    assert sorted(set(kinds)) == sorted(KINDS)
    assert len(np.unique(pictures.reshape(25, -1), axis=0)) == 25
    np.testing.assert_array_equal(pictures, other_pictures((24, 32), each=5)[0])
