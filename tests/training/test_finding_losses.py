"""Losses of findings against plain formulas, scikit-learn and Keras, and what is not known against leaving it out."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss

from chestxray.recipe import Recipe
from chestxray.training.finding_losses import FindingLoss, KnownAccuracy, of, positive_weights

KINDS = ["crossentropy", "focal", "asymmetric", "soft_f1"]


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.02, 0.98, (8, 3)).astype(np.float32)
    return rng.integers(0, 2, (8, 3)).astype(np.float32), probabilities


def value_and_gradient(loss, targets, probabilities):
    given = tf.constant(probabilities)
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = loss(tf.constant(targets), given)
    return float(value), tape.gradient(value, given).numpy()


def test_cross_entropy_is_scikit_learns(batch):
    targets, probabilities = batch
    value, _ = value_and_gradient(FindingLoss("crossentropy"), targets, probabilities)
    assert value == pytest.approx(np.mean([log_loss(targets[:, k], probabilities[:, k]) for k in range(3)]), rel=1e-5)


def test_focal_is_keras_binary_focal(batch):
    targets, probabilities = batch
    value, gradient = value_and_gradient(FindingLoss("focal"), targets, probabilities)
    keras_value, keras_gradient = value_and_gradient(keras.losses.BinaryFocalCrossentropy(), targets, probabilities)
    assert value == pytest.approx(keras_value, rel=1e-5)
    np.testing.assert_allclose(gradient, keras_gradient, rtol=1e-4, atol=1e-7)


def test_asymmetric_is_the_formula_of_the_paper(batch):
    targets, p = batch
    shifted = np.maximum(p - 0.05, 0)
    plain = -(targets * np.log(p) + (1 - targets) * shifted**4 * np.log(1 - shifted))
    assert value_and_gradient(FindingLoss("asymmetric"), targets, p)[0] == pytest.approx(plain.mean(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_which_nothing_is_known_are_as_if_left_out(kind, batch):
    targets, probabilities = batch
    loss = FindingLoss(kind, np.array([[1, 2], [0.5, 3], [1, 1]]) if kind == "crossentropy" else None, 0.1)
    masked = targets.copy()
    masked[[1, 5]] = np.nan
    kept = [0, 2, 3, 4, 6, 7]
    value, gradient = value_and_gradient(loss, masked, probabilities)
    plain, plain_gradient = value_and_gradient(loss, targets[kept], probabilities[kept])
    assert value == pytest.approx(plain, rel=1e-5)
    np.testing.assert_allclose(gradient[kept], plain_gradient, rtol=1e-5, atol=1e-8)
    assert not gradient[[1, 5]].any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_known_moves_nothing(kind, batch):
    targets, probabilities = batch
    masked = targets.copy()
    masked[2, 1] = np.nan
    other = probabilities.copy()
    other[2, 1] = 0.5
    first, gradient = value_and_gradient(FindingLoss(kind), masked, probabilities)
    second, _ = value_and_gradient(FindingLoss(kind), masked, other)
    assert first == pytest.approx(second, rel=1e-6) and gradient[2, 1] == 0 and np.isfinite(gradient).all()


def test_a_batch_of_which_nothing_is_known_has_no_loss():
    value, gradient = value_and_gradient(
        FindingLoss("crossentropy"), np.full((2, 2), np.nan, np.float32), np.full((2, 2), 0.5, np.float32)
    )
    assert value == 0 and not gradient.any()


def test_weights_make_both_sides_of_a_finding_count_alike():
    targets = np.array([[1, 1], [0, np.nan], [0, 1], [0, np.nan]], np.float32)
    np.testing.assert_allclose(positive_weights(targets), [[4 / 6, 2], [1, 1]])
    probabilities = np.full((4, 2), 0.3, np.float32)
    weighed, _ = value_and_gradient(of(Recipe(), targets), targets, probabilities)
    expected = (-(3 * np.log(0.7) * 4 / 6 + np.log(0.3) * 2) - 2 * np.log(0.3)) / 6
    assert weighed == pytest.approx(expected, rel=1e-5)
    plain, _ = value_and_gradient(of(Recipe(class_weights=False), targets), targets, probabilities)
    assert plain == pytest.approx(-(3 * np.log(0.7) + 3 * np.log(0.3)) / 6, rel=1e-5)


def test_accuracy_counts_known_findings():
    metric = KnownAccuracy()
    metric.update_state(tf.constant([[1, np.nan], [0, 1]]), tf.constant([[0.9, 0.9], [0.8, 0.7]]))
    metric.update_state(tf.constant([[np.nan, np.nan]]), tf.constant([[0.1, 0.1]]))
    assert float(metric.result()) == pytest.approx(2 / 3)


def test_it_is_read_back_as_it_was():
    loss = FindingLoss("crossentropy", np.array([[1, 2.0]]), 0.1)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    targets, probabilities = np.ones((2, 1), np.float32), np.full((2, 1), 0.2, np.float32)
    assert float(again(targets, probabilities)) == float(loss(targets, probabilities))
