"""Candidates by cells, beside comparing everything with everything."""

import numpy as np
import pytest

from chestxray.data import neighbours
from chestxray.data.neighbours import alike, cells


def directions(count, seed=0, dimensions=64):
    drawn = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def towards(members, cosine, seed=1):
    """Unit vectors with that cosine to each of the members."""
    other = directions(len(members), seed, members.shape[1])
    other -= np.einsum("ij,ij->i", other, members)[:, None] * members
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    return (cosine * members + np.sqrt(1 - cosine**2) * other).astype(np.float32)


def test_in_one_cell_nothing_is_passed_over():
    members, queries = directions(500), directions(300, seed=2)
    places, cosine = alike(cells(members), queries, 0.3, 500)
    every = queries @ members.T
    assert set(map(tuple, places)) == set(zip(*np.nonzero(np.abs(every) > 0.3), strict=True))
    np.testing.assert_allclose(cosine, every[tuple(places.T)], atol=1e-6)


def test_every_member_is_in_one_cell():
    members = directions(neighbours.EVERY + 1)
    found = cells(members)
    assert len(found.centres) > 100
    assert sorted(found.places) == list(range(len(members)))
    assert (np.diff(found.bounds) >= 0).all()
    assert (found.bounds[0], found.bounds[-1]) == (0, len(members))
    np.testing.assert_array_equal(found.members, members[found.places])
    again = cells(members)
    np.testing.assert_array_equal(again.places, found.places)


@pytest.mark.parametrize(("cosine", "share"), [(0.7, 0.98), (0.8, 0.995), (-0.8, 0.995)])
def test_neighbours_are_found_in_a_small_part_of_many_cells(cosine, share):
    members = directions(6_000, dimensions=143)
    among = cells(members)
    queries = towards(members[:1_000], cosine)
    places, cosines = alike(among, queries, 0.62, 16)
    own = places[:, 0] == places[:, 1]
    assert own.sum() >= share * len(queries)
    np.testing.assert_allclose(cosines[own], cosine, atol=1e-4)
    cell_of = np.searchsorted(among.bounds, np.arange(len(members)), side="right") - 1
    sizes = np.bincount(cell_of, minlength=len(among.centres))
    assert np.sort(sizes)[::-1][: neighbours._PROBED].sum() < 0.5 * len(members)


def test_of_a_crowd_the_likeliest_are_found():
    members = towards(np.repeat(directions(1), 200, axis=0), 0.9)
    places, cosine = alike(cells(members), directions(1), 0.5, 5)
    assert len(places) == 5
    assert cosine.min() >= np.sort(directions(1) @ members.T)[0, -5]


def test_no_members_and_no_queries():
    for count, asked in ((0, 0), (5, 0)):
        places, cosine = alike(cells(directions(count)), directions(asked), 0.5, 5)
        assert places.shape == (0, 2)
        assert cosine.shape == (0,)
