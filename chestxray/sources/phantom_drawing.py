"""One phantom of a chest film, drawn with numpy. What is drawn, and why so, stands in `phantom`.

Anatomy lives in patient coordinates: x from -1 (left edge of the film, the patient's right) to 1,
y from -1 (top) to 1 (bottom). Grey values are on a scale of 0 (air) to 1 (metal) until the film
is exposed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: Raise it whenever a drawing changes: sets drawn by an older version are then drawn anew.
VERSION = 1

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Drawing:
    """A film and what is true of it; the arrays share one shape (height, width)."""

    pixels: NDArray[np.uint8]
    lungs: Mask
    finding: Mask


def images_of(seed: int, patient: int) -> int:
    """How many images a patient has: 1 to 4, two on average."""
    return int(np.random.default_rng([seed, patient, 0]).choice(4, p=(0.36, 0.34, 0.2, 0.1))) + 1


def draw(*, seed: int, patient: int, image: int, finding: str, size: int, marker: bool = False) -> Drawing:
    """Draw image number `image` of a patient: `size` pixels wide and about as many high.

    Nothing but the arguments decides the pixels. Neither the finding nor the marker changes what
    else is drawn, so that two drawings which differ in one of them alone are counterfactuals.
    """
    person = np.random.default_rng([seed, patient, 1])
    moment = np.random.default_rng([seed, patient, 2, image])
    chest = _Chest.of(person, moment)
    height = round(size * moment.uniform(0.94, 1.1))
    x, y = _posed_grid(height, size, person, moment)
    lungs = chest.lungs(x, y)
    film = _draw_anatomy(chest, lungs, x, y, person, moment)
    lesion = _Lesion(
        chest, lungs, x, y, np.random.default_rng([seed, patient, 3]), np.random.default_rng([seed, patient, 4, image])
    )
    opacity, extent = FINDINGS[finding](lesion)
    pixels = _expose(film + opacity * lungs, person, moment)
    if marker:
        _stamp_marker(pixels, np.random.default_rng([seed, patient, 5, image]))
    inside = lungs > 0.5
    return Drawing(pixels=pixels, lungs=inside, finding=extent & inside)


# Geometry


@dataclass(frozen=True)
class _Chest:
    """Shape of one chest at one breath; lengths in patient coordinates."""

    apex: float
    base: float
    width: float
    heart: tuple[float, float, float, float]
    mediastinum: float
    rib_gap: float
    rib_start: float
    rib_slope: float

    @classmethod
    def of(cls, person: np.random.Generator, moment: np.random.Generator) -> _Chest:
        breath = person.normal(0, 0.05) + moment.normal(0, 0.025)
        size = person.uniform(0.28, 0.4)
        return cls(
            apex=-0.8 + person.uniform(-0.05, 0.05),
            base=0.5 + float(np.clip(breath, -0.14, 0.14)),
            width=person.uniform(0.74, 0.86),
            heart=(person.uniform(0.08, 0.16), 0.36 + 0.5 * breath, size, size * person.uniform(0.75, 0.95)),
            mediastinum=person.uniform(0.11, 0.16),
            rib_gap=person.uniform(0.17, 0.22),
            rib_start=person.uniform(0, 1) + 0.6 * breath,
            rib_slope=person.uniform(0.2, 0.42),
        )

    def lateral(self, y: Field) -> Field:
        """|x| of the lungs' outer edge."""
        depth = np.clip((y - self.apex) / (self.base - self.apex), 0, 1)
        return self.width * (0.52 + 0.48 * depth**0.55)

    def medial(self, side: Field | float, y: Field) -> Field:
        """|x| of the lungs' inner edge: mediastinum or heart. `side` is the sign of x."""
        centre, level, wide, high = self.heart
        reach = np.sqrt(np.clip(1 - ((y - level) / high) ** 2, 0, None)) * wide + np.sign(side) * centre
        return np.maximum(self.mediastinum + 0.02 * np.cos(5 * y), reach)

    def diaphragm(self, side: Field | float, across: Field) -> Field:
        """y of the dome at |x| = `across`; the patient's right one stands higher, over the liver."""
        return self.base + 0.04 * np.sign(side) + 1.3 * (across - 0.4) ** 2

    def top(self, across: Field) -> Field:
        return self.apex + 1.9 * (across - 0.36) ** 2

    def lungs(self, x: Field, y: Field) -> Field:
        """1 inside the lungs, 0 outside, smooth between."""
        across = np.abs(x)
        return (
            _step(self.lateral(y) - across, 0.012)
            * _step(across - self.medial(x, y), 0.015)
            * _step(y - self.top(across), 0.012)
            * _step(self.diaphragm(x, across) - y, 0.01)
        )

    def place(self, side: float, depth: float, out: float) -> tuple[float, float]:
        """(x, y) within the lung of that side: `depth` from apex 0 to base 1, `out` from the inner
        edge 0 to the outer edge 1."""
        y = self.apex + depth * (self.base - self.apex)
        inner, outer = float(self.medial(side, np.float32(y))), float(self.lateral(np.float32(y)))
        return side * (inner + out * (outer - inner)), y


