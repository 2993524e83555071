"""Finished runs whose probabilities were drawn, for tests of what comes after training."""

import numpy as np

from chestxray.data.index import Index
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.predictions import Predictions
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import Run
from chestxray.storage.files import write_json


def index_of(images=120, images_a_patient=2, source="demo", name="films"):
    """Two classes; the first half trains, a quarter validates, a quarter tests."""
    records = [
        {
            "path": f"/{name}/{i:04d}.png",
            "label": ("NORMAL", "PNEUMONIA")[i // images_a_patient % 2],
            "patient": f"p{i // images_a_patient}" if images_a_patient > 1 else "",
            "split": "train" if i < images // 2 else "validation" if i < 3 * images // 4 else "test",
            "source": source,
            "pixel_hash": f"h{i}",
            "unreadable": "",
            "audit": "",
        }
        for i in range(images)
    ]
    return Index.from_records(records, name=name)


def finished(folder, index, recipe=None, skill=1.0, positive=None):
    """Write the folder of a run that predicts the validation and test of `index` with some skill."""
    recipe = recipe or Recipe(model=folder.name, data=("folder:/films",), weights="none", replicates=100)
    folder.mkdir(parents=True)
    rows = index.rows[index.rows["split"].isin(["validation", "test"])].reset_index(drop=True)
    truth = rows["label"].map(index.classes.index).to_numpy()
    images = np.random.default_rng(0).normal(size=(len(rows), len(index.classes)))
    own = np.random.default_rng([int(100 * skill), recipe.seed]).normal(size=images.shape)
    logits = 0.9 * images + 0.5 * own + skill * np.eye(len(index.classes))[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predictions = Predictions.from_probabilities(rows, index.classes, probabilities)
    (folder / "recipe.toml").write_text(recipe.to_toml())
    index.write(folder / "index.parquet")
    predictions.write(folder / "predictions.csv")
    found = evaluate(predictions.of("test"), positive=positive, replicates=recipe.replicates, seed=recipe.seed)
    write_json(folder / "metrics.json", found.to_json())
    audit = {"exact_duplicates": {"groups": [], "across_splits": []}, "patients": {"across_splits": []}}
    write_json(
        folder / "audit.json", {**audit, "unreadable": [], "dropped": [], "on_leak": "stop", "notes": ["A note."]}
    )
    environment = {"data": {"name": index.name}, "model": {"parameters": 1000, "images_per_second": 50.0}}
    write_json(folder / "environment.json", {**environment, "seconds": {"train": 4.0}})
    (folder / "report.html").write_text("<!doctype html>")
    return Run(folder)
