import dataclasses

import numpy as np
import pytest
from PIL import Image

from chestxray.data.sources.phantom.drawing import draw
from chestxray.errors import DataError
from chestxray.evaluation.decision import out_of_distribution
from chestxray.evaluation.decision.ood_images import ALTERED, KINDS, altered_films, mirrored_films, other_pictures

#: Films that the second score says nothing of.
EVEN = np.full((5000, 4, 4), 90, dtype=np.uint8)


def features(seed, rows, dimensions=20, rank=5):
    """Vectors near a plane of low dimension, as pooled features are."""
    plane = np.random.default_rng(99).normal(size=(rank, dimensions))
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, rank)) @ plane + 0.1 * generator.normal(size=(rows, dimensions)) + 3


def learned(training, validation, allowed=0.01):
    return out_of_distribution.learn(training, EVEN[: len(training)], validation, EVEN[: len(validation)], allowed)


@pytest.fixture(scope="module")
def films():
    """Phantoms uint8 (120, 48, 48), of a patient each."""
    drawn = [draw(seed=0, patient=i, image=0, finding="clear", size=48).pixels for i in range(120)]
    return np.stack([np.asarray(Image.fromarray(film).resize((48, 48))) for film in drawn])


@pytest.fixture(scope="module")
def distribution(films):
    """Learned from 80 films with features that do not show how a film lies."""
    return out_of_distribution.learn(features(0, 80), films[:80], features(1, 20), films[80:100], 0.01)


def test_as_many_as_allowed_are_refused_and_strangers_nearly_all():
    distribution = learned(features(0, 1000), features(1, 2000), 0.05)
    assert distribution.refused(features(1, 2000), EVEN[:2000]).mean() == pytest.approx(0.05, abs=0.001)
    assert distribution.refused(features(2, 2000), EVEN[:2000]).mean() == pytest.approx(0.05, abs=0.02)
    strangers = np.random.default_rng(3).normal(3, 1, (200, 20))  # of the same size, but off the plane
    assert distribution.refused(strangers, EVEN[:200]).mean() > 0.95


def test_distances_by_features_are_mahalanobis_where_all_components_count():
    training = features(0, 4000, dimensions=4, rank=4)
    distribution = learned(training, training)
    inverse = np.linalg.inv(np.cov(training, rowvar=False))
    apart = training - training.mean(axis=0)
    plain = np.sqrt(np.einsum("ni,ij,nj->n", apart, inverse, apart))
    np.testing.assert_allclose(distribution.by_features(training) * distribution.reach, plain, rtol=0.01)


def test_with_a_small_validation_the_farthest_is_the_threshold(distribution, films):
    validation = features(1, 10)
    assert learned(features(0, 100), validation).by_features(validation).max() == pytest.approx(1)
    far = distribution.distances(features(1, 20), films[80:100])
    assert distribution.threshold == far.max() == pytest.approx(1)


@pytest.mark.parametrize("kind", ALTERED)
def test_a_film_inverted_or_turned_is_refused_though_its_features_are_those_of_a_film(distribution, films, kind):
    pictures, kinds = altered_films(films, np.arange(100, 120))
    shown = pictures[kinds == kind]
    assert len(shown) == 20
    near = features(2, 20)
    assert (distribution.by_features(near) > distribution.threshold).mean() < 0.2, (
        "the first score alone lets them through"
    )
    assert distribution.refused(near, shown).mean() > 0.9


