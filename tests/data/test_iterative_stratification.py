"""Iterative stratification: whole groups, proportions that are kept, and one result for one seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestxray.data.findings import ABSENT, PRESENT, UNCERTAIN, UNKNOWN
from chestxray.data.iterative_stratification import assigned, strata


def drawn(patients, rates, seed=0, most=4):
    """Return findings (images, labels) and patients (images,); a patient has one to `most` images."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients))
    own = rng.random((patients, len(rates))) < rates
    return own[groups] & (rng.random((len(groups), len(rates))) < 0.8), groups


def shares(present, subset, count):
    """Return the share of the images with each label that each subset has: (subsets, labels)."""
    return np.stack([present[subset == number].sum(axis=0) for number in range(count)]) / present.sum(axis=0)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(5, 60), st.integers(0, 4), st.sampled_from([(0.1, 0.9), (0.2,) * 5, (0.7, 0.2, 0.1)]), st.integers(0)
)
def test_groups_stay_whole_and_every_image_has_a_subset(patients, labels, proportions, seed):
    present, groups = drawn(patients, [0.3] * labels, seed=seed % 2**32)
    subset = assigned(present, groups, proportions, seed)
    assert subset.shape == groups.shape and set(subset) <= set(range(len(proportions)))
    for group in range(patients):
        assert len(set(subset[groups == group])) == 1
    np.testing.assert_array_equal(subset, assigned(present, groups, proportions, seed))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(0.1, 0.9), (0.2,) * 5, (0.8, 0.1, 0.1)]))
def test_proportions_are_kept_of_images_and_of_every_finding(seed, proportions):
    present, groups = drawn(400, [0.4, 0.2, 0.05], seed=seed)
    subset = assigned(present, groups, proportions, seed)
    whole = np.ones((len(groups), 1), bool)
    labels = np.concatenate([present, whole], axis=1)
    total = labels.sum(axis=0)
    away = np.abs(shares(labels, subset, len(proportions)) - np.array(proportions)[:, None]) * total
    assert (away <= np.maximum(0.06 * np.array(proportions)[:, None] * total, 5)).all()


def test_it_is_nearer_to_the_proportions_than_chance():
    present, groups = drawn(300, [0.3, 0.1, 0.03], seed=1)

    def deviation(subset):
        return np.abs(shares(present, subset, 5) - 0.2).mean()

    by_chance = [deviation(np.random.default_rng(seed).permutation(300)[groups] % 5) for seed in range(20)]
    own = [deviation(assigned(present, groups, [0.2] * 5, seed)) for seed in range(20)]
    assert max(own) < min(by_chance) and np.mean(own) < np.mean(by_chance) / 3


def test_a_patient_with_most_images_of_a_finding_does_not_unbalance_it():
    # 10 patients with a finding, of whom one has half of its images; 200 others.
    sizes = [18, *[2] * 9, *[2] * 200]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    present = (groups < 10)[:, None]
    for seed in range(10):
        subset = assigned(present, groups, (0.1, 0.9), seed)
        assert 2 <= present[subset == 0].sum() <= 6


def test_the_seed_decides_and_platforms_agree():
    present, groups = drawn(30, [0.3, 0.2], seed=0)
    subset = assigned(present, groups, (0.2, 0.8), 0)
    assert np.unique(groups[subset == 0]).tolist() == [1, 8, 13, 14, 20, 24, 27]
    assert (assigned(present, groups, (0.2, 0.8), 1) != subset).any()


def test_it_is_stratified_by_what_is_present_and_by_source():
    states = np.array([[PRESENT, UNKNOWN], [ABSENT, UNCERTAIN], [UNCERTAIN, PRESENT]])
    np.testing.assert_array_equal(strata(states, np.array(["a"] * 3)), states == PRESENT)
    both = strata(states, np.array(["a", "b", "b"]))
    np.testing.assert_array_equal(both[:, 2:], [[True, False], [False, True], [False, True]])


@pytest.mark.parametrize("labels", [0, 1])
def test_without_findings_it_is_by_images_alone(labels):
    subset = assigned(np.zeros((100, labels), bool), np.arange(100) // 2, (0.3, 0.7), 0)
    assert (subset == 0).sum() == 30
