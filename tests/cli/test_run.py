"""Wrong input: one clear line, exit code 2, nothing half written. As a user meets it: in a process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHESTXRAY = [sys.executable, "-c", "from chestxray.cli.main import main; main()"]


def chestxray(*arguments, cwd, **options):
    command = [*CHESTXRAY, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=cwd, check=False, **options)


def refused(result, *words):
    message = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 2, result.stderr
    assert message.startswith("Error: ")
    assert "Traceback" not in result.stderr
    missing = [word for word in words if word not in message]
    assert not missing, f"{missing} not in {message}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "inceptionv4"], ["inceptionv4", "Did you mean inceptionv3"]),
        ([], ["No model", "chestxray models"]),
        (["--model", "shallow_fc", "--data", "floder:x"], ["floder", "Did you mean folder"]),
        (["--model", "shallow_fc", "--data", "folder:absent"], ["absent", "PATH/CLASS"]),
        (["--model", "shallow_fc", "--data", "folder:empty"], ["No images under", "empty"]),
        (["--model", "shallow_fc", "--data", "folder:one"], ["single class", "well"]),
        (["--model", "shallow_fc", "--data", "folder:rare"], ["'sick'", "has 1 readable", "at least 3"]),
        (["--model", "shallow_fc", "--data", "folder:broken"], ["None of the 5 images", "'sick'"]),
        (["--model", "inceptionv3", "--image-size", "64"], ["image_size", "75x75", "64x64"]),
        (["--model", "shallow_fc", "--image-size", "big"], ["image_size", "HEIGHTxWIDTH", "big"]),
        (["--model", "shallow_fc", "--epochs", "-3"], ["epochs", "at least 0", "-3"]),
        (["--model", "shallow_fc", "--weights", "absent.h5"], ["weights", "none", "absent.h5"]),
        (["--model", "shallow_fc", "--recipe", "nothing"], ["No recipe", "demonstration"]),
        (
            ["--model", "shallow_fc", "--data", "folder:rare", "--patient-pattern", "("],
            ["pattern", "regular"],
        ),
        (["--model", "shallow_fc", "--data", "folder:rare", "--patient-pattern", "x"], ["group"]),
        (["--resume", "absent"], ["absent", "not a run"]),
        (["--resume", "absent", "--epochs", "3"], ["--resume", "epochs"]),
        (["--model", "shallow_fc", "--output", "one"], ["one", "is not a run"]),
        (["--model", "shallow_fc", "--output", "file/run"], ["file/run", "is a file"]),
    ],
)
def test_wrong_input(tmp_path, draw, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, sick in (("one", 0), ("rare", 1), ("broken", 5)):
        for i in range(5):
            draw(tmp_path / name / "well" / f"{i}.png", i)
        for i in range(sick):
            draw(tmp_path / name / "sick" / f"{i}.png", 100 + i)
    for path in (tmp_path / "broken" / "sick").iterdir():
        path.write_bytes(b"\x89PNG")
    before = sorted(tmp_path.rglob("*"))
    refused(chestxray("run", *arguments, cwd=tmp_path), *words)
    assert sorted(path for path in tmp_path.rglob("*") if path != tmp_path / "runs") == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(chestxray("run", "--model", "shallow_fc", "--output", "locked/run", cwd=tmp_path), "permission denied")


def test_weights_by_name_without_a_network(folder, tmp_path):
    # A proxy that is not there stands for a network that is not there.
    offline = {
        **os.environ,
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "KERAS_HOME": str(tmp_path),
    }
    arguments = [
        "--model",
        "inceptionv3",
        "--data",
        f"folder:{folder}",
        "--image-size",
        "75",
        "--epochs",
        "1",
    ]
    result = chestxray("run", *arguments, "--output", "r", cwd=tmp_path, env=offline)
    refused(result, "inception_v3_weights", "--weights none")
    assert not (tmp_path / "r").exists()


def test_weights_of_another_architecture(folder, tmp_path):
    code = (
        "import keras; x = keras.Input((8, 8, 3)); y = keras.layers.Conv2D(2, 3)(x); "
        "keras.Model(x, y).save_weights('other.weights.h5')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    arguments = [
        "--model",
        "shallow_cnn",
        "--data",
        f"folder:{folder}",
        "--image-size",
        "16",
        "--epochs",
        "1",
    ]
    result = chestxray("run", *arguments, "--weights", "other.weights.h5", "--output", "r", cwd=tmp_path)
    refused(result, "other.weights.h5", "conv")
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl_c", "sigterm"])
def test_a_signal_keeps_what_is_done_and_says_how_to_go_on(folder, tmp_path, sent, code):
    arguments = ["--model", "shallow_fc", "--data", f"folder:{folder}", "--image-size", "16"]
    # Who runs the tests in the background may have told them to ignore Ctrl-C, which children inherit.
    hearing = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + CHESTXRAY[-1]
    command = [sys.executable, "-c", hearing, "run", *arguments, "--epochs", "100000", "--patience", "0"]
    piped = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([*command, "--output", "r"], cwd=tmp_path, **piped) as process:
        try:
            history = tmp_path / "r" / "history.csv"
            deadline = time.monotonic() + 400
            while not history.is_file() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
            process.send_signal(sent)
            _, errors = process.communicate(timeout=200)
        finally:
            process.kill()
    assert process.returncode == code, errors
    assert "chestxray run --resume r" in errors
    assert "Traceback" not in errors
    assert (Path(tmp_path) / "r" / "recipe.toml").is_file()
    assert not list((tmp_path / "r").rglob(".part-*"))


@pytest.mark.slow
def test_progress_goes_to_stderr_and_results_to_stdout(tmp_path):
    """Every step says what it does, the time it takes is estimated, and TensorFlow's own log is not seen."""
    options = ["--image-size", "16", "--epochs", "2", "--batch-size", "8", "--replicates", "100", "--no-controls"]
    data = "phantom:patients=24,size=32"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    command = ["run", "--model", "shallow_cnn", "--data", data, *options, "--output", "run"]
    result = chestxray(*command, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    steps = (
        "This run will train 2 epochs of shallow_cnn on", "Loading TensorFlow ...", "Building the network ...",
        "Compiling the training step ...", "will take about", "Epoch 1 of 2", "Epoch 2 of 2",
        "Predicting validation and test ...", "100 bootstrap replicates ...", "Drawing heat maps ...",
        "Writing the report ...",
    )  # fmt: skip
    places = [result.stderr.find(step) for step in steps]
    assert -1 not in places, [step for step, place in zip(steps, places, strict=True) if place < 0]
    assert places == sorted(places)
    assert "Epoch" not in result.stdout
    assert "auroc" in result.stdout
    assert "auroc" not in result.stderr
    for word in ("absl", "I0000", "E0000", "W0000", "oneDNN", "cuda"):
        assert word not in result.stdout + result.stderr
