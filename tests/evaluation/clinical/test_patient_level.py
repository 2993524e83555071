"""One row a patient: means, the highest image, and what is decided."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from chestxray.evaluation.clinical import patient_level
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.predictions import Predictions

TWO, THREE = ("clear", "sick"), ("a", "b", "c")
DECISION = Decision(TWO, "sick", Calibration(), {"sick": 0.4}, "hand")


def made(patients, labels, probabilities, classes=TWO):
    rows = pd.DataFrame({"path": [f"/{i}" for i in range(len(labels))], "patient": patients, "label": labels})
    rows["split"], rows["source"] = "test", "made"
    return Predictions.from_probabilities(rows, classes, np.asarray(probabilities))


def test_means_highest_images_and_decisions_by_hand():
    sick = [0.2, 0.5, 0.1, 0.9, 0.3]
    images = made(["p", "p", "q", "", ""], ["sick", "clear", "clear", "sick", "sick"], [[1 - s, s] for s in sick])
    mean, left_out = patient_level.by_patient(images, DECISION)
    assert left_out == 0
    assert mean.rows["label"].tolist() == ["sick", "clear", "sick", "sick"], "one positive image makes one positive"
    np.testing.assert_allclose(mean.probabilities[:, 1], [0.35, 0.1, 0.9, 0.3])
    assert mean.rows["predicted"].tolist() == ["clear", "clear", "sick", "clear"]
    highest, _ = patient_level.by_patient(images, DECISION, highest=True)
    np.testing.assert_allclose(highest.probabilities[:, 1], [0.5, 0.1, 0.9, 0.3])
    assert highest.rows["predicted"].tolist() == ["sick", "clear", "sick", "clear"]
    assert len(np.unique(mean.clusters)) == len(mean.rows) == 4


def test_with_more_classes_patients_of_several_are_left_out():
    images = made(["p", "p", "q", "q"], ["a", "b", "c", "c"], [[0.2, 0.3, 0.5]] * 4, THREE)
    decision = Decision(THREE, None, Calibration(), {}, "", priors=(0.1, 0.2, 0.7))
    found, left_out = patient_level.by_patient(images, decision)
    assert left_out == 1
    assert found.rows["label"].tolist() == ["c"]
    assert found.rows["predicted"].tolist() == ["a"], "priors decide as they do of an image"


def test_figures_are_of_patients_and_there_are_none_where_each_has_one_image():
    generator = np.random.default_rng(0)
    codes = np.repeat(np.arange(60), generator.integers(1, 6, 60))
    state = (np.arange(60) % 3 == 0)[codes]
    sick = 1 / (1 + np.exp(-(generator.normal(size=len(codes)) + 2 * state - 1)))
    probabilities = np.column_stack([1 - sick, sick])
    images = made([f"p{c}" for c in codes], np.where(state, "sick", "clear"), probabilities)
    found = patient_level.figures(images, DECISION, lambda rows: evaluate(rows, positive="sick", replicates=100))
    assert found["patients"] == 60 and found["images"] == len(codes)
    mean = np.bincount(codes, weights=sick) / np.bincount(codes)
    assert found["mean"]["test"]["auroc"]["value"] == pytest.approx(roc_auc_score(np.arange(60) % 3 == 0, mean))
    highest = np.array([sick[codes == c].max() for c in range(60)])
    of_highest = found["highest"]["test"]
    assert of_highest["auroc"]["value"] == pytest.approx(roc_auc_score(np.arange(60) % 3 == 0, highest))
    assert of_highest["sensitivity"]["value"] == pytest.approx((highest[::3] >= 0.4).mean())
    assert of_highest["sensitivity"]["low"] < of_highest["sensitivity"]["value"]
    alone = made([f"p{i}" for i in range(len(codes))], images.rows["label"], probabilities)
    assert patient_level.figures(alone, DECISION, evaluate) is None
