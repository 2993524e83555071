"""Folders of runs as far as predicting needs them, with a model that was never trained."""

import keras
import numpy as np

from chestxray.data.index import Index
from chestxray.evaluation.decision import out_of_distribution
from chestxray.evaluation.decision.conformal import quantile
from chestxray.evaluation.decision.rule import FILE, Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.predictions import Predictions
from chestxray.models.assembly import build, features_model, set_calibration
from chestxray.recipe import Recipe
from chestxray.storage import checksums
from chestxray.storage.files import write_json, write_text
from made import tiny_plugin

CLASSES = ("clear", "sick")
SIZE = (16, 12)


def pixels_of(count, seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (count, *size), dtype=np.uint8)


def write_run(folder, *, seed=0, size=SIZE, fit="stretch", refuse=True, abstain=None, explained=True):
    """A run of two classes whose validation is 40 images of noise; it refuses what is far from noise."""
    keras.utils.set_random_seed(seed)
    built = build(tiny_plugin(), len(CLASSES), size, seed=seed)
    set_calibration(built.model, 1 / 0.05, 0.0)
    noise = pixels_of(80, seed + 1, size)[..., np.newaxis]
    probabilities, features = features_model(built.model, "last").predict(noise.astype(np.float32), verbose=0)
    # In the middle of what noise gets, so that both classes are decided on.
    threshold = float(np.median(probabilities[:, 1]))
    labels = [CLASSES[i] for i in np.random.default_rng(seed).integers(0, 2, 40)]
    rows = [
        {"path": f"v{i}.png", "label": label, "patient": "", "split": "validation"} for i, label in enumerate(labels)
    ]
    predictions = Predictions.from_probabilities(
        Index.from_records(rows, name="noise").rows, CLASSES, probabilities[:40]
    )
    limit = (
        None
        if abstain is None
        else quantile(predictions.probabilities, predictions.truth, abstain, predictions.clusters)
    )
    decision = Decision(
        CLASSES, "sick", Calibration(0.05), {"sick": threshold}, "hand", (), abstain, limit, "last" if refuse else None
    )
    folder.mkdir(parents=True)
    recipe = Recipe(model="tiny", data=("folder:noise",), image_size=size, fit=fit)
    write_text(folder / "recipe.toml", recipe.to_toml())
    write_json(folder / FILE, decision.to_json())
    scale = (
        {"gradcam": {"highest": 2.0, "beyond": 0, "unit": "logit, by mean gradient", "images": 8}} if explained else {}
    )
    index = {"layer": "last" if explained else None, "reason": "", "images": [], **scale}
    write_json(folder / "heatmaps" / "index.json", index)
    predictions.write(folder / "predictions.csv")
    built.model.save(folder / "model.keras")
    if refuse:
        films = noise[..., 0]
        distribution = out_of_distribution.learn(features[40:], films[40:], features[:40], films[:40], 0.05)
        distribution.write(folder / out_of_distribution.FILE)
    return folder


def write_ensemble(folder, members, decision=None):
    folder.mkdir(parents=True)
    write_text(folder / "recipe.toml", Recipe(model="ensemble", data=("folder:noise",)).to_toml())
    weights = [
        next((path / name for name in ("model.keras", "ensemble.json") if (path / name).is_file()), None)
        for path in members
    ]
    sums = [checksums.of(path) if path else "" for path in weights]
    listed = [
        {"name": path.name, "folder": str(path), "model": "tiny", "checksum": checksum}
        for path, checksum in zip(members, sums, strict=True)
    ]
    write_json(folder / "ensemble.json", {"mean": "probabilities", "members": listed})
    if decision is not None:
        write_json(folder / FILE, decision.to_json())
    return folder
