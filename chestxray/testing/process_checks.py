"""Checks in a fresh process: importing the plugin, reloading its model, training it on two devices."""

from __future__ import annotations

from typing import Any

import numpy as np

from chestxray.testing.fresh_process import FreshProcess
from chestxray.testing.import_checks import require_light_import
from chestxray.testing.model_under_test import Subject
from chestxray.testing.results import CheckFailed, described


def check_import(subject: Subject) -> None:
    """Importing the plugin takes under a second, imports neither keras nor other heavy libraries, uses no network."""
    # Where keras has not been imported, unlike in the process for the other questions.
    with FreshProcess(("chestxray.plugin", "chestxray.registry")) as light:
        require_light_import(light, subject.module, "chestxray.plugin")


def check_reload(subject: Subject) -> None:
    """The saved model gives the same output when it is loaded in safe mode without the plugin."""
    try:
        folder = subject.saved
    # Saving calls the plugin's own get_config: any exception fails the check.
    except Exception as error:
        raise CheckFailed(f"the model cannot be saved: {described(error)}") from error
    answer = subject.elsewhere.ask("reloading", folder=str(folder))
    if answer["error"]:
        raise CheckFailed(
            f"the saved model cannot be loaded: {_short(answer['error'])}",
            "build from Keras's own layers and keras.ops alone: a run is loaded, served and exported where "
            "the plugin has not been imported",
        )
    difference = float(np.abs(np.asarray(answer["outputs"]) - subject.probabilities).max())
    if not difference < 1e-4:
        raise CheckFailed(
            f"after saving and loading the probabilities differ by up to {difference:.2g}",
            "is there a state that is no variable of a layer?",
        )


def check_replicas(subject: Subject) -> None:
    """After one training step on two replicas, the loss and all weights are finite."""
    answer = subject.elsewhere.ask("training", folder=str(subject.saved))
    if answer["error"]:
        raise CheckFailed(f"training on two replicas fails: {_short(answer['error'])}")
    if not np.isfinite(float(answer["loss"])):
        raise CheckFailed(f"the loss of the first step is {answer['loss']}")
    if answer["spoilt"]:
        count, first = len(answer["spoilt"]), answer["spoilt"][0]
        raise CheckFailed(
            f"after one step {count} variables are not finite, the first {first}",
            "is the gradient infinite somewhere, as that of a square root or a logarithm at 0 is?",
        )


def _short(error: Any, limit: int = 300) -> str:
    # Keras appends the whole configuration of the layer to its messages.
    text = str(error).partition(" Full object config:")[0].partition(" Make sure custom classes")[0]
    return text if len(text) <= limit else f"{text[:limit]} ..."
