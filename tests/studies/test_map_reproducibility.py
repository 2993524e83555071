import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, sobel

from chestxray.data.index import Index
from chestxray.errors import DataError
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation.inference_graph import OnePass
from chestxray.models.assembly import build
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import Run
from chestxray.storage.files import write_text
from chestxray.studies.map_reproducibility import map_reproducibility

CLASSES = ("clear", "sick")


@pytest.fixture
def films(tmp_path):
    """Twenty test images and four others."""
    paths = []
    for number in range(24):
        drawn = gaussian_filter(np.random.default_rng(number).normal(size=(48, 48)), 3)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(np.uint8(np.clip(128 + 600 * drawn, 0, 255))).save(paths[-1])
    return paths


def write_run(folder, films, tiny, *, seed=0, size=(16, 16), classes=CLASSES, tested=20):
    """A run whose model was never trained, as far as its maps need it; its test has no order of its own."""
    order = np.random.default_rng(seed).permutation(len(films))
    records = [
        {"path": str(films[i]), "label": CLASSES[i % 2], "split": "test" if i < tested else "train"} for i in order
    ]
    index = Index.from_records(records, name="drawn", classes=classes)
    test = index.rows[index.rows["split"] == "test"]
    probabilities = np.where(np.array(classes) == test["label"].to_numpy()[:, np.newaxis], 0.75, 0.25)
    folder.mkdir()
    write_text(folder / "recipe.toml", Recipe(model="tiny", data=("folder:drawn",), image_size=size).to_toml())
    index.write(folder / "index.parquet")
    Predictions.from_probabilities(test, classes, probabilities).write(folder / "predictions.csv")
    build(tiny, 2, size, seed=seed).model.save(folder / "model.keras")
    return Run(folder)


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
    assert "2 trainings of tiny with other seeds" in found[0].sentence
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
