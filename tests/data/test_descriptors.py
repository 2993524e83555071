"""Descriptions that copies share."""

import numpy as np
import pytest
from scipy.fft import dctn

from chestxray.data.descriptors import _WINDOW, FLIPS, POSES, _equalised, _sampling, described, signs, whiten
from chestxray.data.image_registration import SIDE


def pictures(count):
    drawn = np.random.default_rng(0).standard_normal((count, SIDE, SIDE))
    down, right = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")
    smooth = np.fft.irfft2(np.fft.rfft2(drawn) * np.maximum(np.hypot(down, right), 1 / SIDE) ** -1.5)
    # What all of them share, as chests do.
    shared = 40 * np.cos(np.linspace(0, 3, SIDE))[:, None] * np.cos(np.linspace(-2, 2, SIDE))
    return np.clip(120 + shared + 30 * smooth / smooth.std(), 1, 254).astype(np.uint8)


def test_flipped_films_have_the_description_with_signs_changed():
    own = pictures(40)
    flipped = [own[:, :: -1 if upside_down else 1, :: -1 if mirrored else 1] for upside_down, mirrored in FLIPS]
    found = described(np.concatenate(flipped))
    whiten(found)
    for factors, part in zip(signs(), np.split(found[0], len(FLIPS)), strict=True):
        np.testing.assert_allclose(part, factors * found[0, :40], atol=1e-3)


def test_an_inverted_film_has_the_opposite_description_and_the_tone_curve_does_not_matter():
    own = pictures(10)
    found, inverted, darker = (
        described(each.astype(np.uint8))[0] for each in (own, 255 - own, (own / 255.0) ** 2 * 254)
    )
    np.testing.assert_allclose(inverted, -found, atol=1e-3)
    np.testing.assert_allclose(darker.astype(np.float32), found, atol=0.05 * np.abs(found).max())


def test_whitened_descriptions_of_different_films_share_nothing():
    found = described(pictures(400))
    raw = found[0] / np.linalg.norm(found[0], axis=1, keepdims=True)
    whiten(found)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, atol=1e-5)
    alike = [np.abs((each @ each.T)[np.triu_indices(400, 1)]) for each in (raw, found[0])]
    assert alike[0].mean() > 0.3
    assert alike[1].mean() < 0.12


@pytest.mark.parametrize("few", [1, 2])
def test_a_few_films_and_blank_ones_have_descriptions(few):
    own = np.concatenate([pictures(few), np.full((1, SIDE, SIDE), 90, np.uint8)])
    found = described(own)
    assert found.shape == (len(POSES), few + 1, 143)
    whiten(found)
    assert np.isfinite(found).all()
    assert not found[:, few].any()


def test_each_pose_is_described_by_the_lowest_cosine_coefficients_of_its_window():
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    even = _equalised(picture).ravel()
    for (rotation, scale), coefficients in zip(POSES, described(picture[None])[:, 0], strict=True):
        window = (_sampling(rotation, _WINDOW * scale) @ even).reshape(SIDE, SIDE)
        lowest = SIDE / 2 * dctn(window, norm="ortho")[:12, :12].ravel()[1:]
        np.testing.assert_allclose(coefficients, lowest, atol=1e-3 * np.abs(lowest).max())
