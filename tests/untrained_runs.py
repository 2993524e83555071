"""Runs of models that were never trained, as far as their heat maps need them."""

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from chestxray.data.index import Index
from chestxray.evaluation.predictions import Predictions
from chestxray.models.assembly import build
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import Run
from chestxray.storage.files import write_text

CLASSES = ("clear", "sick")


def draw_films(folder):
    """Twenty-four smooth images in `folder`."""
    paths = []
    for number in range(24):
        drawn = gaussian_filter(np.random.default_rng(number).normal(size=(48, 48)), 3)
        paths.append(folder / f"{number}.png")
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
