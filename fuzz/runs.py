"""The folder of a run, one or two of its files changed, and what every command reads of it before it computes."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from chestxray.data.index import Index
from chestxray.evaluation.decision import out_of_distribution
from chestxray.evaluation.decision.rule import FILE, Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.predictions import Predictions
from chestxray.inference import keras_engine
from chestxray.recipe import Recipe
from chestxray.runs import run_folder
from chestxray.storage.files import write_json, write_text
from fuzz.mutation import mutated

_VALUES = (float("nan"), float("inf"), -1, 0, 10**400, "", "x", [], [[]], {}, None, True, "NaN", ["sick", "sick"])


def prepare(folder: Path, _: contextlib.ExitStack) -> Callable[[random.Random], None]:
    """A case that reads one changed folder."""
    run = folder / "run"
    _write(run)
    # What is refused before it is changed would never be looked into.
    _read(run)
    files = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file() and path.suffix != ".keras"}

    def case(rng: random.Random) -> None:
        changed = rng.sample(list(files), rng.choice((1, 1, 2)))
        try:
            for path in changed:
                path.write_bytes(_changed(rng, path, files[path]))
            _read(run)
        finally:
            for path in changed:
                path.write_bytes(files[path])

    return case


def _read(run: Path) -> None:
    engine = keras_engine.load_engine(run)
    _ = engine.classes, engine.image_size, engine.decision, engine.refusal_threshold, engine.heat_maps
    keras_engine.max_pixels(run)
    keras_engine.fingerprint(run)
    found = run_folder.open_evaluated(run)
    _ = found.recipe, found.predictions, found.metrics, found.environment, found.cam_layer
    engine.decision.decided(found.predictions.probabilities)


def _changed(rng: random.Random, path: Path, content: bytes) -> bytes:
    if path.suffix != ".json" or rng.random() < 0.4:
        return mutated(rng, content)
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 3))):
        value = _replaced(rng, value)
    return json.dumps(value).encode()


def _replaced(rng: random.Random, value: object) -> object:
    """`value` with one of its parts, at any depth, replaced or left out."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.2:
            return {name: part for name, part in value.items() if name != key}
        return value | {key: _replaced(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], _replaced(rng, value[place]), *value[place + 1 :]]
    return rng.choice(_VALUES)


def _write(run: Path) -> None:
    """As `chestxray run` leaves it, but for a model, which is never loaded."""
    classes, rng = ("clear", "sick"), np.random.default_rng(0)
    rows = [
        {"path": f"{i}.png", "label": classes[i % 2], "patient": f"p{i}", "split": ("validation", "test")[i // 20]}
        for i in range(40)
    ]
    sick = rng.random(40)
    index = Index.from_records(rows, name="noise")
    decision = Decision(classes, "sick", Calibration(0.05), {"sick": 0.5}, "hand", (), 0.9, 0.7, "last")
    run.mkdir()
    write_text(run / "recipe.toml", Recipe(model="tiny", data=("folder:noise",), image_size=(16, 12)).to_toml())
    write_json(run / FILE, decision.to_json())
    write_json(run / "heatmaps" / "index.json", {"layer": "last", "reason": "", "images": []})
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    metrics = {
        "test": {"accuracy": figure, "auroc": figure},
        "per_class": {name: {"sensitivity": figure} for name in classes},
        "confusion": {"classes": classes, "counts": [[5, 5], [5, 5]]},
        "rows": 20,
        "patients": 20,
        "positive": "sick",
        "interval": {"level": 0.95, "method": "bootstrap", "replicates": 1000},
    }
    environment = {
        "chestxray": "0.1.0",
        "python": "3.12.1",
        "packages": {"keras": "3.10.0"},
        "data": {"name": "noise", "images": 40},
        "seconds": {"training": 1.5},
    }
    write_json(run / "metrics.json", metrics)
    write_json(run / "environment.json", environment)
    index.write(run / run_folder.INDEX)
    Predictions.from_probabilities(index.rows, classes, np.column_stack([1 - sick, sick])).write(
        run / "predictions.csv"
    )
    features, films = rng.normal(size=(80, 6)).astype(np.float32), rng.integers(0, 256, (80, 16, 12), np.uint8)
    out_of_distribution.learn(features[40:], films[40:], features[:40], films[:40], 0.05).write(
        run / out_of_distribution.FILE
    )
    (run / "model.keras").write_bytes(b"never loaded")
