"""Quantiles of images that come in patients: the usual one without, and coverage with them."""

import math

import numpy as np
import pytest
from scipy import stats

from chestxray.evaluation.decision import conformal_quantile, out_of_distribution


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_with_an_image_a_patient_it_is_the_value_of_the_usual_rank(level):
    generator = np.random.default_rng(0)
    for count in (3, 9, 19, 100):
        scores = generator.random(count)
        rank = math.ceil((count + 1) * level - 1e-9)
        wanted = None if rank > count else np.sort(scores)[rank - 1]
        assert conformal_quantile.quantile(scores, np.arange(count), level) == wanted
        assert (wanted is None) == (count < conformal_quantile.patients_needed(level))


def test_patients_count_alike_however_many_images_there_are_of_one():
    # Of the first patient nine images with low scores, of the others one each with a high one.
    scores = np.array([*np.linspace(0, 0.1, 9), 0.5, 0.6, 0.7])
    clusters = np.array([*[0] * 9, 1, 2, 3])
    assert conformal_quantile.quantile(scores, clusters, 0.75) == 0.7
    assert conformal_quantile.quantile(scores, np.arange(12), 0.75) == 0.5
    # Weights 1 / ((K + 1) N_k) by hand: three of five fifths.
    assert conformal_quantile.quantile(scores, clusters, 0.6) == 0.6


@pytest.mark.parametrize("shared", [0.5, 0.9])
def test_twenty_patients_with_ten_images_cover_as_promised_and_images_apart_do_not(shared):
    generator = np.random.default_rng(1)
    clusters = np.repeat(np.arange(20), 10)
    alike, apart = [], []
    for _ in range(2000):
        scores = np.sqrt(shared) * generator.normal(size=20)[clusters] + np.sqrt(1 - shared) * generator.normal(
            size=200
        )
        alike.append(stats.norm.cdf(conformal_quantile.quantile(scores, clusters, 0.9)))
        apart.append(stats.norm.cdf(conformal_quantile.quantile(scores, np.arange(200), 0.9)))
    assert np.mean(alike) > 0.9
    assert np.mean(apart) < 0.899


def test_the_spread_is_that_of_validations_of_one_image_a_patient():
    generator = np.random.default_rng(2)
    kept = [
        stats.norm.cdf(conformal_quantile.quantile(generator.normal(size=50), np.arange(50), 0.9)) for _ in range(3000)
    ]
    low, high = conformal_quantile.spread(np.arange(50), 0.9)
    assert np.quantile(kept, [0.05, 0.95]) == pytest.approx([low, high], abs=0.01)
    assert conformal_quantile.spread(np.repeat(np.arange(50), 4), 0.9) == (low, high), (
        "no more patients, no less spread"
    )
    assert conformal_quantile.spread(np.arange(5), 0.9) == (1.0, 1.0), "every set holds all classes"


def test_a_capped_rank_of_refusal_says_what_is_to_be_expected():
    distances = np.random.default_rng(3).random(40)
    clusters = np.repeat(np.arange(10), 4)
    assert out_of_distribution.at_rank(distances, 0.01, clusters) == distances.max()
    assert out_of_distribution.least_allowed(clusters) == pytest.approx(1 / 11)
    assert out_of_distribution.at_rank(distances, 0.2, clusters) < distances.max()
