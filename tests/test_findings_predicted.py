"""Predicting with a run of findings: from the command line, over HTTP, from Python, and as an ensemble."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from PIL import Image

import chestxray
from chestxray import workflow
from chestxray.cli.main import group
from chestxray.errors import ChestXrayError, InputError
from chestxray.evaluation.decision import conformal
from chestxray.explanation import inference_graph
from chestxray.inference import keras_engine
from chestxray.inference.ensemble import Ensemble
from chestxray.recipe import Recipe
from chestxray.serve.app import create_app
from chestxray.serve.loading import open_models
from chestxray.serve.settings import Settings
from drawn_findings import films
from run_folders import write_ensemble, write_run
from serve.fakes import post

FINDINGS = ("Edema", "Mass", "Rare")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = Recipe(
        model="shallow_cnn",
        data=(f"manifest:{films(tmp_path_factory.mktemp('films'))}",),
        data_option=("finding_columns=Edema,Mass,Rare",),
        image_size=16,
        epochs=10,
        batch_size=8,
        test_share=0.3,
        validation_share=0.3,
        replicates=100,
        heatmaps=1,
        map_checks="none",
        controls=False,
        abstain=0.7,
        refuse=0.2,
    )
    return workflow.run(recipe, output=tmp_path_factory.mktemp("runs") / "findings")


@pytest.fixture(scope="module")
def rows(run):
    """The test rows of the run's predictions."""
    return run.finding_predictions.of("test").rows


