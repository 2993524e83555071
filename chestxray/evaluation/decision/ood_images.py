"""Images that are not chest radiographs, to measure how many of them out-of-distribution detection misses.

Crops of the two photographs and the handwritten digits that come with scikit-learn, drawn pages,
textures, noise and even grey, and the test's own films inverted and turned: nothing is downloaded.
Radiographs of other parts of the body and lateral views are not among them, so that the miss rate for these is
unknown.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("photograph", "digit", "page", "texture", "noise", "blank")
ALTERED = ("inverted film", "film on its side", "film upside down")


def other_pictures(size: tuple[int, int], each: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return grey images, uint8 (6 * each, height, width), and the kind of each, one of `KINDS`, str (6 * each,)."""
    generator = np.random.default_rng(seed)
    drawers = (_photographs, _digits, _pages, _textures, _noise, _blanks)
    pictures = [_fitted(picture, size) for draw in drawers for picture in draw(generator, each)]
    return np.stack(pictures), np.repeat(KINDS, each)


def altered_films(pixels: np.ndarray, places: np.ndarray, each: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return up to `each` of the films at `places` of `pixels`, uint8 (rows, height, width), altered in each of the
    ways of `ALTERED`, and the kind of each. Films on their side are rotated to the left and to the right in turn.
    """
    films = _some(pixels, places, each)
    size = (films.shape[1], films.shape[2])
    sides = [_fitted(np.rot90(film, 1 if number % 2 else 3), size) for number, film in enumerate(films)]
    return np.concatenate([255 - films, np.stack(sides), films[:, ::-1, ::-1]]), np.repeat(ALTERED, len(films))


def mirrored_films(pixels: np.ndarray, places: np.ndarray, each: int = 40) -> np.ndarray:
    """Return the films that `altered_films` takes, mirrored left to right: these are chest radiographs still."""
    return _some(pixels, places, each)[:, :, ::-1]


def _some(pixels: np.ndarray, places: np.ndarray, most: int) -> np.ndarray:
    chosen = np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int))
    return np.asarray(pixels[places[chosen]])


def _photographs(generator: np.random.Generator, count: int) -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    found = [np.asarray(Image.fromarray(image).convert("L")) for image in load_sample_images().images]
    crops = []
    for number in range(count):
        photograph = found[number % len(found)]
        side = int(generator.integers(80, 400))
        top, left = (int(generator.integers(0, length - side)) for length in photograph.shape)
        crops.append(photograph[top : top + side, left : left + side])
    return crops


def _digits(generator: np.random.Generator, count: int) -> list[np.ndarray]:
    from sklearn.datasets import load_digits

    images = load_digits().images
    return [(images[i] * (255 / 16)).astype(np.uint8) for i in generator.choice(len(images), count, replace=False)]


def _pages(generator: np.random.Generator, count: int) -> list[np.ndarray]:
    pages = []
    for number in range(count):
        dark = number % 2 == 1
        page = Image.new("L", (320, 320), 20 if dark else 245)
        draw = ImageDraw.Draw(page)
        for line in range(14):
            letters = generator.integers(97, 123, size=int(generator.integers(10, 46)))
            draw.text((16, 12 + 21 * line), "".join(map(chr, letters)), fill=230 if dark else 15)
        pages.append(np.asarray(page))
    return pages


def _textures(generator: np.random.Generator, count: int) -> list[np.ndarray]:
    rows, columns = np.mgrid[0:256, 0:256] / 256
    found = []
    for number in range(count):
        angle, period = generator.uniform(0, np.pi), generator.uniform(1, 20)
        wave = np.sin(2 * np.pi * period * (rows * np.sin(angle) + columns * np.cos(angle)))
        # A plain ramp, stripes and a chequered pattern in turn.
        picture = (
            rows * np.sin(angle) + columns * np.cos(angle),
            wave,
            np.sign(wave * np.sin(2 * np.pi * period * rows)),
        )
        chosen = picture[number % 3]
        span = np.ptp(chosen) or 1.0
        found.append((255 * (chosen - chosen.min()) / span).astype(np.uint8))
    return found


def _noise(generator: np.random.Generator, count: int) -> list[np.ndarray]:
    # From a single patch to every pixel for itself.
    sides = [1 + 8 * (number % 30) for number in range(count)]
    return [generator.integers(0, 256, size=(side, side), dtype=np.uint8) for side in sides]


def _blanks(generator: np.random.Generator, count: int) -> list[np.ndarray]:
    # Every level from black to white, three of four with a little noise as of a detector.
    levels = np.linspace(0, 255, count)
    return [
        np.clip(generator.normal(level, number % 4, (64, 64)), 0, 255).astype(np.uint8)
        for number, level in enumerate(levels)
    ]


def _fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR))
