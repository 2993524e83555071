import dataclasses

import numpy as np
import pytest
from scipy.ndimage import sobel

from chestxray.errors import DataError
from chestxray.explanation.inference_graph import OnePass
from chestxray.studies.map_reproducibility import map_reproducibility
from untrained_runs import CLASSES, draw_films, write_run


@pytest.fixture
def films(tmp_path):
    """Twenty test images and four others."""
    return draw_films(tmp_path)


@pytest.fixture
def runs(films, tiny, tmp_path):
    wide = dataclasses.replace(tiny, channels=1)
    return {
        "tiny": [write_run(tmp_path / f"seed{seed}", films, tiny, seed=seed) for seed in (0, 1)],
        "wide": [write_run(tmp_path / "wide", films, wide, seed=2, size=(24, 24), classes=CLASSES[::-1])],
    }


def edges(run):
    """Maps of the images alone."""

    def explain(model, pixels, classes):
        grey = pixels[..., 0].astype(np.float32)
        return np.hypot(sobel(grey, axis=1), sobel(grey, axis=2))

    return explain


def test_runs_are_compared_on_the_same_images_whatever_their_order_and_size(runs, tmp_path):
    found = map_reproducibility(runs, edges, tmp_path / "cache")
    assert [(check.name, check.verdict) for check in found] == [
        ("repeatability", "passes"),
        ("reproducibility", "passes"),
    ]
    assert found[0].figures["rank_correlation"]["value"] == pytest.approx(1)
    assert 0.8 < found[1].figures["rank_correlation"]["value"] < 1
    assert "2 trainings of tiny, two maps" in found[0].sentence
    assert [check.figures["images"] for check in found] == [20, 20]
    few = map_reproducibility(runs, edges, tmp_path / "cache", images=9)
    assert [check.figures["images"] for check in few] == [9, 9]


def test_each_model_explains_the_class_that_the_first_run_decided_on(runs, tmp_path):
    asked = []

    def gradcam(run):
        def explain(model, pixels, classes):
            asked.append([run.classes[number] for number in classes])
            assert pixels.shape[1:3] == model.input_shape[1:3]
            return OnePass(model, "last")(pixels, classes)[1]

        return explain

    first, second = map_reproducibility(runs, gradcam, tmp_path / "cache")
    table = runs["tiny"][0].predictions.rows.sort_values("path")
    assert asked == [table["label"].tolist()] * 3
    assert first.figures["rank_correlation"]["value"] < 0.99
    assert second.figures["models"] == 2


def test_runs_with_other_test_images_are_refused(runs, films, tiny, tmp_path):
    other = write_run(tmp_path / "other", films, tiny, tested=18)
    with pytest.raises(DataError, match="different images"):
        map_reproducibility(runs | {"other": [other]}, edges, tmp_path / "cache")