def _posed_grid(
    height: int, width: int, person: np.random.Generator, moment: np.random.Generator
) -> tuple[Field, Field]:
    """Patient coordinates of every pixel: the patient is shifted, turned and scaled on the film."""
    angle = np.deg2rad(person.normal(0, 2.5) + moment.normal(0, 1.5))
    scale = person.uniform(0.88, 1.12) * moment.uniform(0.97, 1.03)
    shift = person.normal(0, 0.05, 2) + moment.normal(0, 0.025, 2)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] - np.float32(shift[0])
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :] - np.float32(shift[1])
    x = (columns * np.cos(angle) + rows * np.sin(angle)) / scale
    y = (rows * np.cos(angle) - columns * np.sin(angle)) / scale
    return x.astype(np.float32), y.astype(np.float32)


def _step(distance: Field, softness: float) -> Field:
    """0 for negative, 1 for positive distances, smooth over `softness`."""
    return 0.5 + 0.5 * np.tanh(distance / (2 * softness))


def _noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Field:
    """Smooth noise of mean 0 and deviation 1; blobs `scale` of the film's width in radius."""
    sigma = max(scale * shape[1], 0.5)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return (smooth - smooth.mean()) / (smooth.std() + 1e-6)


# Anatomy


def _draw_anatomy(
    chest: _Chest, lungs: Field, x: Field, y: Field, person: np.random.Generator, moment: np.random.Generator
) -> Field:
    across = np.abs(x)
    neck = 0.3 + 0.75 * _step(y + 0.8 + 0.12 * across, 0.035)
    body = _step(neck - across, 0.02) * _step(chest.width + 0.16 - across, 0.015)
    centre, level, wide, high = chest.heart
    heart = _step(1 - np.hypot((x - centre) / wide, (y - level) / high), 0.04)
    knob = _step(0.1 - np.hypot(x - 0.14, y + 0.26), 0.015)
    film = 0.6 * body
    film += 0.1 * _step(chest.mediastinum - across, 0.03) * body
    film += 0.08 * np.maximum(heart, knob) * body
    film += 0.12 * _step(y - chest.diaphragm(x, across), 0.02) * body
    film += _draw_bones(chest, x, y, person) * body
    film -= 0.1 * _step(0.045 - np.abs(x + 0.01), 0.012) * _step(-0.22 - y, 0.03)
    film -= 0.12 * person.integers(2) * _step(1 - np.hypot((x - 0.42) / 0.16, (y - chest.base - 0.2) / 0.09), 0.1)
    air = person.uniform(0.27, 0.35)
    film -= air * lungs * (1 + 0.12 * _noise(person, x.shape, 0.1))
    film += _draw_vessels(chest, x, y, person) * lungs
    return film + _draw_soft_tissue(chest, x, y, person)


