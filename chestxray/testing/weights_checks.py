"""The check that the weights which a plugin offers by name are asked for, and fail as a user should see it."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import keras
import numpy as np
from huggingface_hub import constants

from chestxray.errors import ChestXrayError
from chestxray.models.weights import named_weights
from chestxray.testing.model_under_test import SEED, Subject
from chestxray.testing.results import CheckFailed, CheckSkipped, described, place


def check_weights(subject: Subject) -> None:
    """`build` takes each name in `weights`: it loads them from this machine, or says that they cannot be fetched.

    Those in `published` are not tried: chestxray fetches them, and the suite fetches nothing.
    """
    if not subject.plugin.weights:
        raise CheckSkipped("the plugin offers no weights by name")
    names = [name for name in subject.plugin.weights if name not in subject.plugin.published]
    if not names:
        raise CheckSkipped("chestxray itself fetches all weights, and the suite fetches nothing")
    drawn = _values(subject, None)
    for name in names:
        with _offline() as touched:
            try:
                loaded = _values(subject, name)
            except ChestXrayError as error:
                if touched or str(error).startswith("Cannot fetch"):
                    continue
                raise CheckFailed(f"the weights {name!r} cannot be loaded: {described(error)}") from error
            # Third-party code may raise anything: any other exception fails the check.
            except Exception as error:
                what = "without a network " if touched else ""
                raise CheckFailed(
                    f"{what}build(scaled, {name!r}) raises {described(error)}",
                    "fetch with load_huggingface or keras.utils.get_file, whose errors a user can read"
                    if touched
                    else place(error),
                ) from error
        if len(loaded) == len(drawn) and all(map(np.array_equal, loaded, drawn)):
            raise CheckFailed(
                f"build(scaled, {name!r}) has the same weights as build(scaled, None)",
                "load the weights of that name in build, or do not list it in weights",
            )
        if not all(np.isfinite(value).all() for value in loaded):
            raise CheckFailed(f"the weights {name!r} are not finite")


def _values(subject: Subject, weights: str | None) -> list[np.ndarray]:
    """The variables of the backbone, built with one seed."""
    keras.utils.set_random_seed(SEED)
    pixels = keras.Input((*subject.size, subject.plugin.channels), dtype="float32")
    # keras.applications warns of other sizes than those that its weights were trained at.
    with named_weights(weights), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = subject.plugin.build(subject.plugin.scale(pixels), weights)
    model = keras.Model(pixels, features)
    return [keras.ops.convert_to_numpy(variable) for variable in model.weights]


@contextmanager
def _offline() -> Iterator[list[str]]:
    """Refuse connections within the block; yield the list of what was looked for."""
    touched: list[str] = []

    def refuse(*address: Any, **_: Any) -> None:
        touched.append(str(address[-1]))
        raise OSError("the suite fetches nothing")

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(socket, "getaddrinfo", refuse))
        stack.enter_context(mock.patch.object(socket.socket, "connect", refuse))
        stack.enter_context(mock.patch.object(constants, "HF_HUB_OFFLINE", True))
        yield touched
