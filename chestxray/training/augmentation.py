"""Augmentation as a pure function of images and uniform draws, in keras.ops.

The draws come from the pipeline, numbered by seed, epoch and step: what an image becomes in an
epoch does not depend on how many threads there are or on where a run was resumed.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras import ops

from chestxray import registry
from chestxray.plugin import AugmentationPlugin
from chestxray.recipe import AUGMENTATIONS

Tensor = Any


@dataclass(frozen=True)
class Policy:
    """Ranges of random change. Angles in degrees, shifts as shares of the side, zoom and contrast
    as shares around 1, brightness and noise in grey levels of 255, flip and erase as probabilities.

    ``crop`` is the share of the area that a window on the image may lack, its sides in a ratio of
    3:4 to 4:3, as torchvision's RandomResizedCrop; it takes the place of shift, zoom and shear.
    """

    rotation: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    flip: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    crop: float = 0.0


#: A mirrored chest has its heart on the wrong side, so that ``light`` never flips.
POLICIES = {
    "none": Policy(),
    "light": Policy(rotation=7, shift=0.05, zoom=0.07, contrast=0.15, brightness=15),
    "heavy": Policy(
        rotation=15,
        shift=0.1,
        zoom=0.15,
        shear=0.1,
        flip=0.5,
        contrast=0.3,
        brightness=30,
        noise=8,
        erase=0.3,
    ),
    "crop": Policy(crop=0.2, rotation=15, flip=0.5, contrast=0.2, brightness=25),
}
#: Uniform draws that `augment` uses of each image for a policy of our own.
DRAWS = 14
#: A policy of our own, or that of a plugin.
AnyPolicy = Policy | AugmentationPlugin


def policy_of(name: str) -> AnyPolicy:
    """Return one of `POLICIES` or a plugin's. Raises as `registry.find` and `registry.load_entry`."""
    if name in POLICIES:
        return POLICIES[name]
    entry = registry.find(registry.AUGMENTATIONS, name, AUGMENTATIONS)
    plugin: AugmentationPlugin = registry.load_entry(registry.AUGMENTATIONS, entry)
    return plugin


def identity(name: str) -> str:
    """Return what distinguishes the policy from others of its name: of a plugin its version and the text of its module;
    ``""`` for one of `POLICIES`.
    """
    if name in POLICIES:
        return ""
    entry = registry.find(registry.AUGMENTATIONS, name, AUGMENTATIONS)
    source = inspect.getsourcefile(sys.modules[registry.load_entry(registry.AUGMENTATIONS, entry).augment.__module__])
    text = Path(source).read_bytes() if source else b""
    return f"{entry.qualified} {entry.version} {hashlib.blake2b(text, digest_size=16).hexdigest()}"


def draws_of(policy: AnyPolicy) -> int:
    """Return how many uniform draws `augment` uses of each image."""
    return DRAWS if isinstance(policy, Policy) else policy.draws


def augment(images: Tensor, draws: Tensor, policy: AnyPolicy, noise: Tensor | None = None) -> Tensor:
    """Change each image at random within the ranges of `policy`, or as a plugin does.

    `images`: float32 (batch, height, width, channels) in 0..255, returned as the same;
    `draws`: float32 (batch, `draws_of`) uniform in 0..1; `noise`: standard normal, shaped as `images`,
    needed where the policy has noise. The same draws give the same images.
    """
    if isinstance(policy, AugmentationPlugin):
        return ops.clip(policy.augment(images, draws, noise if policy.noise else None), 0.0, 255.0)
    if policy == Policy():
        return images
    images = _warp(images, draws, policy)
    contrast = 1 + policy.contrast * _signed(draws[:, 6])
    brightness = policy.brightness * _signed(draws[:, 7])
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    images = (images - mean) * _wide(contrast) + mean + _wide(brightness)
    if policy.noise:
        images = images + policy.noise * _wide(draws[:, 8]) * noise
    if policy.erase:
        images = _erase(images, draws, policy.erase)
    return ops.clip(images, 0.0, 255.0)


def _signed(draw: Tensor) -> Tensor:
    return 2 * draw - 1


def _wide(values: Tensor) -> Tensor:
    return ops.reshape(values, (-1, 1, 1, 1))


