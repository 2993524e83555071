"""The check that a plugin can be trained on findings, several of which a film may show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.explanation.inference_graph import Graph
from chestxray.models.assembly import CALIBRATION
from chestxray.testing.model_under_test import CLASSES, Subject, outputs
from chestxray.testing.results import CheckFailed
from chestxray.training.finding_losses import FindingLoss

#: Of four images, present, absent and not known; the last is not known at all.
TARGETS = np.array([[1, 0, np.nan], [0, np.nan, 1], [np.nan, 1, 0], [np.nan] * 3], dtype=np.float32)


def check_findings(subject: Subject) -> None:
    """Trained for one step on findings of which some are not known, it gives each a probability and a map of its own,
    also after saving and loading.
    """
    # This check is the last: the model is the second that was built, and the step changes it.
    model = subject.again.model
    _require_own_probabilities(model, subject.images)
    _train(model, subject.images)
    after = outputs(model, subject.images)
    folder = Path(subject.folder.name) / "findings"
    folder.mkdir(exist_ok=True)
    model.save(folder / "model.keras")
    np.save(folder / "images.npy", subject.images, allow_pickle=False)
    answer = subject.elsewhere.ask("reloading", folder=str(folder))
    difference = np.inf if answer["error"] else float(np.abs(np.asarray(answer["outputs"]) - after).max())
    if not difference < 1e-4:
        raise CheckFailed(
            "after saving and loading, the probabilities of findings differ by "
            f"{f'up to {difference:.2g}' if not answer['error'] else 'what cannot be told: ' + answer['error'][:300]}"
        )
    if subject.plugin.cam_layer is not None:
        _require_maps(model, subject.plugin.cam_layer, subject.images[:2])


def _require_own_probabilities(model: keras.Model, images: np.ndarray) -> None:
    probe = keras.Model(model.inputs[0], {"logits": model.get_layer(CALIBRATION).input, "given": model.output})
    found = {name: np.asarray(value, dtype=np.float64) for name, value in probe(images, training=False).items()}
    if not np.allclose(found["given"], 1 / (1 + np.exp(-found["logits"])), atol=1e-3):
        raise CheckFailed("the probabilities of findings are not the sigmoid of the logits")
    if np.allclose(np.exp(found["logits"]).sum(axis=1), 1, atol=1e-4):
        raise CheckFailed(
            "the logits are normalised over the classes, so that one finding would make another less probable",
            "end the head with a dense layer without activation: softmax or sigmoid follow by themselves",
        )


def _train(model: keras.Model, images: np.ndarray) -> None:
    """Take one step of gradient descent on `TARGETS`. Eagerly: tracing a deep network would take a minute."""
    with tf.GradientTape() as tape:
        loss = FindingLoss("crossentropy")(tf.constant(TARGETS), model(images, training=True))
    gradients: list[Any] = tape.gradient(loss, model.trainable_variables)
    finite = all(bool(np.isfinite(np.asarray(one)).all()) for one in gradients if one is not None)
    if not np.isfinite(float(loss)) or not finite:
        raise CheckFailed(
            f"the loss of findings of which some are not known, {float(loss):.3g}, or its gradient is not finite"
        )
    keras.optimizers.SGD(1e-3).apply(
        [one for one in gradients if one is not None],
        [variable for variable, one in zip(model.trainable_variables, gradients, strict=True) if one is not None],
    )


def _require_maps(model: keras.Model, layer: str, images: np.ndarray) -> None:
    names = [f"finding {number}" for number in range(CLASSES)]
    rules = {name: Decision((f"no {name}", name), name, Calibration(), {name: 0.5}, "not chosen") for name in names}
    found = Graph(model, layer, decision=FindingDecision(rules)).compute(tf.constant(images))
    maps, numbers = np.asarray(found["map"]), np.asarray(found["mapped"])
    if maps.shape != (2, CLASSES, *images.shape[1:3]) or not np.isfinite(maps).all():
        raise CheckFailed(f"the maps of findings must be finite and one a finding. Received: shape {maps.shape}")
    if not (np.sort(numbers, axis=1) == np.arange(CLASSES)).all():
        raise CheckFailed(f"the maps must be of {CLASSES} different findings. Received: {numbers.tolist()}")
