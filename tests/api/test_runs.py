"""What is typed in a notebook."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import chestxray as cx
from chestxray.errors import DataError, InputError
from chestxray.evaluation.evaluate import Evaluation
from chestxray.explanation.methods import raw_maps
from chestxray.runs.run_folder import Run as RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("api")
    rng = np.random.default_rng(0)
    for label, grey in (("NORMAL", 60), ("PNEUMONIA", 160)):
        (place / "films" / label).mkdir(parents=True)
        for i in range(24):
            film = np.clip(rng.normal(grey, 30, (40, 32)), 0, 255).astype(np.uint8)
            Image.fromarray(film).save(place / "films" / label / f"p{i:02}.png")
    return cx.run(
        model="shallow_cnn", data=f"folder:{place / 'films'}", image_size=16, epochs=2, batch_size=8, replicates=100,
        heatmaps=1, map_checks="none", controls=False, output=place / "run", cache=place / "cache",
    )  # fmt: skip


@pytest.fixture
def films(run):
    return run.predictions.of("test").rows["path"].tolist()


def test_a_run_is_opened_with_all_that_is_in_it(run):
    again = cx.load(run.folder)
    assert isinstance(again, cx.Run)
    assert again.recipe.model == "shallow_cnn"
    assert list(again.history["epoch"]) == [0, 1]
    assert isinstance(again.evaluation, Evaluation)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert again.evaluation.to_frame().loc["auroc", "value"] == metrics["test"]["auroc"]["value"]
    assert again.decision.positive == "PNEUMONIA"
    assert again.report.is_file() and "report.html" in again._repr_html_()
    with pytest.raises(InputError, match="is not a run"):
        cx.load(run.folder / "nowhere")


def test_answers_are_those_of_the_command(run, films, tmp_path):
    found = run.predict(films)
    told = tmp_path / "told.json"
    code = "from chestxray.cli.main import main; main()"
    command = [sys.executable, "-c", code, "--quiet", "predict", run.folder, *films, "--output", told]
    subprocess.run(command, check=True, capture_output=True)
    for (_, row), line in zip(found.iterrows(), json.loads(told.read_text()), strict=True):
        decision = None if pd.isna(row["decision"]) else row["decision"]
        assert (row["path"], decision, row["refused"]) == (line["path"], line["decision"], line["refused"])
        for name, probability in line["probabilities"].items():
            assert row[f"probability_{name}"] == pytest.approx(probability, abs=1e-6)


def test_paths_tables_and_arrays_are_answered_alike(run, films):
    found = run.predict(films, batch_size=2)
    columns = [name for name in found if name.startswith("probability_")]
    assert len(found) == len(films)
    wanted = found[columns].to_numpy()
    pixels = np.stack([np.asarray(Image.open(path)) for path in films])
    for given in (pd.DataFrame({"path": films}), iter(films), pixels):
        np.testing.assert_allclose(run.predict(given)[columns].to_numpy(), wanted, atol=1e-5)
    one = run.predict(films[0])
    assert one["path"].tolist() == films[:1]
    np.testing.assert_allclose(run.predict(pixels[0])[columns].to_numpy(), wanted[:1], atol=1e-5)
    stretched = np.clip(pixels.astype(float) - pixels.min((1, 2), keepdims=True), 0, None)
    stretched = np.round(255 * stretched / stretched.max((1, 2), keepdims=True)).astype(np.uint8)
    deep = run.predict(pixels.astype(np.uint16) * 16)[columns].to_numpy()
    np.testing.assert_allclose(deep, run.predict(stretched)[columns].to_numpy(), atol=0.02)


def test_a_file_that_cannot_be_read_has_a_row_with_the_reason(run, films, tmp_path):
    (tmp_path / "a.png").write_text("no film")
    found = run.predict([tmp_path / "a.png", films[0]])
    assert found["unreadable"].notna().tolist() == [True, False]
    assert found["decision"].isna().tolist()[0]
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        run.explain(tmp_path / "a.png")
    missing = run.predict([tmp_path / "nowhere.png", "odd\0name.png"])
    assert missing["unreadable"].notna().all() and missing["decision"].isna().all()


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), "uint8 or uint16"),
        (np.zeros((8, 8), np.float32), "float32"),
        (np.zeros((0, 8, 8), np.uint8), "uint8 or uint16"),
        (np.zeros((40, 32, 3), np.uint8), "looks like one image in colour"),
        (np.full((2, 8, 8), np.nan), "float64"),
        (np.zeros((2, 8, 8), np.int32), "int32"),
        (np.zeros(8, np.uint8), r"Received: \(8,\), uint8"),
        ([], "at least one. Received: none"),
        (pd.DataFrame({"path": []}), "at least one. Received: none"),
        (pd.DataFrame({"path": ["a.png", np.nan]}), "Received: a list of float"),
        (None, "paths, or one array of pixels. Received: NoneType"),
        (7, "Received: int"),
        (b"a.png", "a list of int"),
        ([np.zeros((8, 8), np.uint8)], "one array of pixels. Received: a list of ndarray"),
        (pd.DataFrame({"file": []}), "the column path. Received: file"),
    ],
)
def test_what_is_no_image_is_told_in_a_line(run, images, told):
    for ask in (run.predict, run.explain):
        with pytest.raises(InputError, match=told) as caught:
            ask(images)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, -3, 2.5, True, "8"])
def test_a_batch_has_a_whole_number_of_images(run, films, size):
    with pytest.raises(InputError, match="batch_size must be a whole number from 1 on"):
        run.predict(films, batch_size=size)


def test_data_are_read_audited_and_split_as_the_run_did(run):
    recipe = run.recipe
    data = cx.load_data(recipe.data, image_size=recipe.image_size)
    pd.testing.assert_frame_equal(data.split().rows, run.index.rows)
    assert data.audit() == run.audit


def test_an_answer_is_explained(run, films):
    found = run.explain(films[0])
    assert found.map.shape == found.pixels.shape == (16, 16)
    assert found.highest == run._files.heatmaps["scale"]["highest"] and found.badge == "not checked"
    np.testing.assert_allclose(found.map, np.clip(found.raw / found.highest, 0, 1))
    assert found.answer.probabilities["NORMAL"] == run.predict(films[0])["probability_NORMAL"][0]
    assert found.overlay().size == (16, 16)
    assert np.asarray(found.overlay(0.0)).std(axis=2).max() == 0, "nothing is covered"
    assert "data:image/png;base64," in found._repr_html_()
    named = run.explain(films[0], layer=run.engine.layer)  # the run's own layer, by its name
    assert (named.highest, named.badge, named.sentence) == (found.highest, found.badge, found.sentence)
    with pytest.raises(InputError, match=r"one image\. Received: several"):
        run.explain(films[:2])


def test_any_class_is_explained_by_any_method_in_its_own_unit(run, films):
    pixels = run.explain(films[0]).pixels[None, ..., None]
    for method in ("layercam", "occlusion"):
        found = run.explain(films[0], "NORMAL", method=method)
        layer, _ = RunFolder(run.folder).cam_layer
        expected = raw_maps(method, run.model, layer, pixels, np.array([run.engine.classes.index("NORMAL")]))[0]
        np.testing.assert_allclose(found.raw, expected, atol=1e-5 * max(expected.max(), 1e-9))
        assert (found.name, found.method) == ("NORMAL", method)
        assert found.highest is None and found.badge == "not checked"
        with pytest.raises(InputError, match=rf"states no scale of the maps of {method}.*overlay\(highest=...\)"):
            _ = found.map
        twice = found.scaled(2 * float(found.raw.max()))
        np.testing.assert_allclose(twice, found.scaled(float(found.raw.max())) / 2, atol=1e-6)
        assert "the scale is its own" in found._repr_html_()
    with pytest.raises(InputError, match="class must be one of NORMAL, PNEUMONIA, top"):
        run.explain(films[0], "Normal")
    with pytest.raises(InputError, match="Unknown explanation 'gradcma'"):
        run.explain(films[0], method="gradcma")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": None}, "method must be a name, as text. Received: None."),
        ({"method": 3}, "method must be a name, as text. Received: 3."),
        ({"layer": 3}, "layer must be a name, as text. Received: 3."),
        ({"label": 3}, "label must be a name, as text. Received: 3."),
    ],
)
def test_what_is_no_name_is_refused_in_a_line(run, films, given, said):
    with pytest.raises(InputError) as raised:
        run.explain(films[0], **given)
    assert str(raised.value) == said


@pytest.mark.parametrize("highest", [-1, float("nan"), float("inf"), "3", None, True])
def test_a_scale_that_ends_nowhere_is_refused(run, films, highest):
    found = run.explain(films[0])
    assert not found.scaled(0).any() and found.scaled(np.float32(1)).max() <= 1
    with pytest.raises(InputError) as raised:
        found.scaled(highest)
    assert str(raised.value) == f"highest must be a number from 0 on. Received: {highest!r}."


def test_a_run_without_training_has_no_history(run, tmp_path):
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    (copy / "history.csv").unlink()
    assert len(cx.load(copy).history) == 0