@pytest.fixture
def predict(run):
    """A function that calls `chestxray predict` on the run, and returns the standard output and the error stream."""

    def call(*arguments, of=run.folder):
        done = CliRunner().invoke(group, ["predict", str(of), *map(str, arguments)], catch_exceptions=True)
        if isinstance(done.exception, ChestXrayError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout, done.stderr

    return call


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def assert_same(one, other):
    """Other batches compute in another order: the last digit of a probability may differ."""
    assert list(one) == list(other)
    for name, finding in one.items():
        assert finding == {**other[name], "probability": pytest.approx(other[name]["probability"], abs=1e-6)}


def test_it_says_of_the_test_what_the_run_says(predict, rows):
    given = table(predict(*rows["path"])[0])
    assert [one["path"] for one in given] == list(rows["path"])
    for one, (_, said) in zip(given, rows.iterrows(), strict=True):
        assert one["refused"] == said["refused"]
        silent = [name for name in ("Edema", "Mass") if said[f"abstained_{name}"] == "true"]
        assert one["abstained"] == ("|".join(silent) or "-")
        for name in FINDINGS:
            assert float(one[f"probability_{name}"]) == pytest.approx(said[f"probability_{name}"], abs=1e-5)
            answered = said["refused"] == "false" and name not in silent
            assert one[f"predicted_{name}"] == (str(said[f"predicted_{name}"]) if answered else "")
    assert {one["refused"] for one in given} == {"true", "false"}, "else this test says little"
    assert {one[f"predicted_{name}"] for one in given for name in FINDINGS} == {"1", "0", ""}


def test_json_and_the_server_say_what_the_table_says(predict, run, rows, make_client):
    paths = list(rows["path"][:12])
    as_table = table(predict(*paths)[0])
    as_json = [json.loads(line) for line in predict(*paths, "--jsonl")[0].splitlines()]
    (served,) = open_models([run.folder])
    client = make_client(models=(served,))
    specification = client.get("/openapi.json").get_json()
    for path, row, content in zip(paths, as_table, as_json, strict=True):
        answered = post(client, Path(path).read_bytes(), query="?maps=true").get_json()
        schema = specification["components"]["schemas"]["Prediction"]
        Draft202012Validator({**schema, "components": specification["components"]}).validate(answered)
        (answer,) = answered["answers"]
        assert_same(answer["findings"], content["findings"])
        assert answer["distance"] == pytest.approx(content["distance"], abs=1e-4)
        assert (answer["maps"] is None) == answer["refused"]
        if answer["maps"]:
            probable = sorted(FINDINGS, key=lambda name: -answer["findings"][name]["probability"])
            assert list(answer["maps"]) == probable
        for name, one in content["findings"].items():
            assert float(row[f"probability_{name}"]) == one["probability"]
            assert row[f"predicted_{name}"] == ("" if one["present"] is None else str(int(one["present"])))
            assert one["threshold"] == run.finding_decision.findings[name].thresholds[name]
            assert (name in row["abstained"].split("|")) == bool(one["abstained"])
        assert [name for name, one in content["findings"].items() if not one["threshold_chosen"]] == ["Rare"]
        assert content["findings"]["Rare"]["abstained"] is None, "nothing was chosen for it"


def test_the_server_describes_the_model(run, make_client):
    client = make_client(models=open_models([run.folder]))
    specification = client.get("/openapi.json").get_json()
    listed = client.get("/api/models").get_json()
    schema = specification["components"]["schemas"]["Models"]
    Draft202012Validator({**schema, "components": specification["components"]}).validate(listed)
    (model,) = listed["models"]
    assert model["task"] == "findings" and model["coverage"] == 0.7
    assert model["thresholds"] == dict(zip(FINDINGS, run.finding_decision.thresholds, strict=True))
    page = client.get("/").get_data(as_text=True)
    assert "not chosen: validation has" in page and "Findings" in page
    metrics = client.get("/metrics").get_data(as_text=True)
    assert "chestxray_answers" in metrics


@pytest.fixture
def make_client():
    apps = []

    def make(models):
        app = create_app(models, Settings(threads=1))
        apps.append(app)
        return app.test_client()

    yield make
    for app in apps:
        app.extensions["chestxray"].close()


def test_an_overlay_is_named_by_its_finding(predict, run, rows, tmp_path):
    paths = list(rows["path"][:12])
    lines = [json.loads(one) for one in predict(*paths, "--jsonl", "--heatmaps", tmp_path / "maps")[0].splitlines()]
    written = {path.name for path in (tmp_path / "maps").iterdir()}
    shown = [line for line in lines if not line["refused"]]
    assert written == {name for line in shown for name in line["heatmap"].values()}
    for line in shown:
        present = {name for name, one in line["findings"].items() if one["present"]}
        probable = max(line["findings"], key=lambda name: line["findings"][name]["probability"])
        assert set(line["heatmap"]) == (present or {probable})
        for finding, name in line["heatmap"].items():
            assert finding in name
            with Image.open(tmp_path / "maps" / name) as overlay:
                assert overlay.size == (16, 16) and overlay.mode == "RGB"
    assert all(line["heatmap"] is None for line in lines if line["refused"])


def test_a_file_is_continued(predict, rows, tmp_path):
    paths, output = list(rows["path"][:6]), tmp_path / "answers.csv"
    predict(*paths[:4], "--output", output)
    before = output.read_text()
    predict(*paths, "--output", output)
    assert output.read_text().startswith(before) and [row["path"] for row in table(output.read_text())] == paths
    with pytest.raises(ChestXrayError, match="by other options"):
        predict(*paths, "--output", output, "--abstain", "0.5")


def test_another_coverage_holds_for_each_finding(predict, run, rows):
    given, said = predict(*rows["path"], "--abstain", "0.6")
    assert "never abstains from Rare" in said
    limits = keras_engine.load_engine(run.folder).decision.findings
    assert limits["Rare"].limit is None
    alone = run.findings["Edema"].predictions.of("validation")
    limit = conformal.quantile(alone.probabilities, alone.truth, 0.6, alone.clusters)
    for one in table(given):
        present = float(one["probability_Edema"])
        inside = [1 - value <= limit + 1e-12 for value in (1 - present, present)]
        decided = present >= limits["Edema"].thresholds["Edema"]
        assert ("Edema" in one["abstained"].split("|")) == (inside != [not decided, decided])


def test_how_common_findings_are_without_labels(predict, rows):
    _, said = predict(*rows["path"], "--estimate-prevalence")
    assert "Edema" in said and "Mass" in said and "label shift" in said
    assert "Rare" in said.partition("not estimated")[2]


def test_python_gives_the_same(run, rows):
    opened = chestxray.load(run.folder)
    assert opened.engine.classes == FINDINGS
    given = opened.predict(rows["path"])
    assert list(given["refused"]) == list(rows["refused"] == "true")
    for name in FINDINGS:
        np.testing.assert_allclose(given[f"probability_{name}"], rows[f"probability_{name}"], atol=1e-5)
        decided = given[f"predicted_{name}"].notna().to_numpy()
        assert (given[f"predicted_{name}"][decided] == rows[f"predicted_{name}"].to_numpy()[decided]).all()
    pixels = np.asarray(Image.open(rows["path"].iloc[0]))
    assert tuple(opened.predict(pixels)) == tuple(given)
    assert opened.predict(pixels)["probability_Mass"][0] == pytest.approx(given["probability_Mass"][0], abs=1e-6)
    explained = opened.explain(pixels, "Mass")
    assert explained.name == "Mass" and explained.map.shape == (16, 16)
    probable = max(explained.answer.findings, key=lambda name: explained.answer.findings[name].probability)
    assert opened.explain(pixels).name == probable
    with pytest.raises(InputError, match="Received: 'Oedema'"):
        opened.explain(pixels, "Oedema")


def test_any_finding_is_explained_however_improbable(run, rows, monkeypatch):
    pixels = np.asarray(Image.open(rows["path"].iloc[0]))
    whole = chestxray.load(run.folder)
    monkeypatch.setattr(inference_graph, "SHOWN", 1)
    opened = chestxray.load(run.folder)
    assert opened.engine.run(pixels[None], maps=True).mapped.shape == (1, 1)
    for name in FINDINGS:
        found, expected = opened.explain(pixels, name), whole.explain(pixels, name)
        assert found.name == name and found.answer == expected.answer
        np.testing.assert_allclose(found.map, expected.map, atol=1e-5)


def test_an_ensemble_is_the_mean_of_its_members(predict, run, rows, tmp_path):
    twin = shutil.copytree(run.folder, tmp_path / "twin")
    folder = write_ensemble(tmp_path / "both", [run.folder, twin], run.finding_decision.with_features(None))
    engine = keras_engine.load_engine(folder)
    pixels = np.stack([np.asarray(Image.open(path)) for path in rows["path"][:5]])
    one, both = keras_engine.load_engine(run.folder).run(pixels, maps=True), engine.run(pixels, maps=True)
    np.testing.assert_allclose(both.probabilities, one.probabilities, atol=1e-6)
    np.testing.assert_array_equal(both.mapped, one.mapped)
    shares = keras_engine.load_engine(run.folder).heat_maps.on_scale(one.maps)
    np.testing.assert_allclose(both.maps, shares, atol=1e-6)
    for number in range(len(FINDINGS)):
        own = shares[one.mapped == number]
        np.testing.assert_allclose(keras_engine.maps_of(engine, pixels, number), own, atol=1e-5)
    given = table(predict(*rows["path"][:5], of=folder)[0])
    assert [one["predicted_Rare"] for one in given] == [
        one["predicted_Rare"] for one in table(predict(*rows["path"][:5])[0])
    ]
    (folder / "decision.json").unlink()
    plain = keras_engine.load_engine(folder).decision
    assert not any(rule.chosen for rule in plain.findings.values()) and set(plain.thresholds) == {0.5}


def test_what_is_wrong_is_one_line(predict, run, rows, tmp_path):
    film = rows["path"].iloc[0]
    with pytest.raises(InputError, match="prevalence is for two classes, and each finding has one of its own"):
        predict(film, "--prevalence", "0.1")
    with pytest.raises(InputError, match="abstain must be a coverage above 0 and below 1"):
        predict(film, "--abstain", "1.5")
    classes = keras_engine.load_engine(write_run(tmp_path / "classes", size=(16, 16)))
    with pytest.raises(InputError, match=r"must be of findings, as it is\. Received: classes, of one class an image"):
        Ensemble("mixed", [keras_engine.load_engine(run.folder), classes], run.finding_decision)
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    content = json.loads((copy / "decision.json").read_text())
    del content["findings"]["Rare"]
    (copy / "decision.json").write_text(json.dumps(content))
    with pytest.raises(ChestXrayError, match="is of another run"):
        predict(film, of=copy)
    content["findings"] = {}
    (copy / "decision.json").write_text(json.dumps(content))
    with pytest.raises(ChestXrayError, match="is damaged: findings must be one or more"):
        predict(film, of=copy)
