"""What chestxray does where its extra `serve` is installed and TensorFlow is not: `tox -e light`.

Nothing is replaced here: the environment of this test has no TensorFlow, Keras, matplotlib or PyArrow.
"""

import csv
import importlib.util
import io
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import chestxray
from chestxray.cli.main import COMMANDS, group
from chestxray.errors import MissingPackageError
from chestxray.explanation.overlay import overlay


def chestxray_command(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-c", "from chestxray.cli.main import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
    )


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for name, grey in (("dark", 51), ("bright", 204)):
        Image.new("L", (40, 30), grey).save(folder / f"{name}.png")
    return folder


def test_nothing_that_only_training_needs_is_installed():
    absent = ("tensorflow", "keras", "h5py", "datasets", "kagglehub", "safetensors", "matplotlib", "pyarrow")
    assert [name for name in absent if importlib.util.find_spec(name)] == []


def test_an_onnx_file_is_served(model):
    command = [sys.executable, "-c", "from chestxray.cli.main import main; main()", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            said = server.stderr.readline()
            assert said.startswith("Serving on "), said + server.stderr.read()
            answer = asked(said.split()[-1])
        finally:
            server.terminate()
    assert server.returncode == 0
    assert answer["decision"] == "sick"
    assert (answer["map"]["peak"], answer["map"]["highest"]) == (pytest.approx(0.8), 2.0)
    assert (answer["map"]["badge"], answer["map"]["sentence"]) == ("fails", "The maps fail.")
    assert answer["probabilities"] == pytest.approx({"clear": 0.2, "sick": 0.8}, abs=1e-6)


def asked(root):
    """The answer of the server at `root` for an image whose pixels are all 204."""
    buffer = io.BytesIO()
    Image.new("L", (40, 30), 204).save(buffer, "PNG")
    headers = {"Content-Type": "image/png"}
    request = urllib.request.Request(f"{root}/api/predict?maps=true", buffer.getvalue(), headers, method="POST")
    for _ in range(100):
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)["answers"][0]
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("no answer")


def test_an_onnx_file_predicts_and_explains(model, films, tmp_path):
    done = chestxray_command("predict", model, films, "--csv", "--heatmaps", tmp_path / "maps")
    assert done.returncode == 0, done.stderr
    rows = {Path(row["path"]).stem: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert {name: row["decision"] for name, row in rows.items()} == {"dark": "clear", "bright": "sick"}
    assert float(rows["dark"]["probability_sick"]) == pytest.approx(0.2, abs=1e-6)
    overlays = {path.name.partition("-")[0]: np.asarray(Image.open(path)) for path in (tmp_path / "maps").iterdir()}
    assert set(overlays) == {"dark", "bright"}
    for name, grey in (("dark", 51), ("bright", 204)):
        expected = overlay(np.full((16, 16), grey, np.uint8), np.full((16, 16), grey / 255 / 2))
        assert (overlays[name][8, 8] == expected[8, 8]).all(), "on the scale of the file"
        assert (overlays[name][0] == [215, 25, 28]).all(), "it fails"
    assert "one scale, 0 to 2 (grey)" in done.stderr and "The maps fail." in done.stderr


def test_rows_that_are_there_are_not_predicted_again(model, films, tmp_path):
    table = tmp_path / "answers.csv"
    assert chestxray_command("predict", model, films, "--output", table).returncode == 0
    first = table.read_bytes()
    again = chestxray_command("predict", model, films, "--output", table)
    assert again.returncode == 0 and "Nothing is left to do." in again.stderr
    assert table.read_bytes() == first


def test_what_an_onnx_file_cannot_tell_is_one_line(model, films):
    done = chestxray_command("predict", model, films, "--abstain", "0.9")
    assert done.returncode == 2
    assert "learned from its validation predictions" in done.stderr and done.stderr.count("\n") == 1


def test_predictions_of_any_program_are_evaluated_and_compared():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    first = np.clip(0.3 * truth + rng.random(200) * 0.7, 0.01, 0.99)
    second = np.clip(0.2 * truth + rng.random(200) * 0.8, 0.01, 0.99)
    patients = np.arange(200) // 2
    evaluated = chestxray.evaluate(truth, first, groups=patients, replicates=200)
    assert "<table" in evaluated._repr_html_()
    table = evaluated.to_frame()
    assert 0.5 < table.loc["auroc", "low"] < table.loc["auroc", "value"] < table.loc["auroc", "high"] < 1
    found = chestxray.compare({"a": first, "b": second}, truth, groups=patients, replicates=200)
    assert len(found.pairs) == 1 and "<table" in found._repr_html_()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    done = CliRunner().invoke(group, [command, "--help"])
    assert done.exit_code == 0 and "Usage" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("models",),
        ("recipes",),
        ("data", "list"),
        ("cache", "show"),
        ("plan", "--auroc", "0.9", "--prevalence", "0.3"),
    ],
    ids=" ".join,
)
def test_what_needs_no_tensorflow_works(arguments):
    done = CliRunner().invoke(group, arguments)
    assert done.exit_code == 0 and done.output


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (("run", "--model", "inceptionv3"), "Training needs tensorflow, keras", "train"),
        (("run", "--model", "vgg16", "--data", "phantom", "--folds", "3"), "Training needs tensorflow", "train"),
        (("compare", "--model", "a", "--model", "b", "--data", "phantom"), "Training needs tensorflow", "train"),
        (("leakage", "--model", "a", "--data", "phantom"), "Training needs tensorflow", "train"),
        (("data", "show", "phantom"), "`chestxray data` needs matplotlib", "report"),
        (("compare", "a", "b"), "`chestxray compare` needs matplotlib", "report"),
        (("explain", "a", "film.dcm", "--dicom"), "--dicom needs highdicom", "dicom-output"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_is_missing_is_said_with_what_to_install(arguments, missing, extra, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(group, arguments).exception
    assert isinstance(said, MissingPackageError)
    assert missing in str(said) and str(said).endswith(f"pip install 'chestxray[{extra}]'")
    assert list(tmp_path.iterdir()) == []


def test_it_is_said_in_one_line(tmp_path):
    done = chestxray_command("run", "--model", "inceptionv3", "--data", "phantom", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "Error: Training needs tensorflow, keras: pip install 'chestxray[train]'\n"


def test_from_python_it_is_said_too():
    with pytest.raises(
        MissingPackageError, match=r"^Training needs tensorflow, keras: pip install 'chestxray\[train\]'$"
    ):
        chestxray.run(model="inceptionv3", data="phantom")


def test_onnx_runtime_sends_and_keeps_nothing_of_its_own(model, tmp_path):
    places = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | places
    # As a CI, ONNX Runtime would suppress it by itself.
    for name in ("CI", "GITHUB_ACTIONS", "TF_BUILD"):
        environment.pop(name, None)
    code = "import sys; from pathlib import Path; from chestxray.inference.onnx_engine import OnnxEngine as E; "
    code += "import numpy as np; E(Path(sys.argv[1])).run(np.zeros((1, 16, 16), np.uint8))"
    subprocess.run([sys.executable, "-c", code, str(model)], check=True, env=environment, timeout=120)
    assert list(tmp_path.rglob("*")) == []
