"""Rows -> shuffled, augmented batches for training where Keras computes with JAX: without TensorFlow.

The order of an epoch is that of `input_pipeline`. What is drawn for an image is a function of the seed, the batch's
number and the image's place in the batch alone: each host makes its own share of every batch, and the batches are those
that one host would have made.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from chestxray.models import hosts
from chestxray.models.jax_forward import ahead
from chestxray.recipe import Recipe
from chestxray.training import input_pipeline, sampling
from chestxray.training.augmentation import AnyPolicy, Policy, augment, draws_of, mix, policy_of

Batch = tuple[Any, ...]


def training(
    pixels: np.ndarray, rows: np.ndarray, labels: np.ndarray, recipe: Recipe, *, first_epoch: int = 0
) -> Iterator[Batch]:
    """As `input_pipeline.training`; of every batch this host's share, see `hosts.share`."""
    policy = policy_of(recipe.augment)

    def load(item: tuple[int, int, np.ndarray]) -> Batch:
        _, number, places = item
        share = hosts.share(len(places))
        own = np.arange(len(places))[share]
        # An image is mixed with the one before it in the batch, which another host may have.
        seats = own if recipe.mix == "none" else np.r_[(own[0] - 1) % len(places), own]
        images = pixels[rows[places[seats]]][..., np.newaxis].astype(np.float32)
        targets = labels[places[seats]]
        streams = [np.random.default_rng([recipe.seed, number, int(seat)]) for seat in seats]
        draws = np.stack([stream.random(draws_of(policy), np.float32) for stream in streams])
        noise = np.zeros_like(images)
        if policy.noise:
            noise = np.stack([stream.standard_normal(images.shape[1:], np.float32) for stream in streams])
        changed = seen(images, draws, noise, policy)
        if recipe.mix != "none":
            of_batch = np.random.default_rng([recipe.seed, number]).random(4, np.float32)
            changed, targets = (part[1:] for part in _mixing(recipe.mix)(changed, targets, of_batch))
        # Keras joins the shares of several hosts from arrays of NumPy.
        return (changed, targets) if hosts.count() == 1 else (np.asarray(changed), np.asarray(targets))

    yield from ahead(load, _steps(recipe, labels, first_epoch))


def kept(
    views: Sequence[tuple[Sequence[np.ndarray], np.ndarray]],
    kinds: Sequence[str],
    rows: np.ndarray,
    labels: np.ndarray,
    recipe: Recipe,
    *,
    first_epoch: int = 0,
) -> Iterator[Batch]:
    """As `cached_features.Activations.training`. Each of `views` is its arrays and the places of the rows in them;
    `kinds` are the types of the arrays that the tail takes.
    """

    def load(item: tuple[int, int, np.ndarray]) -> Batch:
        epoch, _, some = item
        arrays, places = views[epoch % len(views)]
        return _inputs(arrays, kinds, places[some]), labels[some]

    yield from ahead(load, _steps(recipe, labels, first_epoch))


def labelled(
    arrays: Sequence[np.ndarray], kinds: Sequence[str], places: np.ndarray, labels: np.ndarray, batch_size: int
) -> Iterator[Batch]:
    """As `cached_features.Activations.labelled`."""

    def load(start: int) -> Batch:
        some = slice(start, start + batch_size)
        return _inputs(arrays, kinds, places[some]), labels[some]

    yield from ahead(load, range(0, len(places), batch_size))


def weighed(batches: Iterator[Batch], weights: dict[int, float] | None) -> Iterator[Batch]:
    """Yield (inputs, labels, weights) of `batches` with the weight of each row's class, as Keras's ``class_weight``,
    which a generator of batches does not take.
    """
    for inputs, labels in batches:
        if weights is None:
            yield inputs, labels
        else:
            of_classes = np.array([weights[number] for number in range(len(weights))], np.float32)
            yield inputs, labels, of_classes[np.argmax(np.asarray(labels), axis=-1)]


def seen(images: np.ndarray, draws: np.ndarray, noise: np.ndarray, policy: AnyPolicy) -> Any:
    """Return `augmentation.augment` of NumPy arrays, as an array of JAX."""
    return images if policy == Policy() else _augmenting(policy)(images, draws, noise)


@functools.cache
def _augmenting(policy: AnyPolicy) -> Callable[..., Any]:
    return jax.jit(lambda images, draws, noise: augment(images, draws, policy, noise))


@functools.cache
def _mixing(kind: str) -> Callable[..., Any]:
    return jax.jit(lambda images, labels, draws: mix(images, labels, draws, kind))


def _steps(recipe: Recipe, labels: np.ndarray, first_epoch: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the epoch, the number of the batch and the places of its rows, without end."""
    rows = len(labels)
    batch = min(recipe.batch_size, rows)
    steps = input_pipeline.steps_per_epoch(rows, batch)
    factors = sampling.factors(labels, recipe)
    for epoch in itertools.count(first_epoch):
        for step, places in enumerate(input_pipeline.order(recipe.seed, epoch, rows, batch, factors)):
            yield epoch, epoch * steps + step, places


def _inputs(arrays: Sequence[np.ndarray], kinds: Sequence[str], places: np.ndarray) -> Any:
    given = tuple(array[places].astype(kind) for array, kind in zip(arrays, kinds, strict=True))
    return given[0] if len(given) == 1 else given