def test_films_and_their_exposure_are_not_refused_by_their_pixels(distribution, films):
    new = films[100:]
    for shown in (new, new // 2, 128 + new // 2):
        # Validation is 20 films, of which the farthest is the threshold.
        assert (distribution.by_pixels(shown) > distribution.threshold).mean() <= 0.25


def test_both_scores_together_refuse_as_many_as_allowed():
    generator = np.random.default_rng(0)
    ramp = np.linspace(0, 120, 8)[:, None] + np.zeros(8)
    films = np.clip(ramp + generator.normal(60, 30, (3000, 8, 8)), 0, 255).astype(np.uint8)
    distribution = out_of_distribution.learn(features(0, 1000), films[:1000], features(1, 1000), films[1000:2000], 0.05)
    assert distribution.refused(features(1, 1000), films[1000:2000]).mean() == pytest.approx(0.05, abs=0.002)
    assert distribution.refused(features(2, 1000), films[2000:]).mean() == pytest.approx(0.05, abs=0.025)
    scores = distribution.by_features(features(1, 1000)), distribution.by_pixels(films[1000:2000])
    seldom = [(score > distribution.threshold).mean() for score in scores]
    assert min(seldom) > 0, "each has its part"


@pytest.mark.parametrize("shape", [(64, 64), (16, 16), (7, 5), (90, 33)])
def test_thumbnails_are_averages_of_equal_cells(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    side = out_of_distribution.SIDE
    fine = np.repeat(np.repeat(pixels.astype(float), side, axis=1), side, axis=2)
    cells = fine.reshape(3, side, shape[0], side, shape[1]).mean(axis=(2, 4))
    apart = cells - cells.mean(axis=(1, 2), keepdims=True)
    plain = apart / (apart.std(axis=(1, 2), keepdims=True) + out_of_distribution.FAINT)
    np.testing.assert_allclose(out_of_distribution.thumbnails(pixels), plain, atol=1e-4)


def test_what_is_too_little_to_learn_from_is_none():
    assert learned(features(0, 3), features(1, 3)) is None
    assert learned(np.zeros((100, 8)), np.zeros((10, 8))) is None, "a layer whose units are all dead"
    rounding = 5 + 1e-7 * np.random.default_rng(0).normal(size=(100, 8))
    assert learned(rounding, rounding) is None


def test_constant_features_and_even_films_do_no_harm():
    training = np.concatenate([features(0, 200), np.ones((200, 3))], axis=1)
    assert np.isfinite(learned(training, training).distances(training, EVEN[:200])).all()


def test_it_is_written_and_read(distribution, tmp_path):
    distribution.write(tmp_path / out_of_distribution.FILE)
    again = out_of_distribution.FeatureDistribution.read(tmp_path / out_of_distribution.FILE)
    for field in dataclasses.fields(distribution):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(distribution, field.name))
    (tmp_path / out_of_distribution.FILE).write_bytes(b"no")
    with pytest.raises(DataError, match="damaged"):
        out_of_distribution.FeatureDistribution.read(tmp_path / out_of_distribution.FILE)


def test_a_file_of_the_first_score_alone_says_what_to_do(distribution, tmp_path):
    old = ("centre", "scale", "components", "variances", "noise", "threshold")
    np.savez(tmp_path / out_of_distribution.FILE, **{name: getattr(distribution, name) for name in old})
    with pytest.raises(DataError, match="earlier version of chestxray: run it again"):
        out_of_distribution.FeatureDistribution.read(tmp_path / out_of_distribution.FILE)


def test_it_is_the_same_every_time(distribution, films):
    again = out_of_distribution.learn(features(0, 80), films[:80], features(1, 20), films[80:100], 0.01)
    np.testing.assert_array_equal(again.weights, distribution.weights)
    assert (again.bias, again.reach, again.threshold) == (distribution.bias, distribution.reach, distribution.threshold)


def test_other_pictures_are_many_and_of_every_kind():
    pictures, kinds = other_pictures((24, 32), each=5)
    assert pictures.shape == (30, 24, 32)
    assert pictures.dtype == np.uint8
    assert sorted(set(kinds)) == sorted(KINDS)
    assert len(np.unique(pictures.reshape(30, -1), axis=0)) == 30
    np.testing.assert_array_equal(pictures, other_pictures((24, 32), each=5)[0])


def test_altered_films_are_the_films_inverted_and_turned():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 12), dtype=np.uint8)
    places = np.array([1, 4, 8])
    pictures, kinds = altered_films(pixels, places)
    assert kinds.tolist() == [name for name in ALTERED for _ in places]
    np.testing.assert_array_equal(pictures[:3], 255 - pixels[places])
    np.testing.assert_array_equal(pictures[3], np.rot90(pixels[1], 3))
    np.testing.assert_array_equal(pictures[4], np.rot90(pixels[4], 1))
    np.testing.assert_array_equal(pictures[6:], np.rot90(pixels[places], 2, axes=(1, 2)))
    np.testing.assert_array_equal(mirrored_films(pixels, places), np.flip(pixels[places], axis=2))
    wide, _ = altered_films(pixels[:, :6], places, each=2)
    assert wide.shape == (6, 6, 12), "of the size that the model takes, and of no more films than asked for"
