"""A run whose images are cut to their lungs, from training to every way in which it answers."""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import chestxray
import method_plugins
from chestxray import export, workflow
from chestxray.data import lung_boxes
from chestxray.data.images import reading
from chestxray.data.images.pixels import corners
from chestxray.errors import DataError, InputError, PluginError
from chestxray.inference import encoder, explaining, nearest_films
from chestxray.inference.batch_prediction import predicted
from chestxray.inference.ensemble import Ensemble
from chestxray.inference.explanation_files import Files
from chestxray.inference.keras_engine import load_engine
from chestxray.models import lung_segmenter
from chestxray.recipe import Recipe
from chestxray.report.limitations import cautions
from chestxray.runs.run_folder import Run
from chestxray.serve.decoding import Decoders
from chestxray.serve.prediction import answer_image
from chestxray.serve.settings import Settings
from chestxray.storage import cache as caches
from chestxray.studies import ensembling, external_validation
from chestxray.training import checkpoint
from serve.fakes import served

#: The number of films of a class in which there is nothing that is taken for lungs.
WITHOUT = 4


def write_films(root, seed=0, patients=12):
    """Two classes of films of 40 to 60 pixels with a bright part, which is missing in some of the second class."""
    rng = np.random.default_rng(seed)
    for label in ("normal", "pneumonia"):
        for number in range(2 * patients):
            high, wide = rng.integers(40, 60, 2)
            film = rng.integers(0, 90, (high, wide), dtype=np.uint8)
            if label == "normal" or number >= WITHOUT:
                top, left = rng.integers(4, 16, 2)
                film[top : top + 22, left : left + 18] += 130
            path = root / label / f"p{label[0]}{number // 2:02d}_{number % 2}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(film).save(path)
    return root


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the segmenter ``lit`` is installed and has a file of weights."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method_plugins, "lit", dataclasses.replace(method_plugins.lit, weights=folder / "weights"))
        method_plugins.install(folder / "packages", patch, segmenters="lit")
        patch.setenv("CHESTXRAY_DISABLE_PLUGINS", "lungs")
        yield folder


@pytest.fixture
def own_segmenter(site):
    """The weights of the segmenter ``lit``, the only one."""
    path = site / "weights"
    path.write_bytes(b"first")
    return path


@pytest.fixture
def decoders():
    made = Decoders(Settings(threads=1))
    yield made
    made.close()


