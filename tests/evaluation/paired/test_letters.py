"""Compact letter displays, beside all displays there are."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestxray.evaluation.paired.letters import caption, letters

some_pairs = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda p: p[0] < p[1]))


def shared(marks):
    return {
        (i, j) for i, j in itertools.combinations(range(len(marks)), 2) if set(marks[i]) & set(marks[j])
    }  # fmt: skip


def fewest(count, different):
    """How many letters the smallest display has: every set of groups that are alike is tried."""
    pairs = set(itertools.combinations(range(count), 2)) - set(different)
    groups = [
        frozenset(members)
        for size in range(1, count + 1)
        for members in itertools.combinations(range(count), size)
        if set(itertools.combinations(members, 2)) <= pairs
    ]
    groups = [group for group in groups if not any(group < other for other in groups)]
    covers = [set(itertools.combinations(sorted(group), 2)) | {(i, i) for i in group} for group in groups]
    whole = pairs | {(i, i) for i in range(count)}
    sizes = (
        n for n in range(1, len(groups) + 1) for c in itertools.combinations(covers, n) if set().union(*c) == whole
    )
    return next(sizes)


def test_letters_by_hand():
    assert letters(0, []) == []
    assert letters(3, []) == ["a", "a", "a"]
    assert letters(3, [(0, 1), (0, 2), (1, 2)]) == ["a", "b", "c"]
    assert letters(4, [(0, 2), (0, 3), (1, 3)]) == ["a", "ab", "bc", "c"]
    assert letters(4, [(0, 3)]) == ["a", "ab", "ab", "b"]


@given(some_pairs)
def test_letters_are_shared_by_those_that_cannot_be_told_apart_alone(different):
    marks = letters(6, sorted(different))
    assert shared(marks) == set(itertools.combinations(range(6), 2)) - different
    assert all(marks)


def test_no_display_of_up_to_four_models_needs_fewer_letters():
    for count in (2, 3, 4):
        pairs = list(itertools.combinations(range(count), 2))
        for chosen in itertools.product((False, True), repeat=len(pairs)):
            different = list(itertools.compress(pairs, chosen))
            assert len(set("".join(letters(count, different)))) == fewest(count, different)


@given(st.sets(st.sampled_from(list(itertools.combinations(range(5), 2)))))
def test_nor_of_five(different):
    assert len(set("".join(letters(5, sorted(different))))) == fewest(5, different)


def test_models_in_a_row_have_the_letters_of_their_neighbourhoods():
    # Told apart from the third on, as with figures of one error each: the fewest letters are known.
    different = [(i, j) for i, j in itertools.combinations(range(30), 2) if j - i > 2]
    marks = letters(30, different)
    assert len(set("".join(marks))) == 28
    assert max(map(len, marks)) == 3


@pytest.mark.parametrize("seed", range(3))
def test_two_dozen_models_in_any_disorder_take_no_time(seed):
    """The number of largest groups alike is exponential: 4,096 where twelve pairs alone are told apart."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(24)
    matching = [tuple(sorted(map(int, order[i : i + 2]))) for i in range(0, 24, 2)]
    random = [pair for pair in itertools.combinations(range(24), 2) if rng.random() < 0.3]
    start = time.process_time()
    for different in (matching, random):
        marks = letters(24, different)
        assert shared(marks) == set(itertools.combinations(range(24), 2)) - set(different)
        assert max(map(len, marks)) <= 12
        assert len(set("".join(marks))) <= 52
    assert time.process_time() - start < 5


def test_a_display_that_would_be_no_help_is_not_given():
    # Models of two kinds: none of a kind can be told apart from the other kind's, all of one kind can.
    kinds = [(i, j) for i, j in itertools.combinations(range(30), 2) if i % 2 == j % 2]
    assert letters(30, kinds) == [""] * 30
    assert "table of pairs" in caption([""] * 30)
    assert caption(["a", "ab"]) == "Models that share a letter cannot be told apart."
