"""Ready models: published weights with their publisher's head answer, are tested, served, exported and calibrated
without a training. Their file comes from a server on this machine.
"""

import dataclasses
import html
import json

import chestxray_baselines
import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import save

import chestxray
from chestxray.cli.main import group
from chestxray.data.sources.phantom import samples
from chestxray.errors import ChestXrayError, DataError, InputError, LeakError, WeightsError
from chestxray.evaluation.decision.rule import PUBLISHED
from chestxray.inference import keras_engine, ready_models, ready_names
from chestxray.models.assembly import build, logits_model, set_calibration
from chestxray.plugin import PublishedWeights
from chestxray.recipe import Recipe
from chestxray.runs import run_folder
from chestxray.serve.loading import open_models
from chestxray.storage import cache as caches
from chestxray.studies import calibration, external_validation
from drawn_findings import films
from loopback import serving

NAME = "baselines:chest"
OUTPUTS = ("Mass", "", "Edema", "Rare")
TRAINED = ("Mass", "Edema", "Rare")
THRESHOLDS = (0.2, None, 0.6, None)
SIZE = (16, 16)


def network(outputs=4):
    """A network whose answers differ from film to film."""
    plugin = chestxray_baselines.shallow_cnn_plugin
    return build(dataclasses.replace(plugin, published={}), outputs, SIZE, task="findings", seed=3).model


def file_of(model, names=None):
    """The weights of the layers `names`, None for all, under their own names."""
    layers = [layer for layer in model.layers if names is None or layer.name in names]
    return save({f"{layer.name}/{v.name}": np.array(v) for layer in layers for v in layer.trainable_variables})