def _draw_bones(chest: _Chest, x: Field, y: Field, person: np.random.Generator) -> Field:
    """Ribs behind and in front, collar bones, spine."""
    across = np.abs(x)
    cage = _step(chest.width + 0.05 - across, 0.02) * _step(y + 0.92, 0.05) * _step(0.95 - y, 0.1)
    behind = (y - chest.rib_slope * (across - 0.25) ** 2 * 2.2 + 0.1 * across) / chest.rib_gap + chest.rib_start
    front = (y + 1.2 * chest.rib_slope * across) / (1.15 * chest.rib_gap) + 1.7 * chest.rib_start
    bones = 0.06 * _rib(behind) * cage * _step(across - 0.08, 0.02)
    bones += 0.03 * _rib(front) * cage * _step(across - 0.35, 0.06)
    tilt = person.uniform(0.1, 0.3)
    collar = np.abs(y + 0.66 + tilt * (across - 0.1) + 0.05 * np.sin(6 * across))
    bones += 0.11 * _step(0.035 - collar, 0.01) * _step(across - 0.07, 0.02) * _step(0.85 - across, 0.03)
    bones += 0.07 * _step(0.085 - across, 0.02) * (1 + 0.4 * np.tanh(3 * np.sin(2 * np.pi * y / 0.15)))
    return bones


def _rib(phase: Field) -> Field:
    """One rib a period: a band with denser rims."""
    from_middle = np.abs(phase - np.floor(phase) - 0.5)
    return _step(0.22 - from_middle, 0.03) * (0.65 + 1.6 * from_middle)


def _draw_vessels(chest: _Chest, x: Field, y: Field, person: np.random.Generator) -> Field:
    """Vessels that taper from the hila outwards."""
    vessels = np.zeros_like(x)
    for side in (-1.0, 1.0):
        root_x, root_y = side * (chest.mediastinum + 0.05), -0.02
        vessels += 0.05 * np.exp(-(((x - root_x) / 0.07) ** 2) - ((y - root_y) / 0.13) ** 2)
        for _ in range(8):
            angle, length = person.uniform(-1.35, 1.35), person.uniform(0.3, 0.6)
            ahead = (x - root_x) * side * np.cos(angle) + (y - root_y) * np.sin(angle)
            beside = (y - root_y) * np.cos(angle) - (x - root_x) * side * np.sin(angle)
            beside = beside - person.uniform(-0.5, 0.5) * ahead**2
            left = np.clip(1 - ahead / length, 0, 1) * (ahead > 0)
            vessels += 0.07 * np.sqrt(left) * np.exp(-((beside / (0.008 + 0.014 * left)) ** 2))
    return vessels


def _draw_soft_tissue(chest: _Chest, x: Field, y: Field, person: np.random.Generator) -> Field:
    """Muscle, fat and breasts: broad shadows that lie over the lungs, in the sick and the well.

    They are as bright and as broad as the findings, so that brightness at a place says little.
    """
    tissue = 0.035 * _noise(person, x.shape, 0.12)
    amount, level, out = person.uniform(-0.03, 0.13), person.uniform(0.05, 0.45), person.uniform(0.4, 0.6)
    for side in (-1.0, 1.0):
        breast = np.hypot((x - side * out) / 0.36, (y - level) / 0.32)
        tissue += amount * _step(1 - breast, 0.12)
        tissue += person.uniform(-0.06, 0.06) * _step(x * side - 0.25, 0.1) * _step(0.3 - y, 0.2)
    rim = _step(np.abs(x) - chest.lateral(y) + 0.3, 0.07)
    return tissue + person.uniform(-0.05, 0.1) * rim * _step(0.9 * chest.width + 0.1 - np.abs(x), 0.05)


# Findings


@dataclass(frozen=True)
class _Lesion:
    """What a finding is drawn from: a chest on a film, and the two sources of chance."""

    chest: _Chest
    lungs: Field
    x: Field
    y: Field
    person: np.random.Generator
    moment: np.random.Generator

    def blob(self, side: float, depth: float, out: float, radius: float) -> Field:
        """Distance from a place, in radii, with an irregular outline."""
        across, down = self.chest.place(side, depth, out)
        stretch, angle = self.person.uniform(0.8, 1.25), self.person.uniform(0, np.pi)
        dx, dy = self.x - across, self.y - down
        along = (dx * np.cos(angle) + dy * np.sin(angle)) * stretch
        beside = (dy * np.cos(angle) - dx * np.sin(angle)) / stretch
        wobble = 1 + 0.13 * _noise(self.person, self.x.shape, 0.05)
        return np.hypot(along, beside) / radius * wobble


def _clear(lesion: _Lesion) -> tuple[Field, Mask]:
    return np.zeros_like(lesion.x), np.zeros(lesion.x.shape, bool)


