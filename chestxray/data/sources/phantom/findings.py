"""The findings of a phantom: the opacity to be added within the lungs, and the mask of the finding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chestxray.data.sources.phantom.anatomy import HEART_LEAN, Chest, Field, Mask, smooth_noise, step


@dataclass(frozen=True)
class Lesion:
    """What a finding is drawn from: a chest on a film, and random generators for the patient and for the image."""

    chest: Chest
    lungs: Field
    x: Field
    y: Field
    person: np.random.Generator
    moment: np.random.Generator

    def noise(self, scale: float) -> Field:
        """Return smooth noise that is fixed to the patient, see `smooth_noise`."""
        return smooth_noise(self.person, self.x, self.y, scale)

    def blob(self, side: float, depth: float, out: float, radius: float) -> Field:
        """Return the distance from a location (see `Chest.place`) in units of `radius`, with an irregular outline."""
        across, down = self.chest.place(side, depth, out)
        stretch, angle = self.person.uniform(0.8, 1.25), self.person.uniform(0, math.pi)
        dx, dy = self.x - across, self.y - down
        cosine, sine = math.cos(angle), math.sin(angle)
        along = (dx * cosine + dy * sine) * stretch
        beside = (dy * cosine - dx * sine) / stretch
        wobble = 1 + 0.13 * self.noise(0.1)
        return np.hypot(along, beside) / radius * wobble


def _clear(lesion: Lesion) -> tuple[Field, Mask]:
    return np.zeros_like(lesion.x), np.zeros(lesion.x.shape, bool)


def _consolidation(lesion: Lesion) -> tuple[Field, Mask]:
    """One dense patch with dark branching lines (air bronchograms) anywhere in either lung."""
    rng = lesion.person
    side, depth, out = rng.choice((-1.0, 1.0)), rng.uniform(0.15, 0.92), rng.uniform(0.25, 0.75)
    distance = lesion.blob(side, depth, out, rng.uniform(0.26, 0.37))
    patch = step(1 - distance, 0.07)
    strength = rng.uniform(0.34, 0.44) * lesion.moment.uniform(0.9, 1.1)
    bronchi = np.exp(-((lesion.noise(0.045) / 0.55) ** 2))
    return strength * patch * (1 - 1.25 * bronchi), distance < 1


def _ground_glass(lesion: Lesion) -> tuple[Field, Mask]:
    """Fine mottling, bilateral, along the lungs' outer edge; on average hardly brighter than lung."""
    rng = lesion.person
    edge = lesion.chest.lateral(lesion.y) - np.abs(lesion.x)
    reach = rng.uniform(0.28, 0.42)
    middle, spread = rng.uniform(0.0, 0.2), rng.uniform(0.5, 0.7)
    zone = step(reach - edge, 0.05) * step(spread - np.abs(lesion.y - middle), 0.08)
    mottle = lesion.noise(0.022) - 0.6 * lesion.noise(0.08)
    strength = rng.uniform(0.08, 0.12) * lesion.moment.uniform(0.9, 1.1)
    return zone * (strength * mottle + 0.03), zone > 0.5


def _cavity(lesion: Lesion) -> tuple[Field, Mask]:
    """A ring with a dark centre near the apex of one lung."""
    rng = lesion.person
    side, depth, out = rng.choice((-1.0, 1.0)), rng.uniform(0.16, 0.42), rng.uniform(0.3, 0.7)
    distance = lesion.blob(side, depth, out, rng.uniform(0.18, 0.26))
    wall = np.exp(-(((distance - 0.8) / rng.uniform(0.16, 0.24)) ** 2))
    strength = rng.uniform(0.28, 0.38) * lesion.moment.uniform(0.9, 1.1)
    return strength * wall - 0.24 * step(0.75 - distance, 0.08), distance < 1.05


#: Finding -> the function that draws it: returns the opacity to be added within the lungs, and its mask.
FINDINGS: dict[str, Callable[[Lesion], tuple[Field, Mask]]] = {
    "clear": _clear,
    "consolidation": _consolidation,
    "ground_glass": _ground_glass,
    "cavity": _cavity,
}


def _cardiomegaly(lesion: Lesion) -> tuple[Field, Mask]:
    """The heart widened into both lungs."""
    centre, level, wide, high = lesion.chest.heart
    rng = lesion.person
    wide, high = wide * rng.uniform(1.4, 1.6), high * rng.uniform(1.15, 1.3)
    distance = np.hypot((lesion.x - centre - HEART_LEAN * (lesion.y - level)) / wide, (lesion.y - level) / high)
    return 0.38 * step(1 - distance, 0.03), distance < 1


def _effusion(lesion: Lesion) -> tuple[Field, Mask]:
    """Fluid at the base of one lung, or of both, its upper edge rising towards the chest wall (the meniscus)."""
    rng, chest = lesion.person, lesion.chest
    sides = rng.choice(3, p=(0.4, 0.4, 0.2))
    across = np.abs(lesion.x)
    depth = rng.uniform(0.16, 0.38) * lesion.moment.uniform(0.85, 1.15)
    meniscus = 0.16 * np.clip(1 - (chest.lateral(lesion.y) - across) / 0.22, 0, 1) ** 2
    above = lesion.y - (chest.base + 0.08 - depth - meniscus)
    fluid = step(above, 0.02)
    if sides < 2:
        fluid = fluid * (lesion.x * (1 if sides else -1) > 0)
    return 0.38 * fluid, fluid > 0.5


def _nodule(lesion: Lesion) -> tuple[Field, Mask]:
    """One round shadow with a sharp edge, anywhere in either lung."""
    rng = lesion.person
    side, depth, out = rng.choice((-1.0, 1.0)), rng.uniform(0.15, 0.8), rng.uniform(0.3, 0.75)
    across, down = lesion.chest.place(side, depth, out)
    distance = np.hypot(lesion.x - across, lesion.y - down) / rng.uniform(0.085, 0.125)
    return rng.uniform(0.32, 0.4) * step(1 - distance, 0.08), distance < 1


def _pneumothorax(lesion: Lesion) -> tuple[Field, Mask]:
    """Black air between one lung and the chest wall, from the apex down, bounded by the thin line of the pleura."""
    rng, chest = lesion.person, lesion.chest
    side = rng.choice((-1.0, 1.0))
    reach = rng.uniform(0.16, 0.26) * lesion.moment.uniform(0.9, 1.1)
    across = np.abs(lesion.x)
    # Wide at the apex, thin at the base.
    rim = np.minimum(chest.lateral(lesion.y) - across, 1.2 * (lesion.y - chest.top(across)))
    rim = rim + 0.12 * np.clip((lesion.y - chest.apex) / (chest.base - chest.apex), 0, 1)
    here = (lesion.x * side > 0).astype(rim.dtype)
    air = step(reach - rim, 0.012) * here
    pleura = np.exp(-(((rim - reach) / 0.014) ** 2)) * here
    return 0.16 * pleura - 0.14 * air, air > 0.5


#: Findings that one chest may have together -> the function that draws each, as for `FINDINGS`. New ones go to the
#: end, since the number of a finding is part of the seed of its place.
COEXISTING: dict[str, Callable[[Lesion], tuple[Field, Mask]]] = {
    "Cardiomegaly": _cardiomegaly,
    "Cavity": _cavity,
    "Consolidation": _consolidation,
    "Effusion": _effusion,
    "Nodule": _nodule,
    "Pneumothorax": _pneumothorax,
}
