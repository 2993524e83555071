"""The checks of a `LossPlugin`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from chestxray.testing.method_checks import Method, check_fields, check_import, check_metadata, check_name
from chestxray.testing.results import Check, CheckFailed

ROWS, CLASSES = 6, 3


def check_values(method: Method) -> None:
    """`compute` returns finite numbers in the right shape, also of labels between 0 and 1 and of certain answers."""
    labels, probabilities = _drawn(method)
    certain = np.eye(CLASSES, dtype=np.float32)[np.arange(ROWS) % CLASSES]
    for wanted, given in ((labels, probabilities), (labels, certain), (0.9 * labels + 0.1 / CLASSES, probabilities)):
        found = _losses(method, wanted, given)
        if not np.isfinite(found).all():
            raise CheckFailed(
                f"of probabilities {given[0]} and labels {wanted[0]} the loss is {found.ravel()[0]}",
                "keep logarithms and divisions away from 0 with keras.ops.clip",
            )


def check_rows(method: Method) -> None:
    """The loss of an image does not depend on the others of the batch."""
    labels, probabilities = _drawn(method)
    together = _losses(method, labels, probabilities)
    alone = np.concatenate([_losses(method, labels[[i]], probabilities[[i]]) for i in range(ROWS)])
    if not np.allclose(together, alone, rtol=1e-4, atol=1e-6):
        raise CheckFailed(
            "the loss of an image differs where it is alone in the batch",
            "return a number for each image; chestxray takes the mean",
        )


def check_findings(method: Method) -> None:
    """With task "findings", the loss of a finding does not depend on the other findings."""
    if method.plugin.task == "classes":
        return
    labels, probabilities = _drawn(method)
    before = _losses(method, labels, probabilities)
    others = labels.copy()
    others[:, 1:] = 1 - others[:, 1:]
    if not np.allclose(before[:, 0], _losses(method, others, probabilities)[:, 0], rtol=1e-4, atol=1e-6):
        raise CheckFailed(
            "the loss of a finding depends on the labels of others, which are not always known",
            "compute it element by element",
        )


def check_direction(method: Method) -> None:
    """Right answers have a lower loss than wrong ones."""
    labels, _ = _drawn(method)
    right = labels * 0.8 + 0.1 if method.plugin.task == "findings" else labels * 0.7 + 0.1
    wrong = 1 - right if method.plugin.task == "findings" else np.roll(right, 1, axis=1)
    good, bad = (_losses(method, labels, answers).mean() for answers in (right, wrong))
    if not good < bad:
        raise CheckFailed(f"right answers have a loss of {good:.4g} and wrong ones of {bad:.4g}")


def check_gradients(method: Method) -> None:
    """The gradient of the logits is finite, also of certain answers, and not 0 for a wrong answer."""
    labels, _ = _drawn(method)
    for size in (1.0, 30.0, 400.0, -400.0):
        logits = tf.Variable((0.5 - labels) * size)
        with tf.GradientTape() as tape:
            mean = keras.ops.mean(method.function(tf.constant(labels), _activation(method)(logits)))
        gradient = tape.gradient(mean, logits)
        if gradient is None:
            raise CheckFailed("no gradient leads from the loss to the logits", "compute with keras.ops alone")
        found = np.asarray(gradient)
        if not np.isfinite(found).all():
            raise CheckFailed(f"with logits of {size / 2:g} the gradient is not finite")
        if size == 1 and not np.abs(found).max() > 0:
            raise CheckFailed("the gradient is 0 for wrong answers, so that nothing would be learnt")


def check_training(method: Method) -> None:
    """A model is trained with it, in float32 and in mixed precision, and its weights stay finite."""
    labels, _ = _drawn(method)
    images = np.random.default_rng(3).normal(size=(ROWS, 4)).astype(np.float32)
    for policy in ("float32", "mixed_float16"):
        inputs = keras.Input((4,))
        hidden = keras.layers.Dense(4, dtype=policy)(inputs)
        outputs = keras.layers.Activation(_activation(method), dtype="float32")(
            keras.layers.Dense(CLASSES, dtype="float32")(hidden)
        )
        model = keras.Model(inputs, outputs)
        model.compile("sgd", loss=lambda y, p: method.function(y, p))
        model.fit(images, labels, batch_size=3, epochs=1, verbose=0)
        if not all(np.isfinite(value).all() for value in model.get_weights()):
            raise CheckFailed(f"after an epoch in {policy} the weights are not finite")


LOSS_CHECKS = (
    Check(check_fields),
    Check(check_metadata),
    Check(check_name),
    Check(check_values, needs=("fields",)),
    Check(check_rows, needs=("values",)),
    Check(check_findings, needs=("rows",)),
    Check(check_direction, needs=("values",)),
    Check(check_gradients, needs=("values",)),
    Check(check_training, needs=("gradients",)),
    Check(check_import),
)


def _activation(method: Method) -> Any:
    return keras.ops.sigmoid if method.plugin.task == "findings" else keras.ops.softmax


def _drawn(method: Method) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities, float32 (rows, classes)."""
    rng = np.random.default_rng(0)
    if method.plugin.task == "findings":
        given = rng.uniform(0.05, 0.95, (ROWS, CLASSES))
        return rng.integers(0, 2, (ROWS, CLASSES)).astype(np.float32), given.astype(np.float32)
    given = rng.dirichlet(np.ones(CLASSES), ROWS)
    return np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, ROWS)], given.astype(np.float32)


def _losses(method: Method, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    found = np.asarray(method.function(tf.constant(labels), tf.constant(probabilities)))
    wanted = labels.shape if method.plugin.task == "findings" else labels.shape[:1]
    if found.shape != wanted:
        raise CheckFailed(f"compute must return {wanted} of labels {labels.shape}. Received: {found.shape}")
    return found
