"""Finding the lungs of films, and telling where none were found."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from scipy import ndimage

from chestxray_lungs.network import SIDE, load

WEIGHTS = Path(__file__).with_name("lungs.safetensors")
BATCH = 32
#: A lung is at least this share of the other: both are to be found.
SMALLER = 0.2


@cache
def _shipped() -> tuple[keras.Model, dict[str, float]]:
    model, facts = load(WEIGHTS)
    return model, {name: float(facts[name]) for name in ("least_share", "greatest_share", "least_certainty")}


def prepared(pixels: np.ndarray) -> np.ndarray:
    """Return films (n, h, w), grey values, as the network's input: float32 (n, SIDE, SIDE, 1), each of mean 0 and
    deviation 1. A film of one grey is 0.
    """
    films = np.stack([_resized(film, (SIDE, SIDE)) for film in pixels])[..., None]
    mean, deviation = films.mean(axis=(1, 2, 3), keepdims=True), films.std(axis=(1, 2, 3), keepdims=True)
    return (films - mean) / np.maximum(deviation, 1)


def probabilities(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """Return the probability of each pixel's being lung, float32 (n, SIDE, SIDE), of films (n, h, w)."""
    found = []
    for start in range(0, len(pixels), BATCH):
        films = prepared(pixels[start : start + BATCH])
        # One shape for all batches: each shape would be traced anew.
        filled = np.concatenate([films, np.zeros((BATCH - len(films), *films.shape[1:]), np.float32)])
        found.append(model.predict_on_batch(filled)[: len(films), ..., 0])
    return 1 / (1 + np.exp(-np.concatenate(found)))


def lungs_of(probability: np.ndarray) -> np.ndarray:
    """Return the two largest parts of probability above a half, without holes: bool (SIDE, SIDE)."""
    parts, count = ndimage.label(probability > 0.5)
    if not count:
        return np.zeros(probability.shape, bool)
    sizes = np.bincount(parts.ravel())[1:]
    largest = 1 + np.argsort(-sizes, kind="stable")[:2]
    return ndimage.binary_fill_holes(np.isin(parts, largest))


def certainty(probability: np.ndarray, lungs: np.ndarray) -> float:
    """Return the mean probability within the lungs that were found, 0 where none were."""
    return float(probability[lungs].mean()) if lungs.any() else 0.0


def plausible(probability: np.ndarray, lungs: np.ndarray, facts: dict[str, float]) -> bool:
    """Return whether what was found can be two lungs: two parts side by side, neither much smaller than the other,
    whose share of the film and whose certainty are within what training films have (`facts`).
    """
    parts, count = ndimage.label(lungs)
    if count != 2 or not facts["least_share"] <= lungs.mean() <= facts["greatest_share"]:
        return False
    sizes = np.bincount(parts.ravel())[1:]
    (top, left), (bottom, right) = ndimage.center_of_mass(lungs, parts, [1, 2])
    beside = abs(left - right) > abs(top - bottom)
    return beside and sizes.min() >= SMALLER * sizes.max() and certainty(probability, lungs) >= facts["least_certainty"]


def masks(pixels: np.ndarray) -> np.ndarray:
    """Return the lungs of films: see `chestxray.plugin.SegmenterPlugin`."""
    model, facts = _shipped()
    found = np.zeros(pixels.shape, bool)
    for number, probability in enumerate(probabilities(model, pixels) if len(pixels) else ()):
        lungs = lungs_of(probability)
        if plausible(probability, lungs, facts):
            # What was left out as a third part stays out when enlarged.
            kept = np.where(ndimage.binary_dilation(lungs), probability, 0)
            # A hole that was filled stays filled.
            found[number] = _resized(np.maximum(kept, 0.75 * lungs), pixels.shape[1:]) > 0.5
    return found


def _resized(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return `values` (h, w) at `size` (height, width), float32; bilinear, averaged where it is smaller."""
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
