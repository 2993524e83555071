"""Whole runs with JAX, each in a process where TensorFlow cannot be imported, and their models under TensorFlow."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import chestxray
from chestxray.explanation.inference_graph import OnePass
from chestxray.runs.run_folder import Run
from chestxray.storage import checksums
from drawn_findings import films

COMMAND = Path(__file__).with_name("command.py")
SMALL = (
    "--model", "shallow_cnn", "--image-size", 16, "--batch-size", 8, "--test-share", 0.3, "--replicates", 100,
    "--heatmaps", 1, "--no-controls",
)  # fmt: skip


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    """48 images of 24 patients in two folders; those of the second are brighter."""
    root = tmp_path_factory.mktemp("data") / "xrays"
    for number in range(48):
        label = ("normal", "pneumonia")[number % 2]
        pixels = np.random.default_rng(number).normal(100 + 40 * (number % 2), 30, (20, 24))
        path = root / label / f"p{number // 4}{number % 2}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return f"folder:{root}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return {**os.environ, "KERAS_BACKEND": "jax", "CHESTXRAY_CACHE": str(tmp_path_factory.mktemp("cache"))}


def start(environment, *arguments):
    command = [sys.executable, COMMAND, "run", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process, seconds=400):
    printed, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, printed
    return printed


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start_two(environment, *arguments):
    address = f"127.0.0.1:{free_port()}"
    return [
        start(environment, *arguments, "--hosts", 2, "--host-index", number, "--coordinator", address)
        for number in range(2)
    ]


@pytest.fixture(scope="module")
def trained(xrays, environment, tmp_path_factory):
    """A run from scratch on one host. Augmentation and mixing are drawn by seed, so that hosts can share them."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    options = (*SMALL, "--data", xrays, "--patient-pattern", r"(p\d+)_", "--epochs", 2, "--augment", "heavy")
    # Adam would turn the rounding of a gradient near zero into a step of full length.
    options += ("--mix", "mixup", "--schedule", "plateau", "--optimizer", "sgd", "--learning-rate", 0.01)
    finished(start(environment, *options, "--output", folder))
    return folder, options


def test_a_run_needs_no_tensorflow_and_its_model_answers_alike_under_it(trained, tmp_path):
    run = chestxray.load(trained[0])
    assert run.environment.backend == "jax"
    assert run.environment.packages["jax"]
    predictions = Run(trained[0]).predictions
    rows = predictions.rows[predictions.rows["split"] == "test"].head(6)
    columns = [f"probability_{name}" for name in predictions.classes]
    answers = run.predict(list(rows["path"]))
    np.testing.assert_allclose(answers[columns].to_numpy(), rows[columns].to_numpy(), atol=1e-5)


def test_heat_maps_of_jax_equal_those_of_tensorflow(trained, environment, tmp_path):
    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 1)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import keras, numpy as np\n"
        "from chestxray.explanation.inference_graph import Graph, OnePass, _jitted\n"
        f"model = keras.saving.load_model({str(trained[0] / 'model.keras')!r}, compile=False)\n"
        f"images = np.load({str(tmp_path / 'images.npy')!r})\n"
        "layer = [one.name for one in model.layers if len(one.output.shape) == 4][-1]\n"
        "probabilities, maps = OnePass(model, layer)(images)\n"
        f"np.savez({str(tmp_path / 'jax.npz')!r}, probabilities=probabilities, maps=maps, layer=layer)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
    there = np.load(tmp_path / "jax.npz")
    probabilities, maps = OnePass(Run(trained[0]).model, str(there["layer"]))(images)
    np.testing.assert_allclose(there["probabilities"], probabilities, atol=1e-5)
    np.testing.assert_allclose(there["maps"], maps, atol=1e-4 * maps.max())
    assert maps.max() > 0


def test_two_hosts_train_what_one_trains(trained, environment, tmp_path):
    folder, options = trained
    first, second = start_two(environment, *options, "--output", tmp_path / "two")
    printed = finished(second)
    finished(first)
    assert "host 0 evaluates it" in printed
    assert "Epoch 1" not in printed
    one, two = Run(folder).model, Run(tmp_path / "two").model
    for here, there in zip(one.weights, two.weights, strict=True):
        np.testing.assert_allclose(np.asarray(here), np.asarray(there), atol=1e-5)
    columns = ["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    alone, shared = (Run(path).history[columns].to_numpy() for path in (folder, tmp_path / "two"))
    np.testing.assert_allclose(alone, shared, atol=1e-4)


def test_a_lost_host_ends_the_others_with_a_line_and_the_run_goes_on(trained, environment, tmp_path):
    _, options = trained
    folder = tmp_path / "lost"
    many = (*options, "--epochs", 400, "--output", folder)
    first, second = start_two(environment, *many)
    deadline = time.monotonic() + 300
    while not list(folder.glob("state/*/epoch-000[3-9].npz")):
        assert time.monotonic() < deadline
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.2)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    printed, _ = first.communicate(timeout=180)
    assert first.returncode == 1, printed
    assert "lost: the training cannot go on without it" in printed
    assert "Traceback" not in printed
    # It would train for long: its epochs are cut short, as if it had begun with fewer.
    recipe = folder / "recipe.toml"
    done = len(Run(folder).history)
    recipe.write_text(recipe.read_text().replace("epochs = 400", f"epochs = {done + 2}"))
    known = json.loads((folder / checksums.FILE).read_text())
    checksums.write(folder, known)
    first, second = start_two(environment, "--resume", folder)
    finished(first)
    finished(second)
    assert len(Run(folder).history) == done + 2


def test_frozen_layers_run_once_and_weights_of_a_file_are_taken(trained, xrays, environment, tmp_path):
    folder, _ = trained
    weights = shutil.copy(folder / "model.keras", tmp_path / "start.keras")
    options = (*SMALL, "--data", xrays, "--patient-pattern", r"(p\d+)_", "--epochs", 1, "--head-epochs", 1)
    options += ("--augment", "none")
    printed = finished(start(environment, *options, "--weights", weights, "--output", tmp_path / "run"))
    assert "Frozen layers ran once an image" in printed
    assert list(Run(tmp_path / "run").history["phase"]) == ["head", "finetune"]


def test_findings(environment, tmp_path):
    (tmp_path / "films").mkdir()
    table = films(tmp_path / "films")
    options = (
        *SMALL, "--data", f"manifest:{table}", "--data-option", "finding_columns=Edema,Mass,Rare", "--epochs", 1,
        "--validation-share", 0.3, "--monitor", "auroc", "--augment", "light",
    )  # fmt: skip
    finished(start(environment, *options, "--output", tmp_path / "run"))
    run = Run(tmp_path / "run")
    assert run.task == "findings"
    assert np.isfinite(run.history["val_auroc"]).all()
    assert json.loads((tmp_path / "run/heatmaps/index.json").read_text())["images"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--backend", "torch"), "The backend must be tensorflow or jax. Received: 'torch'."),
        (("--jit-compile", "off"), "jit_compile off is not for JAX, which computes nothing else. Allowed: auto, on."),
    ],
)
def test_what_is_not_offered_is_a_line(xrays, environment, tmp_path, options, said):
    process = start(environment, *SMALL, "--data", xrays, "--output", tmp_path / "run", *options)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 2, printed
    assert said in printed
    assert "Traceback" not in printed