@pytest.fixture
def publish(monkeypatch, tmp_path):
    """A function that offers a file as the weights of shallow_cnn; .asked has the requests for it."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    plain = chestxray_baselines.shallow_cnn_plugin
    with serving(lambda service: service.send(publish.file)) as server:

        def publish(file, **facts):
            publish.file, publish.asked = file, server.asked
            url = f"http://127.0.0.1:{server.server_port}/chest.safetensors"
            known = {"findings": OUTPUTS, "thresholds": THRESHOLDS, "trained_on": ("nih",), "fit": "crop"}
            weights = PublishedWeights(url=url, **known | facts)
            changed = dataclasses.replace(
                plain, image_size=SIZE, weights=("chest",), published={"chest": weights}, weights_licence="Ours alone"
            )
            monkeypatch.setattr(chestxray_baselines, "shallow_cnn_plugin", changed)

        yield publish


@pytest.fixture
def published(publish):
    publish(file_of(network()))
    return publish


@pytest.fixture
def table(tmp_path):
    (tmp_path / "films").mkdir()
    return films(tmp_path / "films")


def of(table, **fields):
    return Recipe(
        data=(f"manifest:{table}",), data_option=("finding_columns=Edema,Mass,Rare",), replicates=100, heatmaps=0,
        **fields,
    )  # fmt: skip


def call(*arguments, code=0):
    found = CliRunner().invoke(group, list(map(str, arguments)))
    if isinstance(found.exception, ChestXrayError):
        assert code, found.exception
        return str(found.exception)
    assert found.exit_code == code, found.output
    return found.stdout


def test_its_answers_are_those_of_the_published_network(published, table):
    paths = sorted(table.parent.glob("*.png"))[:5]
    answers = json.loads(call("--quiet", "predict", NAME, *paths, "--json"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])[..., np.newaxis].astype(np.float32)
    whole = network().predict(pixels, verbose=0)
    for answer, row in zip(answers, whole, strict=True):
        assert list(answer["findings"]) == list(TRAINED)  # the output that was not trained is left out
        for name, threshold in zip(TRAINED, (0.2, 0.6, 0.5), strict=True):
            found = answer["findings"][name]
            np.testing.assert_allclose(found["probability"], row[OUTPUTS.index(name)], atol=1e-5)
            assert found["threshold"] == threshold and found["present"] == (found["probability"] >= threshold)
            assert found["threshold_chosen"] == (name != "Rare")


def test_it_is_written_once_and_used_without_its_file(published, tmp_path):
    folder = ready_models.folder_of(NAME)
    assert ready_models.folder_of("chestxray-baselines:chest") == ready_models.folder_of("shallow_cnn:chest") == folder
    assert len(published.asked) == 1
    (tmp_path / "keras" / "models" / "chest.safetensors").unlink()
    assert ready_models.folder_of(NAME) == folder and len(published.asked) == 1
    (folder / "model.keras").write_bytes(b"damaged")
    assert ready_models.folder_of(NAME) == folder
    engine = keras_engine.load_engine(folder)
    assert engine.run(np.zeros((1, *SIZE), np.uint8)).probabilities.shape == (1, 3)
    assert "16 drawn chest phantoms" in engine.heat_maps.scale and engine.heat_maps.badge == "not checked"
    films = samples.drawn(16, SIZE)
    peaks = engine.run(films, maps=True).maps[:, 0].max(axis=(1, 2))
    assert np.quantile(peaks, 0.9, method="higher") == pytest.approx(engine.heat_maps.highest, rel=1e-4)
    assert [entry.kind for entry in caches.entries(caches.root())] == ["ready"]


def test_another_file_or_other_facts_are_another_model(publish):
    folders = set()
    for facts in ({}, {"thresholds": ()}, {"fit": "stretch"}):
        publish(file_of(network()), **facts)
        folders.add(ready_models.folder_of(NAME))
    assert len(folders) == 3
    rule = run_folder.Run(folders.pop()).finding_decision
    assert rule.classes == TRAINED


def test_what_is_said_of_it(published):
    run = chestxray.load(NAME)
    card = (run.folder / "MODEL_CARD.html").read_text(encoding="utf-8")
    text = (run.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for said in ("Ours alone", f"chestxray calibrate {NAME} --data", "nih", "Research use only"):
        assert said in card and said in text.replace("\\", "")
    digest = run_folder.Run(run.folder).environment["model"]["published_weights"]["sha256"]
    assert digest in card and f"<td>{PUBLISHED.replace(chr(39), '&#39;')}</td>" in card
    (caution,) = run.limitations
    assert caution.weight == "serious" and "calibrated on no films of yours" in caution.text
    assert html.escape(caution.text) in run._repr_html_()
    (served,) = open_models([run.folder])
    assert served.to_json()["note"] == caution.text and served.card == run.folder / "MODEL_CARD.html"
    assert "its publisher states no operating point" in served.to_json()["chosen_by"]["Rare"]
    assert run.predict(np.zeros((1, 20, 20), np.uint8))["probability_Mass"].between(0, 1).all()
    assert PUBLISHED in run.finding_decision.findings["Mass"].words


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("baselines:chess", r"'baselines:chess' is neither .* nor a ready model.* Did you mean .*baselines:chest"),
        ("nobody:chest", r"'nobody:chest' is neither .*Allowed: .*baselines:chest"),
    ],
)
def test_an_unknown_name_lists_what_there_is(published, name, message):
    with pytest.raises(InputError, match=message) as caught:
        ready_models.folder_of(name)
    assert "\n" not in str(caught.value) and not published.asked


def test_weights_without_findings_are_no_ready_model(publish):
    publish(file_of(network()), findings=(), thresholds=())
    with pytest.raises(InputError, match=r"no published head .*chestxray run --model shallow_cnn --weights chest"):
        ready_models.folder_of(NAME)


def test_a_file_without_the_head_is_refused(publish):
    publish(file_of(network(), ["conv1", "conv2"]))
    with pytest.raises(WeightsError, match="do not fit this architecture: layer hidden"):
        ready_models.folder_of(NAME)


def test_a_file_with_another_number_of_outputs_is_refused(publish):
    publish(file_of(network(outputs=3)))
    with pytest.raises(WeightsError, match="do not fit this architecture: layer logits"):
        ready_models.folder_of(NAME)


def test_a_path_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aa:b").mkdir()
    assert not ready_names.is_name("aa:b") and ready_names.is_name("aa:c")
    assert "is not a run" in call("predict", "aa:b", "x.png", code=2)


def test_it_is_tested_on_other_data(published, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_folder.Run(ready_models.folder_of(NAME))
    found = external_validation.evaluate_on(run, of(table), caches.root())
    assert found.folder.parent.name == "runs"  # nothing is written into the cache
    assert found.published == "" and found.findings_evaluation.scored
    notes = json.loads((found.folder / "audit.json").read_text())["notes"]
    assert any("no copies of them were looked for" in note for note in notes)
    page = found.report.read_text(encoding="utf-8")
    assert "calibrated on no films of yours" in page
    assert not (found.folder / "generalisation_gap.json").exists()
    with pytest.raises(InputError, match=f"{NAME} has no validation films.*sensitivity.*chestxray calibrate"):
        external_validation.evaluate_on(run, of(table, sensitivity=0.9), caches.root())
    with pytest.raises(InputError, match="no test of its own here"):
        external_validation.evaluate_again(run, {}, caches.root())


def test_a_test_on_what_it_has_seen_says_so(published, table, tmp_path):
    rows = pd.read_csv(table)
    labels = ["|".join(n for n in ("Edema", "Mass") if row[n] == 1) or "No Finding" for _, row in rows.iterrows()]
    official = pd.DataFrame({
        "Image Index": rows["path"], "Finding Labels": labels, "Follow-up #": 0, "Patient ID": rows.index // 2,
        "Patient Age": 50, "Patient Gender": "M", "View Position": "PA",
    })  # fmt: skip
    official.to_csv(table.parent / "nih.csv", index=False)
    data = Recipe(data=(f"manifest:{table.parent / 'nih.csv'}",), data_option=("layout=nih",), replicates=100)
    run = run_folder.Run(ready_models.folder_of(NAME))
    found = external_validation.evaluate_on(run, data, caches.root(), output=tmp_path / "test")
    assert "This encoder was trained on nih, which are among these data" in found.report.read_text(encoding="utf-8")


def test_it_is_exported_to_the_current_folder(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Exported: chest-" in call("export", NAME, "--format", "keras")
    (file,) = tmp_path.glob("chest-*-model.keras")
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *SIZE, 1)).astype(np.float32)
    kept = [i for i, name in enumerate(OUTPUTS) if name]
    exported = keras.saving.load_model(file, compile=False)
    np.testing.assert_allclose(
        exported.predict(pixels, verbose=0), network().predict(pixels, verbose=0)[:, kept], atol=1e-5
    )


def test_its_features_are_of_other_data(published, table, tmp_path):
    refusal = f"No data. Name some after {NAME}"
    assert refusal in call("features", NAME, "--output", tmp_path / "f.parquet", code=2)
    options = ("--data-option", "finding_columns=Edema,Mass,Rare", "--output", tmp_path / "f.parquet")
    call("features", NAME, f"manifest:{table}", *options)
    found = pd.read_parquet(tmp_path / "f.parquet")
    model = network()
    before = keras.Model(model.input, model.get_layer("logits").input)
    pixels = np.stack([np.asarray(Image.open(path)) for path in found["path"]])[..., np.newaxis].astype(np.float32)
    expected = before.predict(pixels, verbose=0)
    np.testing.assert_allclose(np.stack(found["features"]), expected, rtol=1e-4, atol=1e-5)


def test_there_are_no_training_images_to_quantise_it_with(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = call("export", NAME, "--format", "onnx", "--quantise", "int8", code=2)
    assert f"training images of a run, and {NAME} has none" in said
    assert not list(tmp_path.glob("*.onnx"))


def test_it_is_calibrated_on_other_films(published, table, tmp_path):
    output = call(
        "calibrate", NAME, "--data", f"manifest:{table}", "--data-option", "finding_columns=Edema,Mass,Rare",
        "--replicates", 100, "--heatmaps", 0, "--output", tmp_path / "mine",
    )  # fmt: skip
    assert "Report:" in output
    run = run_folder.open_findings(tmp_path / "mine")
    assert run.calibrated_from == NAME and run.history.empty and not run.published
    rule = run.finding_decision.findings
    assert rule["Edema"].chosen and rule["Edema"].calibration.method != "none"
    # Too few patients have it: everything is as published.
    assert rule["Rare"].threshold == 0.5 and rule["Rare"].calibration.method == "none"
    assert "the threshold is the one before (its publisher states no" in rule["Rare"].chosen_by
    counts = run.index.rows["split"].value_counts()
    assert counts["validation"] > counts["test"]
    # The network's own outputs, calibrated as the rule says, are those of the saved model and of the table.
    table_of = run.finding_predictions
    pixels = np.stack([np.asarray(Image.open(path)) for path in table_of.rows["path"]])[..., np.newaxis]
    raw = network().predict(pixels.astype(np.float32), verbose=0)[:, [OUTPUTS.index(name) for name in TRAINED]]
    np.testing.assert_allclose(table_of.probabilities, run.finding_decision.calibrated(raw), atol=1e-5)
    np.testing.assert_allclose(
        run.model.predict(pixels.astype(np.float32), verbose=0), table_of.probabilities, atol=1e-5
    )
    page = run.report.read_text(encoding="utf-8")
    assert f"Nothing was trained: the network is that of {NAME}" in page and "Loss:" not in page
    assert "None in this run: the network is that of" in (run.folder / "MODEL_CARD.md").read_text().replace("\\", "")
    # Its own films are no films to calibrate it on again.
    with pytest.raises(LeakError, match="images of labels are among those that the run was trained or chosen on"):
        calibration.calibrate(run.folder, of(table, split_seed=7), caches.root(), output=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_second_calibration_follows_the_first():
    model = network()
    pixels = np.random.default_rng(0).uniform(0, 255, (3, *SIZE, 1)).astype(np.float32)
    logits = logits_model(model).predict(pixels, verbose=0)
    set_calibration(model, [2.0, 1.0, 0.5, 1.0], [0.0, 1.0, 0.0, -1.0])
    set_calibration(model, 0.5, [1.0, 0.0, 0.0, 0.0])
    expected = logits * [1.0, 0.5, 0.25, 0.5] + [1.0, 0.5, 0.0, -0.5]
    np.testing.assert_allclose(model.predict(pixels, verbose=0), 1 / (1 + np.exp(-expected)), atol=1e-5)


def test_what_cannot_be_calibrated_is_refused_before_anything_is_written(published, table, tmp_path):
    folder = ready_models.folder_of(NAME)
    rows = pd.read_csv(table)
    rows.rename(columns={"Edema": "A", "Mass": "B", "Rare": "C"}).to_csv(table.parent / "other.csv", index=False)
    other = Recipe(data=(f"manifest:{table.parent / 'other.csv'}",), data_option=("finding_columns=A,B,C",))
    with pytest.raises(DataError, match=r"(?s)No finding of .* is left.*Asked for: Mass, Edema, Rare"):
        calibration.calibrate(folder, other, caches.root(), output=tmp_path / "mine")
    rows.head(12).to_csv(table.parent / "few.csv", index=False)
    few = of(table.parent / "few.csv", validation_share=0.5, test_share=0.3)
    with pytest.raises(DataError, match="too few patients to calibrate any finding") as caught:
        calibration.calibrate(folder, few, caches.root(), output=tmp_path / "mine")
    assert "\n" not in str(caught.value) and not (tmp_path / "mine").exists()
    assert "none.csv" in call("calibrate", NAME, "--data", "manifest:none.csv", code=2)