@pytest.fixture(scope="module")
def recipe(site):
    return Recipe(
        model="shallow_cnn", data=(f"folder:{write_films(site / 'films')}",), patient_pattern=r"(p[np]\d+)_",
        weights="none", image_size=16, epochs=1, batch_size=8, replicates=100, heatmaps=1, map_checks="none",
        test_share=0.3, crop="lungs",
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(recipe, site):
    (site / "weights").write_bytes(b"first")
    return workflow.run(recipe, output=site / "run", cache=site / "cache")


@pytest.fixture
def run(trained, own_segmenter):
    return Run(trained.folder)


def test_what_is_evaluated_is_what_answers(run, decoders, own_segmenter, tmp_path, caplog):
    rows = run.index.rows.set_index("path")
    whole = rows.index[rows[lung_boxes.COLUMN] == ""]
    assert len(whole) == WITHOUT and all("pneumonia" in path for path in whole)
    (method,) = run.environment["methods"]
    assert method["kind"] == "segmenter" and method["version"] == "2.1" and method["distribution"] == "method-plugins"
    assert lung_segmenter.LungSegmenter.of_record(method) == lung_segmenter.installed()
    (said,) = [one for one in cautions(run) if one.title == "Images that were not cut to their lungs"]
    assert "In 4 of 48 images no plausible lungs were found" in said.text
    assert "normal 0 of 24; pneumonia 4 of 24" in said.text
    assert "the lungs, found by method-plugins:lit 2.1" in run.report.read_text()
    left_out = {item["name"] for item in run.controls["left_out"]}
    assert "blanked_centre" in left_out and "border" in {item["name"] for item in run.controls["controls"]}

    test = run.predictions.of("test")
    paths = [*test.rows["path"][:3], *[path for path in test.rows["path"] if path in whole][:1]]
    places = [list(test.rows["path"]).index(path) for path in paths]
    expected = test.probabilities[places]
    engine = load_engine(run.folder)
    caplog.clear()
    (batch,) = predicted(engine, [*paths[:2], str(own_segmenter), *paths[2:]])
    np.testing.assert_allclose(batch.outputs.probabilities, expected, atol=1e-5)
    assert [bool(reason) for reason in batch.reasons][:4] == [False, False, True, False]
    assert ("used whole" in caplog.text) == any(path in whole for path in paths)
    for path, wanted in zip(paths, expected, strict=True):
        given = chestxray.load(run.folder).predict(reading.read(Path(path)).pixels)
        assert list(given.filter(like="probability_").iloc[0]) == pytest.approx(wanted, abs=1e-5)
    content = Path(paths[0]).read_bytes()
    found = answer_image(
        content, "PNG", served(engine), decoders, 10**6, time.monotonic() + 60, maps=True, pictures=True
    )
    assert list(found["answers"][0]["probabilities"].values()) == pytest.approx(expected[0], abs=1e-5)

    network = encoder.of_run(run.folder)
    among = nearest_films.FeatureTable(pd.DataFrame(), np.zeros((0, network.width), np.float32), network.origin)
    features = nearest_films.of_images(paths, among).vectors
    cut = np.stack(
        [reading.read(Path(p), size=(16, 16), box=lung_boxes.from_text(rows.at[p, "lung_box"])).pixels for p in paths]
    )
    np.testing.assert_allclose(features, encoder.encode(network, cut), atol=1e-4)


def test_a_map_lies_where_the_model_looked(run, tmp_path):
    engine = explaining.engine_of(run.folder)
    rows = run.index.rows
    path = rows.loc[rows[lung_boxes.COLUMN] != "", "path"].iloc[0]
    files = Files(tmp_path / "maps", engine, 10**6)
    for one in explaining.explained(engine, [path], methods=("occlusion",), max_pixels=10**6):
        assert lung_boxes.as_text(one.box) == rows.set_index("path").at[path, lung_boxes.COLUMN]
        files.add(one)
    (entry,) = files.finish()
    high, wide = reading.read(Path(path)).pixels.shape
    left, top, right, bottom = corners(entry.box, wide, high)
    heat = explaining.at_image(np.ones((16, 16), np.float32), (high, wide), "stretch", entry.box)
    inside = np.zeros((high, wide), bool)
    inside[top:bottom, left:right] = True
    np.testing.assert_array_equal(heat > 0, inside)
    found = json.loads((tmp_path / "maps" / f"{entry.stem}.json").read_text())["map"]
    assert found["seen"] == [top, left, bottom, right]
    if found["highest_at"]:
        assert inside[tuple(found["highest_at"])]
    assert reading.read(tmp_path / "maps" / f"{entry.stem}.png").pixels.shape == (high, wide)


def test_another_segmenter_is_refused_in_one_line(run, own_segmenter, recipe, tmp_path, monkeypatch):
    engine = load_engine(run.folder)
    own_segmenter.write_bytes(b"second")
    other = (
        "trained, by method-plugins:lit 2.1, and another segmenter is installed: method-plugins:lit 2.1 with other w"
    )
    for use in (
        lambda: load_engine(run.folder),
        lambda: engine.segmenter.boxes(np.zeros((1, 128, 128), np.uint8)),
        lambda: encoder.of_run(run.folder),
        lambda: external_validation.evaluate_on(run, recipe, caches.root(None)),
    ):
        with pytest.raises(PluginError, match=other) as raised:
            use()
        assert "\n" not in str(raised.value) and "pip install 'method-plugins==2.1'" in str(raised.value)
    monkeypatch.setenv("CHESTXRAY_DISABLE_PLUGINS", "lungs,lit")
    with pytest.raises(PluginError, match=r"none is installed: pip install 'method-plugins==2\.1'"):
        load_engine(run.folder)
    with pytest.raises(PluginError, match="none is installed: pip install chestxray-lungs"):
        workflow.run(recipe, output=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    # What needs no image is done without it.
    external_validation.evaluate_again(run, {"replicates": 100}, caches.root(None))
    method_plugins.install(tmp_path / "more", monkeypatch, segmenters="dark lit")
    monkeypatch.setenv("CHESTXRAY_DISABLE_PLUGINS", "lungs")
    with pytest.raises(PluginError, match="One segmenter may be installed"):
        workflow.run(recipe, output=tmp_path / "new")


def test_it_is_tested_elsewhere_and_cannot_be_exported_or_mixed(run, recipe, tmp_path):
    elsewhere = write_films(tmp_path / "elsewhere", seed=1, patients=5)
    tested = external_validation.evaluate_on(run, Recipe(data=(f"folder:{elsewhere}",)), caches.root(None))
    assert (tested.index.rows[lung_boxes.COLUMN] == "").sum() == WITHOUT
    assert any(one.title == "Images that were not cut to their lungs" for one in cautions(tested))
    with pytest.raises(InputError, match="takes images that are cut to their lungs, which no exported file can do"):
        export.export(run.folder, "onnx")
    whole = workflow.run(recipe.replace(crop="none", controls=False), output=tmp_path / "whole")
    assert whole.segmenter is None and lung_boxes.COLUMN not in whole.index.rows
    said = "must cut images to their lungs alike. Received: "
    with pytest.raises(InputError, match=said):
        ensembling.write({"cut": run, "whole": whole}, tmp_path / "both")
    members = [load_engine(one.folder) for one in (run, whole)]
    with pytest.raises(InputError, match=said):
        Ensemble("both", members, members[0].decision)
    twice = ensembling.write({"one": run, "two": run}, tmp_path / "twice")
    assert twice.segmenter == run.segmenter


def test_a_run_goes_on_with_its_own_segmenter_or_not_at_all(recipe, own_segmenter, tmp_path, monkeypatch):
    end = checkpoint.Record.on_epoch_end

    def interrupted(self, epoch, logs=None):
        end(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Record, "on_epoch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workflow.run(recipe.replace(epochs=2, controls=False), output=tmp_path / "cut")
    own_segmenter.write_bytes(b"second")
    smaller = dataclasses.replace(method_plugins.lit, masks=lambda pixels: pixels > 200)
    with monkeypatch.context() as patch:
        patch.setattr(method_plugins, "lit", smaller)
        with pytest.raises(DataError, match="images are cut to other lungs, by another segmenter than before"):
            workflow.resume(tmp_path / "cut")
    own_segmenter.write_bytes(b"first")
    assert workflow.resume(tmp_path / "cut").finished


def test_a_run_of_findings_is_cut_too(own_segmenter, tmp_path):
    recipe = Recipe(
        model="shallow_cnn", data=("phantom:findings,patients=120,size=48",), weights="none", image_size=16, epochs=1,
        replicates=100, heatmaps=0, controls=False, crop="lungs",
    )  # fmt: skip
    run = workflow.run(recipe, output=tmp_path / "run")
    cut = run.index.rows[lung_boxes.COLUMN] != ""
    assert cut.mean() > 0.5
    for one in run.findings.values():
        assert one.segmenter == run.segmenter
    assert Run(run.folder).finished