def _warp(images: Tensor, draws: Tensor, policy: Policy) -> Tensor:
    """Rotation, zoom, shear, flip and shift about the centre in a single interpolation."""
    height, width = images.shape[1], images.shape[2]
    angle = policy.rotation * math.pi / 180 * _signed(draws[:, 0])
    mirror = ops.where(draws[:, 3] < policy.flip, -1.0, 1.0)
    if policy.crop:
        tall, wide = _window(draws, policy.crop)
        shear = ops.zeros_like(angle)
        # The window's middle lies where the whole window is in the image.
        down = (height - 1) * (1 - tall) / 2 * _signed(draws[:, 4])
        right = (width - 1) * (1 - wide) / 2 * _signed(draws[:, 5])
    else:
        tall = wide = 1 + policy.zoom * _signed(draws[:, 1])
        shear = policy.shear * _signed(draws[:, 2])
        down = policy.shift * height * _signed(draws[:, 4])
        right = policy.shift * width * _signed(draws[:, 5])
    cos, sin = ops.cos(angle), ops.sin(angle)
    # Rows of the matrix that takes an output point to the input point it shows.
    a0, a1 = mirror * wide * cos, mirror * wide * (shear * cos - sin)
    b0, b1 = tall * sin, tall * (shear * sin + cos)
    x, y = (width - 1) / 2, (height - 1) / 2
    a2 = x - a0 * x - a1 * y + right
    b2 = y - b0 * x - b1 * y + down
    zero = ops.zeros_like(a0)
    matrices = ops.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)
    # Channels last is said here, since the policy must not depend on a user's global setting.
    return ops.image.affine_transform(
        images, matrices, interpolation="bilinear", fill_mode="constant", data_format="channels_last"
    )


def _window(draws: Tensor, lack: float) -> tuple[Tensor, Tensor]:
    """Height and width of a window, as shares of the image's, each (batch,)."""
    side = ops.sqrt(1 - lack * draws[:, 1])
    stretch = ops.exp(math.log(4 / 3) / 2 * _signed(draws[:, 2]))
    # torchvision draws anew where the window would not fit; a side that is cut off is as near.
    return ops.minimum(side / stretch, 1.0), ops.minimum(side * stretch, 1.0)


def _erase(images: Tensor, draws: Tensor, probability: float) -> Tensor:
    """Blacken a rectangle of a tenth to a third of each side (DeVries and Taylor 2017, cutout)."""
    height, width = images.shape[1], images.shape[2]
    rows = ops.reshape(ops.arange(height, dtype="float32"), (1, -1, 1, 1)) / height
    columns = ops.reshape(ops.arange(width, dtype="float32"), (1, 1, -1, 1)) / width
    tall, wide = 0.05 + 0.12 * _wide(draws[:, 9]), 0.05 + 0.12 * _wide(draws[:, 10])
    inside = ops.logical_and(ops.abs(rows - _wide(draws[:, 11])) < tall, ops.abs(columns - _wide(draws[:, 12])) < wide)
    hit = ops.logical_and(inside, _wide(draws[:, 13]) < probability)
    return ops.where(hit, 0.0, images)


def mix(images: Tensor, labels: Tensor, draws: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Mix each image with its neighbour in the batch, labels in the same shares.

    `labels`: float32 (batch, classes); `draws`: float32 (4,) uniform in 0..1.
    ``mixup`` (Zhang 2018) with the share Beta(.2, .2); ``cutmix`` (Yun 2019) with a rectangle whose
    area is uniform.
    """
    if kind == "none":
        return images, labels
    partner, partner_labels = ops.roll(images, 1, axis=0), ops.roll(labels, 1, axis=0)
    if kind == "mixup":
        share = _beta_share(draws[0])
        return share * images + (1 - share) * partner, share * labels + (1 - share) * partner_labels
    height, width = images.shape[1], images.shape[2]
    side = ops.sqrt(draws[0])
    rows = ops.reshape(ops.arange(height, dtype="float32"), (1, -1, 1, 1)) / height
    columns = ops.reshape(ops.arange(width, dtype="float32"), (1, 1, -1, 1)) / width
    pasted = ops.logical_and(ops.abs(rows - draws[1]) < side / 2, ops.abs(columns - draws[2]) < side / 2)
    pasted = ops.cast(pasted, "float32")
    share = 1 - ops.mean(pasted)
    return images * (1 - pasted) + partner * pasted, share * labels + (1 - share) * partner_labels


def _beta_share(draw: Tensor) -> Tensor:
    """A draw of max(b, 1 - b), b ~ Beta(.2, .2), from a uniform one, through a table of quantiles."""
    from scipy.stats import beta

    quantiles = beta.ppf([i / 64 for i in range(65)], 0.2, 0.2)
    table = ops.convert_to_tensor([max(q, 1 - q) for q in quantiles], dtype="float32")
    place = draw * 64
    low = ops.cast(ops.floor(place), "int32")
    part = place - ops.floor(place)
    high = ops.minimum(low + 1, 64)
    return (1 - part) * ops.take(table, low) + part * ops.take(table, high)
