"""The checks of an `AugmentationPlugin`."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from chestxray.testing.method_checks import Method, check_fields, check_import, check_metadata, check_name
from chestxray.testing.results import Check, CheckFailed, CheckSkipped

ROWS, HEIGHT, WIDTH = 16, 24, 20


def check_values(method: Method) -> None:
    """Images keep their shape and their kind, and stay finite and within 0..255."""
    black = np.zeros((ROWS, HEIGHT, WIDTH, 1), np.float32)
    for images in (_images(), black, black + 255):
        found = _changed(method, images, 0)
        if found.shape != images.shape or found.dtype != np.float32:
            raise CheckFailed(f"augment must keep {images.shape} of float32. Received: {found.shape} of {found.dtype}")
        if not np.isfinite(found).all():
            raise CheckFailed("augment returns numbers that are not finite")
        if found.min() < -1e-3 or found.max() > 255 + 1e-3:
            raise CheckFailed(
                f"augment must stay within 0..255. Received: {found.min():g} to {found.max():g}",
                "end with keras.ops.clip(images, 0, 255)",
            )


def check_repeats(method: Method) -> None:
    """The same draws give the same images."""
    once, twice = (_changed(method, _images(), 0) for _ in range(2))
    if not np.array_equal(once, twice):
        raise CheckFailed("the same draws give other images", "take all randomness from draws and noise")


def check_draws(method: Method) -> None:
    """Other draws give other images."""
    if np.allclose(_changed(method, _images(), 0), _changed(method, _images(), 1)):
        raise CheckFailed("other draws give the same images", "use draws, which are uniform in 0..1")


def check_rows(method: Method) -> None:
    """What becomes of an image does not depend on the others of the batch."""
    images = _images()
    others = images.copy()
    others[1:] = 255 - others[1:]
    if not np.allclose(_changed(method, images, 0)[0], _changed(method, others, 0)[0], atol=1e-2):
        raise CheckFailed("an image depends on the others of the batch", "reduce over height and width alone")


def check_graph(method: Method) -> None:
    """It gives the same in a compiled graph, in which training runs it."""
    plain = _changed(method, _images(), 0)
    draws, noise = _random(method, 0)
    compiled = np.asarray(tf.function(method.function)(tf.constant(_images()), draws, noise))
    if not np.allclose(plain, compiled, atol=1e-2):
        raise CheckFailed("in a graph it gives other images", "compute with keras.ops alone, never with numpy")


def check_mirror(method: Method) -> None:
    """No image is mirrored side to side, unless `mirrors` says so."""
    if method.plugin.mirrors:
        raise CheckSkipped("mirrors is declared")
    ramp = np.broadcast_to(np.linspace(40, 210, WIDTH, dtype=np.float32)[None, None, :, None], (ROWS, HEIGHT, WIDTH, 1))
    centred = np.linspace(-1, 1, WIDTH)
    for seed in range(4):
        slopes = (_changed(method, ramp, seed)[..., 0].mean(axis=1) * centred).mean(axis=1)
        if (slopes < -1).any():
            raise CheckFailed(
                "images are mirrored side to side, which puts the heart on the wrong side",
                "state mirrors=True if that is meant",
            )


AUGMENTATION_CHECKS = (
    Check(check_fields),
    Check(check_metadata),
    Check(check_name),
    Check(check_values, needs=("fields",)),
    Check(check_repeats, needs=("values",)),
    Check(check_draws, needs=("repeats",)),
    Check(check_rows, needs=("repeats",)),
    Check(check_graph, needs=("repeats",)),
    Check(check_mirror, needs=("repeats",)),
    Check(check_import),
)


def _images() -> np.ndarray:
    """Drawn images with a smooth part, float32 (rows, height, width, 1)."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.uniform(0, 255, (ROWS, HEIGHT // 4, WIDTH // 4)), np.ones((1, 4, 4)))
    return coarse[..., None].astype(np.float32)


def _random(method: Method, seed: int) -> tuple[tf.Tensor, tf.Tensor | None]:
    rng = np.random.default_rng(seed)
    draws = tf.constant(rng.random((ROWS, method.plugin.draws), np.float32))
    noise = tf.constant(rng.standard_normal((ROWS, HEIGHT, WIDTH, 1), np.float32))
    return draws, noise if method.plugin.noise else None


def _changed(method: Method, images: np.ndarray, seed: int) -> np.ndarray:
    return np.asarray(method.function(tf.constant(images), *_random(method, seed)))
