"""The chest of a phantom: its shape, its pose on the film, and everything that is not a finding.

The anatomy is defined in patient coordinates: x from -1 (left edge of the film, the patient's right)
to 1, y from -1 (top) to 1 (bottom). Grey values are on a scale of 0 (air) to 1 (metal) until the film
is exposed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

#: How far the heart leans to the patient's left, going down.
HEART_LEAN = 0.3


@dataclass(frozen=True)
class Chest:
    """Shape of one chest at one phase of breathing; lengths in patient coordinates."""

    apex: float
    base: float
    width: float
    heart: tuple[float, float, float, float]
    mediastinum: float
    rib_gap: float
    rib_start: float
    rib_slope: float

    @classmethod
    def of(cls, person: np.random.Generator, moment: np.random.Generator) -> Chest:
        breath = person.normal(0, 0.05) + moment.normal(0, 0.025)
        size = person.uniform(0.27, 0.37)
        return cls(
            apex=-0.8 + person.uniform(-0.05, 0.05),
            base=0.5 + float(np.clip(breath, -0.14, 0.14)),
            width=person.uniform(0.74, 0.86),
            heart=(person.uniform(0.08, 0.15), 0.34 + 0.5 * breath, size, size * person.uniform(0.75, 0.95)),
            mediastinum=person.uniform(0.11, 0.16),
            rib_gap=person.uniform(0.17, 0.22),
            rib_start=person.uniform(0, 1) + 0.6 * breath,
            rib_slope=person.uniform(0.2, 0.42),
        )

    def lateral(self, y: Field) -> Field:
        """Return |x| of the lungs' outer edge at height `y`."""
        depth = np.clip((y - self.apex) / (self.base - self.apex), 0, 1)
        return self.width * (0.52 + 0.48 * depth**0.55)

    def medial(self, side: Field | float, y: Field) -> Field:
        """Return |x| of the lungs' inner edge, mediastinum or heart, at height `y`. `side` is the sign of x."""
        centre, level, wide, high = self.heart
        reach = np.sqrt(np.clip(1 - ((y - level) / high) ** 2, 0, None)) * wide
        reach = reach + np.sign(side) * (centre + HEART_LEAN * (y - level))
        return np.maximum(self.mediastinum + 0.02 * np.cos(5 * y), reach)

    def diaphragm(self, side: Field | float, across: Field) -> Field:
        """Return y of the diaphragm at |x| = `across`; the patient's right dome is higher, above the liver."""
        return self.base + 0.04 * np.sign(side) + 1.3 * (across - 0.4) ** 2

    def top(self, across: Field) -> Field:
        return self.apex + 1.9 * (across - 0.36) ** 2

    def lungs(self, x: Field, y: Field) -> Field:
        """Return 1 inside the lungs and 0 outside, with a smooth transition."""
        across = np.abs(x)
        return (
            step(self.lateral(y) - across, 0.012)
            * step(across - self.medial(x, y), 0.015)
            * step(y - self.top(across), 0.012)
            * step(self.diaphragm(x, across) - y, 0.01)
        )

    def place(self, side: float, depth: float, out: float) -> tuple[float, float]:
        """Return (x, y) in the lung of that side: `depth` from 0 (apex) to 1 (base), `out` from 0 (inner edge) to 1."""
        y = self.apex + depth * (self.base - self.apex)
        level = np.asarray(y)
        inner, outer = float(self.medial(side, level)), float(self.lateral(level))
        return side * (inner + out * (outer - inner)), y


def posed_grid(
    height: int, width: int, person: np.random.Generator, moment: np.random.Generator
) -> tuple[Field, Field]:
    """Return the patient coordinates (x, y) of every pixel; the patient is shifted, rotated and scaled on the film."""
    angle = math.radians(person.normal(0, 2.5) + moment.normal(0, 1.5))
    cosine, sine = math.cos(angle), math.sin(angle)
    scale = person.uniform(0.9, 1.1) * moment.uniform(0.97, 1.03)
    shift = person.normal(0, 0.04, 2) + moment.normal(0, 0.025, 2)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] - np.float32(shift[0])
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :] - np.float32(shift[1])
    return (columns * cosine + rows * sine) / scale, (rows * cosine - columns * sine) / scale


def step(distance: Field, softness: float) -> Field:
    """Return 0 for negative and 1 for positive distances, with a smooth transition over `softness`."""
    return 0.5 + 0.5 * np.tanh(distance / (2 * softness))


#: Standard deviation of white noise on a lattice after cubic B-spline interpolation.
_SPLINE_DEVIATION = 151 / 315
_LATTICE_REACH = 1.7


def smooth_noise(rng: np.random.Generator, x: Field, y: Field, scale: float) -> Field:
    """Return smooth noise of mean 0 and standard deviation 1 at (`x`, `y`), with blobs of radius `scale`.

    It is fixed to the patient, not to the film: two images of one patient show the same pattern,
    whatever their pose and size.
    """
    # A cubic B-spline is nearly a Gaussian with a standard deviation of 0.577 lattice spacings.
    spacing = scale / 0.577
    points = int(2 * _LATTICE_REACH / spacing) + 2
    lattice = rng.standard_normal((points, points), dtype=np.float32)
    where = np.stack([(y + _LATTICE_REACH) / spacing, (x + _LATTICE_REACH) / spacing])
    return ndimage.map_coordinates(lattice, where, order=3, prefilter=False, mode="mirror") / _SPLINE_DEVIATION


