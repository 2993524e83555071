"""A run from published weights says where its data, or those of an external test, are films that they have seen."""

import json
from dataclasses import replace

import chestxray_baselines
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from chestxray import workflow
from chestxray.models.assembly import build
from chestxray.plugin import PublishedWeights
from chestxray.recipe import Recipe
from chestxray.storage import cache as caches
from chestxray.studies import external_validation
from loopback import serving

SEEN = "This encoder was trained on kermany, which are among these data"


def draw(folder, count, first):
    """`count` films of each class; `first` makes them other films than those of another folder."""
    generator = np.random.default_rng(first)
    for k, label in enumerate(("NORMAL", "PNEUMONIA")):
        (folder / label).mkdir(parents=True)
        for n in range(count):
            pixels = generator.normal(80 + 60 * k, 25, (16, 16)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"person{first + 2 * n + k}_1.jpeg")


@pytest.fixture
def published(monkeypatch, tmp_path):
    """shallow_cnn has weights that were trained on kermany, on a server of this machine."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("CHESTXRAY_CACHE", str(tmp_path / "cache"))
    plain = chestxray_baselines.shallow_cnn_plugin
    model = build(plain, 2, (16, 16)).model
    file = save(
        {f"{layer.name}/{v.name}": np.array(v) for layer in model.layers for v in layer.variables if v.trainable}
    )
    with serving(lambda service: service.send(file)) as server:
        url = f"http://127.0.0.1:{server.server_port}/chest.safetensors"
        facts = PublishedWeights(url=url, trained_on=("openi", "kermany"))
        changed = replace(plain, weights=("chest",), published={"chest": facts})
        monkeypatch.setattr(chestxray_baselines, "shallow_cnn_plugin", changed)
        yield facts


def test_an_external_test_on_what_the_weights_have_seen_is_said_not_to_be_one(published, tmp_path, caplog):
    draw(tmp_path / "here", 30, 0)
    draw(tmp_path / "chest_xray" / "test", 10, 1000)
    recipe = Recipe(
        model="shallow_cnn", weights="chest", data=(f"folder:{tmp_path / 'here'}",), image_size=16, head_epochs=1,
        epochs=1, batch_size=8, replicates=100, heatmaps=0, augment="none", controls=False,
    )  # fmt: skip
    run = workflow.run(recipe, output=tmp_path / "run")
    assert not any(note.startswith("This encoder") for note in run.notes)
    digest = (tmp_path / "keras" / "models" / "chest.safetensors.sha256").read_text().strip()
    known = {"name": "chest", "url": published.url, "sha256": digest, "trained_on": ["openi", "kermany"]}
    assert run.environment["model"]["published_weights"] == known
    caplog.set_level("INFO", "chestxray")
    data = Recipe(data=("kermany",), path=(str(tmp_path / "chest_xray"),))
    found = external_validation.evaluate_on(run, data, caches.root())
    assert any(note.startswith(SEEN) for note in json.loads((found.folder / "audit.json").read_text())["notes"])
    assert SEEN in caplog.text
    assert SEEN in found.report.read_text(encoding="utf-8")


def test_a_run_on_what_its_weights_have_seen_says_so(published, tmp_path):
    draw(tmp_path / "chest_xray" / "train", 40, 0)
    draw(tmp_path / "chest_xray" / "test", 10, 1000)
    recipe = Recipe(model="shallow_cnn", data=("kermany",), path=(str(tmp_path / "chest_xray"),), image_size=16)
    recipe, plugin, _ = workflow.resolve(recipe)
    seen = plugin.published[recipe.weights].trained_on
    prepared = workflow.prepare(recipe, caches.root(), workflow.Clock(), trained_on=seen)
    assert any(note.startswith(SEEN) for note in prepared.audit.notes)
