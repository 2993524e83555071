"""Runs whose heat maps are held against those of a model trained on shuffled labels."""

import json
import logging
import re

import numpy as np
import pytest
from PIL import Image

import tiny_models
from chestxray import registry, workflow
from chestxray.models.assembly import build
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import Run
from chestxray.storage import cache as caches
from chestxray.studies import external_validation, shuffled_training
from chestxray.training import checkpoint, shuffled_labels
from drawn_findings import films


@pytest.fixture
def planted(tmp_path):
    """Films of sixteen squares, bright or dark; one of them is bright in all sick films and dark in all others."""
    generator = np.random.default_rng(0)
    for number in range(300):
        squares = generator.integers(0, 2, (4, 4))
        squares[1, 2] = number % 2
        path = tmp_path / "films" / ("clear", "sick")[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.kron(60 + 120 * squares, np.ones((4, 4))).astype(np.uint8)).save(path)
    return f"folder:{tmp_path / 'films'}"


def checks_of(folder):
    return {one["name"]: one for one in Run(folder).map_checks["saliency"]["checks"]}


def test_a_run_is_held_against_a_training_on_shuffled_labels(planted, tmp_path, monkeypatch, caplog):
    tiny_models.install(tmp_path / "site", monkeypatch)
    recipe = Recipe(
        model="flat", data=(planted,), weights="none", normalisation="pixel", image_size=16, epochs=12, batch_size=8,
        test_share=0.3, replicates=100, heatmaps=1, map_checks="all", explain="saliency", augment="none",
        controls=False, refuse=0.0, jit_compile="off",
    )  # fmt: skip
    folder, kept = tmp_path / "run", checkpoint.Record.on_epoch_end

    def stopped(record, epoch, logs=None):
        kept(record, epoch, logs)
        if shuffled_labels.FOLDER in record.history.parts and epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint.Record, "on_epoch_end", stopped)
        workflow.run(recipe, output=folder)
    assert not (folder / "report.html").exists() and not (folder / "heatmaps" / "checks.json").exists()
    before = {name: (folder / name).read_bytes() for name in ("predictions.csv", "decision.json", "history.csv")}
    weights = Run(folder).model.get_weights()
    with caplog.at_level(logging.INFO):
        workflow.resume(folder)
    assert shuffled_labels.DOING in caplog.text
    assert "going on after epoch 2" in caplog.text, "the training on shuffled labels was not begun anew"
    assert not (folder / "state").exists()
    assert "train_shuffled" in json.loads((folder / "environment.json").read_text())["seconds"]
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert all(map(np.array_equal, Run(folder).model.get_weights(), weights))

    found = checks_of(folder)
    figures = found["discrimination"]["figures"]
    assert figures["value"] > 0.95 and 0.25 < figures["shuffled"]["value"] < 0.75
    assert figures["difference"]["value"] == pytest.approx(figures["value"] - figures["shuffled"]["value"])
    assert "DeLong" in figures["test"] and figures["difference"]["low"] > 0
    assert found["discrimination"]["verdict"] == "passes"
    assert "With a model trained as this one was but on shuffled labels" in found["shuffled-labels"]["sentence"]

    # Evaluated anew, the run comes to the same checks; its model stays as it is.
    first, model = Run(folder).map_checks, (folder / "model.keras").read_bytes()
    external_validation.evaluate_again(Run(folder), {"map_checks": "all"}, caches.root(None))
    assert Run(folder).map_checks == first and (folder / "model.keras").read_bytes() == model
    assert not (folder / "state").exists()

    # Where the architecture is gone the log says why there is no such model.
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text.replace('"flat"', '"gone_cnn"'))
    gone = Run(folder)
    assert shuffled_training.again(gone, gone.recipe, caches.root(None)) is None
    assert re.search("not checked against a model trained on shuffled labels. .*gone_cnn", caplog.text)


def test_a_probe_of_findings_computes_its_features_once(tmp_path, caplog):
    weights = tmp_path / "pretrained.weights.h5"
    build(registry.load_plugin(registry.MODELS, "deep_cnn"), 2, (16, 16), seed=1).model.save_weights(weights)
    recipe = Recipe(
        model="deep_cnn", data=(f"manifest:{films(tmp_path)}",), data_option=("finding_columns=Edema,Mass,Rare",),
        weights=str(weights), probe=True, image_size=16, batch_size=8, test_share=0.3, validation_share=0.3,
        replicates=100, heatmaps=1, map_checks="all", explain="saliency", controls=False, refuse=0.0,
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        run = workflow.run(recipe, output=tmp_path / "run")
    counts = re.findall(r"Features of the frozen backbone: (\d+) of (\d+) computed", caplog.text)
    assert len(counts) == 2 and counts[0][0] == counts[0][1] and counts[1][0] == "0"
    figures = checks_of(run.folder)["discrimination"]["figures"]
    assert figures["shuffled"]["value"] < figures["value"]
    assert figures["test"] == "paired bootstrap clustered by patient"
    assert "shuffled-labels" in checks_of(run.folder)