def draw_anatomy(chest: Chest, lungs: Field, x: Field, y: Field, person: np.random.Generator) -> Field:
    """Return the grey values of a chest without a finding."""
    across = np.abs(x)
    neck = 0.3 + 0.75 * step(y + 0.8 + 0.12 * across, 0.035)
    body = step(neck - across, 0.02) * step(chest.width + 0.16 - across, 0.015)
    centre, level, wide, high = chest.heart
    leaning = x - centre - HEART_LEAN * (y - level)
    heart = step(1 - np.hypot(leaning / wide, (y - level) / high), 0.04)
    knob = step(0.1 - np.hypot(x - 0.14, y + 0.26), 0.015)
    film = 0.6 * body
    film += 0.1 * step(chest.mediastinum - across, 0.03) * body
    film += 0.08 * np.maximum(heart, knob) * body
    film += 0.12 * step(y - chest.diaphragm(x, across), 0.02) * body
    film += _draw_bones(chest, x, y, person) * body
    film -= 0.1 * step(0.045 - np.abs(x + 0.01), 0.012) * step(-0.22 - y, 0.03)
    stomach = step(1 - np.hypot((x - 0.42) / 0.16, (y - chest.base - 0.2) / 0.09), 0.1)
    film -= 0.12 * person.integers(2) * stomach
    air = person.uniform(0.29, 0.36)
    film -= air * lungs * (1 + 0.12 * smooth_noise(person, x, y, 0.2))
    film += _draw_vessels(chest, x, y, person) * lungs
    return film + _draw_soft_tissue(chest, x, y, person) * body


def _draw_bones(chest: Chest, x: Field, y: Field, person: np.random.Generator) -> Field:
    """Return the opacity of posterior and anterior ribs, clavicles and spine."""
    across = np.abs(x)
    cage = step(chest.width + 0.05 - across, 0.02) * step(y + 0.92, 0.05) * step(0.95 - y, 0.1)
    arch = y - 2.2 * chest.rib_slope * (across - 0.25) ** 2 + 0.1 * across
    behind = arch / chest.rib_gap + chest.rib_start
    front = (y + 1.2 * chest.rib_slope * across) / (1.15 * chest.rib_gap) + 1.7 * chest.rib_start
    bones = 0.07 * _rib(behind) * cage * step(across - 0.08, 0.02)
    bones += 0.03 * _rib(front) * cage * step(across - 0.35, 0.06)
    tilt = person.uniform(0.1, 0.3)
    collar = np.abs(y + 0.66 + tilt * (across - 0.1) + 0.05 * np.sin(6 * across))
    bones += 0.11 * step(0.035 - collar, 0.01) * step(across - 0.07, 0.02) * step(0.85 - across, 0.03)
    bones += 0.07 * step(0.085 - across, 0.02) * (1 + 0.4 * np.tanh(3 * np.sin(2 * np.pi * y / 0.15)))
    return bones


def _rib(phase: Field) -> Field:
    """Return one rib per period of `phase`: a band with denser edges."""
    from_middle = np.abs(phase - np.floor(phase) - 0.5)
    return step(0.22 - from_middle, 0.03) * (0.65 + 1.6 * from_middle)


def _draw_vessels(chest: Chest, x: Field, y: Field, person: np.random.Generator) -> Field:
    """Return the opacity of vessels that taper from the hila outwards."""
    vessels = np.zeros_like(x)
    for side in (-1.0, 1.0):
        root_x, root_y = side * (chest.mediastinum + 0.05), -0.02
        vessels += 0.05 * np.exp(-(((x - root_x) / 0.07) ** 2) - ((y - root_y) / 0.13) ** 2)
        for _ in range(8):
            angle, length = person.uniform(-1.35, 1.35), person.uniform(0.3, 0.6)
            cosine, sine = math.cos(angle), math.sin(angle)
            ahead = (x - root_x) * side * cosine + (y - root_y) * sine
            beside = (y - root_y) * cosine - (x - root_x) * side * sine
            beside = beside - person.uniform(-0.5, 0.5) * ahead**2
            left = np.clip(1 - ahead / length, 0, 1) * (ahead > 0)
            vessels += 0.05 * np.sqrt(left) * np.exp(-((beside / (0.008 + 0.014 * left)) ** 2))
    return vessels


def _draw_soft_tissue(chest: Chest, x: Field, y: Field, person: np.random.Generator) -> Field:
    """Return the opacity of muscle, fat and breasts: broad shadows over the lungs, with and without a finding.

    They are as bright and as broad as the findings, so that the brightness at a location says little.
    """
    tissue = 0.025 * smooth_noise(person, x, y, 0.24)
    amount, level, out = person.uniform(-0.02, 0.08), person.uniform(0.05, 0.45), person.uniform(0.4, 0.6)
    for side in (-1.0, 1.0):
        breast = np.hypot((x - side * out) / 0.36, (y - level) / 0.32)
        tissue += amount * step(1 - breast, 0.12)
        tissue += person.uniform(-0.04, 0.04) * step(x * side - 0.25, 0.1) * step(0.3 - y, 0.2)
    rim = step(np.abs(x) - chest.lateral(y) + 0.3, 0.07)
    return tissue + person.uniform(-0.04, 0.07) * rim * step(0.9 * chest.width + 0.1 - np.abs(x), 0.05)
