import json

import numpy as np
import pytest

import phantom_networks
from chestxray.errors import InputError, NonFiniteError
from chestxray.explanation import map_priors
from chestxray.explanation.drawn_images import drawn
from chestxray.explanation.faithfulness.image_checks import EVALUATIONS_AN_IMAGE, checks, probability_of
from chestxray.explanation.faithfulness.removal_checks import removal_checks
from chestxray.explanation.faithfulness.stability import stability
from chestxray.explanation.localisation.located import Located
from chestxray.explanation.localisation.overlap import pointing
from chestxray.explanation.localisation.overlap_checks import overlap_checks
from chestxray.explanation.map_check import badge
from phantom_networks import gradcam


def ill(films):
    """The films with a consolidation: pixels, classes, patients, places."""
    places = np.flatnonzero(films.classes == 1)
    return films.pixels[places], films.classes[places], np.arange(len(places)), places


def by_name(found):
    return {one.name: one for one in found}


def test_a_model_of_the_marker_has_its_maps_on_the_marker(marked):
    model, films = marked
    pixels, classes, patients, places = ill(films)
    maps = gradcam(model, pixels, classes)
    assert pointing(maps, films.markers[places]).mean() > 0.8
    found = by_name(overlap_checks(maps, films.markers[places], patients))
    assert found["pointing-game"].verdict == found["share-inside"].verdict == "passes"
    # And not on what it is said to look for.
    assert by_name(overlap_checks(maps, films.masks[places], patients))["pointing-game"].verdict == "fails"


def test_a_model_of_the_finding_has_its_maps_on_the_finding(unmarked):
    model, films = unmarked
    places = np.flatnonzero(films.classes == 1)
    half = len(places) // 2
    own, other = places[:half], places[half:]
    found = checks(
        model,
        gradcam,
        films.pixels[own],
        films.classes[own],
        np.arange(half),
        seed=0,
        lungs=films.lungs[own],
        found_at=Located(films.pixels[own], films.classes[own], films.masks[own], np.arange(half)),
        names=phantom_networks.FINDINGS,
        images=12,
        validation=Located(films.pixels[other], films.classes[other], films.masks[other], np.arange(len(other))),
    )
    named = by_name(found)
    assert list(named) == [
        "deletion", "insertion", "road", "stability", "pointing-game", "share-inside", "iou", "inside-lungs",
    ]  # fmt: skip
    for name in ("pointing-game", "share-inside", "iou", "stability"):
        assert named[name].verdict == "passes", named[name].sentence
    assert "fails" not in {one.verdict for one in found}
    assert named["pointing-game"].figures["value"]["value"] > 0.8
    assert named["iou"].figures["validation_images"] == len(other)
    assert list(named["iou"].figures["by_finding"]) == ["consolidation"]
    json.dumps([one.record() for one in found])


def test_an_untrained_network_fails(unmarked):
    films = unmarked[1]
    pixels, classes, patients, places = ill(films)
    known = Located(pixels, classes, films.masks[places], patients)
    found = checks(phantom_networks.untrained(), gradcam, pixels, classes, patients, seed=0, found_at=known, images=12)
    assert badge(found) == "fails"
    for name in ("deletion", "insertion", "road", "share-inside"):
        assert by_name(found)[name].verdict == "fails", by_name(found)[name].sentence


FILMS, SIZE = 16, (24, 24)


def bright(images, classes):
    """A model that counts bright pixels."""
    return np.clip((images[..., 0] > 200).mean(axis=(1, 2)) / 0.04, 0, 1)


@pytest.fixture(scope="module")
def patches():
    rng = np.random.default_rng(0)
    pixels = rng.integers(40, 80, (FILMS, *SIZE, 1)).astype(np.uint8)
    for image in pixels:
        row, column = rng.integers(0, 19, 2)
        image[row : row + 5, column : column + 5] = 240
    return pixels


def judged(pixels, maps):
    found = removal_checks(bright, pixels, np.zeros(FILMS, int), np.arange(FILMS), maps, seed=0)
    return {one.name: one.verdict for one in found}


def test_maps_of_what_the_model_counts_pass(patches):
    assert judged(patches, (patches[..., 0] > 200) * 1.0) == dict.fromkeys(("deletion", "insertion", "road"), "passes")


def test_random_maps_blobs_and_maps_of_anything_else_fail(patches):
    blob = np.repeat(map_priors.centre(SIZE)[np.newaxis], FILMS, axis=0)
    assert set(judged(patches, blob).values()) == {"fails"}
    assert set(judged(patches, (patches[..., 0] < 200) * 1.0).values()) == {"fails"}
    for seed in range(1, 4):
        verdicts = judged(patches, map_priors.random(FILMS, SIZE, seed)).values()
        assert "passes" not in verdicts and "fails" in verdicts


def test_the_count_of_evaluations_is_the_stated_one(patches):
    seen, classes, patients = [], np.zeros(FILMS, int), np.arange(FILMS)

    def counted(images, classes):
        seen.append(len(images))
        return bright(images, classes)

    def maps(model, pixels, classes):
        return pixels[..., 0] * 1.0

    removal_checks(counted, patches, classes, patients, maps(None, patches, classes), seed=0)
    stability(None, maps, counted, patches, classes, patients, maps(None, patches, classes), seed=0)
    assert sum(seen) == EVALUATIONS_AN_IMAGE * FILMS


def test_as_many_patients_as_can_be_are_chosen_and_always_the_same():
    patients = np.repeat(np.arange(12), 5)
    places = drawn(patients, 14, seed=1)
    assert len(np.unique(patients[places])) == 12 and len(places) == len(set(places.tolist())) == 14
    np.testing.assert_array_equal(places, drawn(patients, 14, seed=1))
    assert not np.array_equal(places, drawn(patients, 14, seed=2))
    np.testing.assert_array_equal(drawn(patients, 99, seed=1), np.arange(60))


def test_probabilities_are_the_models_own_in_any_batch():
    model = phantom_networks.untrained()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 1)).astype(np.float32)
    classes = np.array([0, 1, 1, 0, 1])
    plain = model.predict(pixels, verbose=0)[np.arange(5), classes]
    np.testing.assert_allclose(probability_of(model, batch=2)(pixels, classes), plain, atol=1e-6)


def test_what_does_not_fit_or_is_not_finite_is_said():
    model, pixels = phantom_networks.untrained(), np.zeros((3, 48, 48, 1), np.uint8)
    with pytest.raises(InputError, match="Received: 3, 3, 2"):
        checks(model, gradcam, pixels, np.zeros(3, int), np.arange(2), seed=0)

    def broken(model, pixels, classes):
        return np.full(pixels.shape[:3], np.nan)

    with pytest.raises(NonFiniteError, match="a map holds NaN"):
        checks(model, broken, pixels, np.zeros(3, int), np.arange(3), seed=0)
