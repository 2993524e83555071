"""Candidates by cells, beside comparing everything with everything."""

import numpy as np
import pytest

from chestxray.data import neighbours
from chestxray.data.descriptors import signs
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
    assert set(map(tuple, places[:, ::2])) == set(zip(*np.nonzero(np.abs(every) > 0.3), strict=True))
    np.testing.assert_allclose(cosine, every[tuple(places[:, ::2].T)], atol=1e-6)


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
    own = places[:, 0] == places[:, 2]
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
        assert places.shape == (0, 3)
        assert cosine.shape == (0,)


def plainly_flipped(members, queries, flips, least):
    """The similar pairs of every flip of every query and every member."""
    cosine = (flips[:, None] * queries) @ members.T
    return {(query, flip, member) for flip, query, member in zip(*np.nonzero(np.abs(cosine) > least), strict=True)}


@pytest.mark.parametrize("count", [400, 2_500])
def test_all_flips_are_searched_at_once_as_one_after_the_other(count, monkeypatch):
    # Of 2,500 members there are many cells; all of them are probed, so that nothing may be passed over.
    monkeypatch.setattr(neighbours, "_PROBED", 10_000 if count > 2_000 else neighbours._PROBED)
    monkeypatch.setattr(neighbours, "_COSINES", 7_000)
    flips, members = signs(), directions(count, dimensions=143)
    queries = np.concatenate([towards(members[:60], 0.7) * flips[1], directions(60, seed=4, dimensions=143)])
    among = cells(members, flips)
    assert (len(among.centres) > 50) == (count > 2_000)
    places, cosine = alike(among, queries, 0.3, count)
    assert set(map(tuple, places.tolist())) == plainly_flipped(members, queries, flips, 0.3)
    query, flip, member = places.T
    plain = np.einsum("ij,ij->i", queries[query] * flips[flip], members[member])
    np.testing.assert_allclose(cosine, plain, atol=1e-6)


def test_a_flipped_query_finds_what_the_query_does():
    flips, members = signs(), directions(6_000, dimensions=143)
    queries, among = towards(members[:300], 0.65), cells(members, flips)
    assert len(among.centres) * len(flips) > neighbours._PROBED
    found = [alike(among, queries * factors, 0.3, 6_000)[0] for factors in flips]
    for number, places in enumerate(found):
        places[:, 1] ^= number
    for places in found[1:]:
        same = set(map(tuple, places.tolist())) & set(map(tuple, found[0].tolist()))
        # Rounding decides between cells at the same distance, and cosines near the limit.
        assert len(same) > 0.999 * len(found[0])


@pytest.mark.parametrize(("cosine", "share"), [(0.7, 0.96), (0.8, 0.99)])
def test_flipped_neighbours_are_found_in_a_small_part_of_many_cells(cosine, share):
    flips, members = signs(), directions(6_000, dimensions=143)
    which = np.arange(1_000) % len(flips)
    places, _ = alike(cells(members, flips), towards(members[:1_000], cosine) * flips[which], 0.62, 16)
    own = (places[:, 0] == places[:, 2]) & (places[:, 1] == which[places[:, 0]])
    assert own.sum() >= share * len(which)
