"""Random changes of training films, so that lungs are found in films unlike those trained on.

Pose, crop, exposure, blur, grain, letters and borders; opacities over the lungs, whose mask stays what it was, since
a consolidated lung is a lung; and pictures without lungs to be found.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from chestxray_lungs.films import Films
from chestxray_lungs.network import SIDE

#: Share of the pictures that have no lungs to be found, and of the others, share that are phantoms.
EMPTY, PHANTOMS = 0.08, 0.25


def batch(real: Films, drawn: Films, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return `size` changed films and their lungs, float32 (size, SIDE, SIDE): grey values 0..255, and 0 or 1."""
    made = []
    for _ in range(size):
        films = drawn if rng.random() < PHANTOMS else real
        number = rng.integers(len(films))
        if rng.random() < EMPTY:
            made.append((without_lungs(films.pixels[number], rng), np.zeros((SIDE, SIDE), bool)))
            continue
        film, lungs = posed(films.pixels[number], films.lungs[number], rng)
        if rng.random() < 0.5:
            film = opacified(film, lungs, rng)
        made.append((exposed(film, rng), lungs))
    films_, masks = zip(*made, strict=True)
    return np.stack(films_).astype(np.float32), np.stack(masks).astype(np.float32)


def posed(film: np.ndarray, lungs: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the film and its lungs turned, stretched, shifted, cropped and perhaps mirrored, (SIDE, SIDE)."""
    angle = math.radians(rng.normal(0, 6))
    zoom = math.exp(rng.uniform(math.log(0.68), math.log(1.35)))
    stretch = math.exp(rng.normal(0, 0.13))
    scale = np.array([zoom * stretch, zoom / stretch]) * film.shape[0] / SIDE
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn * scale
    if rng.random() < 0.5:
        matrix[:, 1] *= -1
    middle = np.array(film.shape) / 2 + rng.uniform(-0.1, 0.1, 2) * film.shape[0]
    offset = middle - matrix @ (np.full(2, SIDE) / 2)
    # Beyond the film there is black, as of collimation, or what is at its edge.
    outside = {"mode": "constant", "cval": float(rng.choice([0, 0, 20, 255]))} if rng.random() < 0.5 else {}
    given = ndimage.affine_transform(
        film.astype(np.float32), matrix, offset, (SIDE, SIDE), order=1, **(outside or {"mode": "nearest"})
    )
    mask = ndimage.affine_transform(lungs.astype(np.float32), matrix, offset, (SIDE, SIDE), order=1)
    return given, mask > 0.5


def opacified(film: np.ndarray, lungs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the film with dense patches, a fluid level or a haze over its lungs."""
    places = np.argwhere(lungs)
    if not len(places):
        return film
    rows, columns = np.mgrid[:SIDE, :SIDE]
    opacity = np.zeros(film.shape, np.float32)
    kind = rng.random()
    if kind < 0.45:
        for _ in range(rng.integers(1, 5)):
            row, column = places[rng.integers(len(places))]
            wide, high = rng.uniform(0.04, 0.22, 2) * SIDE
            spot = np.exp(-((((rows - row) / high) ** 2 + ((columns - column) / wide) ** 2) ** 1.5))
            opacity = np.maximum(opacity, rng.uniform(0.3, 1) * spot)
    elif kind < 0.75:
        parts, count = ndimage.label(lungs)
        chosen = parts == rng.integers(1, count + 1)
        inside = np.flatnonzero(chosen.any(axis=1))
        level = inside[0] + rng.uniform(0.2, 1) * (inside[-1] - inside[0])
        level = level + rng.normal(0, 0.3) * (columns - SIDE / 2)
        near = ndimage.binary_dilation(chosen, iterations=2)
        opacity = rng.uniform(0.5, 1) * near / (1 + np.exp(-(rows - level) / rng.uniform(0.5, 5)))
    else:
        cloud = smooth(rng, rng.uniform(2, 14))
        opacity = rng.uniform(0.2, 0.9) / (1 + np.exp(-2 * cloud - rng.uniform(-1, 1)))
    over = ndimage.gaussian_filter(lungs.astype(np.float32), rng.uniform(0.5, 2))
    opacity = opacity * over
    white = np.percentile(film, rng.uniform(60, 97)) + rng.uniform(2, 10) * smooth(rng, rng.uniform(1, 5))
    return film + opacity * (white - film)


def exposed(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the film in another exposure, sharpness and grain, perhaps with letters, lines and a border."""
    low, high = np.percentile(film, (0.5, 99.5))
    shown = np.clip((film - low) / max(high - low, 1), 0, 1) ** math.exp(rng.normal(0, 0.4))
    if rng.random() < 0.4:
        shown = 1 / (1 + np.exp(-rng.uniform(2, 9) * (shown - rng.uniform(0.3, 0.7))))
    slope = rng.normal(0, 0.12, 2)
    ramp = np.linspace(-1, 1, SIDE)
    shown = shown + slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    if rng.random() < 0.4:
        shown = ndimage.gaussian_filter(shown, rng.uniform(0.3, 2))
    if rng.random() < 0.15:
        shown = shown - ndimage.gaussian_filter(shown, rng.uniform(8, 25)) + 0.5
    if rng.random() < 0.6:
        shown = shown + rng.uniform(0.005, 0.08) * smooth(rng, rng.choice([0.0, 0.0, 0.7]))
    film = np.clip(rng.uniform(0.4, 1.1) * shown + rng.uniform(-0.15, 0.25), 0, 1) * 255
    for _ in range(rng.poisson(1)):
        _mark(film, rng)
    if rng.random() < 0.2:
        width = rng.integers(1, SIDE // 8, 4) * (rng.random(4) < 0.5)
        border = np.ones(film.shape, bool)
        border[width[0] : SIDE - width[1], width[2] : SIDE - width[3]] = False
        film[border] = rng.choice([0, 255])
    return film


def without_lungs(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture in which no lungs are to be found: (SIDE, SIDE) in 0..255.

    A film in negative, on its side or upside down, noise, shapes, a ramp or one grey.
    """
    kind = rng.integers(6)
    if kind <= 2:
        whole, _ = posed(film, np.zeros(film.shape, bool), rng)
        shown = exposed(whole, rng)
        return 255 - shown if kind == 0 else np.rot90(shown, kind if rng.random() < 0.5 else 3).copy()
    if kind == 3:
        scales = rng.uniform(0, 20, 3)
        shown = 127 + rng.uniform(5, 60) * sum(smooth(rng, scale) for scale in scales)
    elif kind == 4:
        shown = np.full((SIDE, SIDE), rng.uniform(0, 255))
        for _ in range(rng.integers(1, 30)):
            _mark(shown, rng, largest=SIDE)
        shown = ndimage.gaussian_filter(shown, rng.uniform(0, 6))
    else:
        ramp = np.linspace(-1, 1, SIDE)
        shown = rng.uniform(0, 255) + rng.normal(0, 60) * ramp[:, None] + rng.normal(0, 60) * ramp[None, :]
        shown = shown + rng.choice([0, 0, 3, 30]) * smooth(rng, 0)
    return np.clip(shown, 0, 255)


def smooth(rng: np.random.Generator, scale: float) -> np.ndarray:
    """Return noise of mean 0 and deviation 1, smoothed over `scale` pixels, (SIDE, SIDE)."""
    noise = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    if scale > 0:
        noise = ndimage.gaussian_filter(noise, scale)
    return noise / noise.std()


def _mark(film: np.ndarray, rng: np.random.Generator, largest: int = SIDE // 6) -> None:
    """Draw a bright or dark bar or plate, in place."""
    high, wide = rng.integers(1, largest, 2)
    top, left = rng.integers(SIDE - high), rng.integers(SIDE - wide)
    film[top : top + high, left : left + wide] = rng.uniform(0, 255)