def _consolidation(lesion: _Lesion) -> tuple[Field, Mask]:
    """One dense patch with dark branching lines (air bronchograms) anywhere in either lung."""
    rng = lesion.person
    side, depth, out = rng.choice((-1.0, 1.0)), rng.uniform(0.25, 0.9), rng.uniform(0.25, 0.75)
    distance = lesion.blob(side, depth, out, rng.uniform(0.22, 0.34))
    patch = _step(1 - distance, 0.07)
    strength = rng.uniform(0.28, 0.4) * lesion.moment.uniform(0.9, 1.1)
    bronchi = np.exp(-((_noise(rng, lesion.x.shape, 0.025) / 0.25) ** 2))
    return strength * patch * (1 - 0.45 * bronchi), distance < 1


def _ground_glass(lesion: _Lesion) -> tuple[Field, Mask]:
    """Fine mottling, bilateral, along the lungs' outer edge; on average hardly brighter than lung."""
    rng = lesion.person
    edge = lesion.chest.lateral(lesion.y) - np.abs(lesion.x)
    reach = rng.uniform(0.28, 0.42)
    middle, spread = rng.uniform(0.0, 0.2), rng.uniform(0.5, 0.7)
    zone = _step(reach - edge, 0.03) * _step(spread - np.abs(lesion.y - middle), 0.06)
    mottle = _noise(rng, lesion.x.shape, 0.011) - 0.6 * _noise(rng, lesion.x.shape, 0.04)
    strength = rng.uniform(0.09, 0.14) * lesion.moment.uniform(0.9, 1.1)
    return zone * (strength * mottle + 0.03), zone > 0.5


def _cavity(lesion: _Lesion) -> tuple[Field, Mask]:
    """A ring with a dark middle near the top of one lung."""
    rng = lesion.person
    side, depth, out = rng.choice((-1.0, 1.0)), rng.uniform(0.16, 0.42), rng.uniform(0.3, 0.7)
    distance = lesion.blob(side, depth, out, rng.uniform(0.17, 0.25))
    wall = np.exp(-(((distance - 0.8) / rng.uniform(0.16, 0.24)) ** 2))
    strength = rng.uniform(0.28, 0.4) * lesion.moment.uniform(0.9, 1.1)
    return strength * wall - 0.15 * _step(0.75 - distance, 0.08), distance < 1.05


#: Finding -> how it is drawn: opacity to be added within the lungs, and where it is.
FINDINGS: dict[str, Callable[[_Lesion], tuple[Field, Mask]]] = {
    "clear": _clear,
    "consolidation": _consolidation,
    "ground_glass": _ground_glass,
    "cavity": _cavity,
}


# Film


def _expose(film: Field, person: np.random.Generator, moment: np.random.Generator) -> NDArray[np.uint8]:
    """Grey pixels 0..255: exposure, contrast, gamma, a slope across the film, blur and grain."""
    height, width = film.shape
    contrast = person.uniform(0.85, 1.15) * moment.uniform(0.95, 1.05)
    brightness = person.normal(0, 0.05) + moment.normal(0, 0.02)
    gamma = np.exp(person.normal(0, 0.12))
    slope = person.normal(0, 0.04) * np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    slope = slope + person.normal(0, 0.04) * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    shown = np.clip(0.5 + contrast * (film + slope - 0.45) + brightness, 0, 1) ** gamma
    shown = ndimage.gaussian_filter(shown, person.uniform(0.2, 0.5) * width / 128)
    shown = shown + person.uniform(0.01, 0.02) * moment.standard_normal(film.shape, dtype=np.float32)
    return np.round(np.clip(shown, 0, 1) * 255).astype(np.uint8)


_LETTER = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)


def _stamp_marker(pixels: NDArray[np.uint8], moment: np.random.Generator) -> None:
    """A lead letter L in the upper right corner, a tenth of the film in height."""
    height, width = pixels.shape
    thick = max(1, round(width / 64))
    letter = np.kron(_LETTER, np.ones((thick, thick), bool))
    top = round(height * moment.uniform(0.03, 0.07))
    left = width - letter.shape[1] - round(width * moment.uniform(0.03, 0.07))
    pixels[top : top + letter.shape[0], left : left + letter.shape[1]][letter] = moment.integers(235, 256)
