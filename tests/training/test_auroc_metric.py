import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from chestxray.training.auroc_metric import MeanAuroc


def test_it_is_scikit_learns_over_what_is_known():
    generator = np.random.default_rng(1)
    truth = (generator.random((500, 4)) < [0.5, 0.2, 0.03, 0]).astype(np.float32)
    p = 1 / (1 + np.exp(-(generator.normal(size=truth.shape) + truth - 3)))
    truth[generator.random(truth.shape) < 0.3] = np.nan
    metric = MeanAuroc(4)
    for part in np.array_split(np.arange(500), 7):
        metric.update_state(truth[part], p[part].astype(np.float32))
    known = [np.isfinite(truth[:, k]) for k in range(3)]
    # The last finding is shown by no row, and has no part in the mean.
    exact = np.mean([roc_auc_score(truth[rows, k], p[rows, k]) for k, rows in enumerate(known)])
    assert float(metric.result()) == pytest.approx(exact, abs=1e-3)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_classes_are_each_against_the_rest_and_ties_count_half():
    truth = np.eye(3, dtype=np.float32)[[0, 1, 2, 1, 0, 2]]
    p = np.full((6, 3), 1 / 3, np.float32)
    metric = MeanAuroc(3)
    metric.update_state(truth, p)
    assert float(metric.result()) == pytest.approx(0.5)


def test_it_works_within_a_compiled_evaluation():
    generator = np.random.default_rng(2)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, "sigmoid")(inputs))
    x, y = generator.normal(size=(70, 3)), (generator.random((70, 2)) < 0.4).astype(np.float32)
    model.compile(loss="binary_crossentropy", metrics=[MeanAuroc(2)])
    found = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)["auroc"]
    assert found == pytest.approx(roc_auc_score(y, model.predict(x, verbose=0), average="macro"), abs=2e-3)
