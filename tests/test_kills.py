"""A run that is killed and resumed ends as one that was left alone, to the bit. At random moments: `fuzz.kills`."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fuzz.run_equality import differences

START = "from chestxray.cli.main import main; main()"


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", START, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(*arguments):
    with start(*arguments) as process:
        errors = process.communicate(timeout=600)[1]
    assert process.returncode == 0, errors


def killed(sent, file, *arguments):
    """Send the signal when `file` is there; return exit code and standard error."""
    with start(*arguments) as process:
        try:
            deadline = time.monotonic() + 600
            while not file.is_file() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(sent)
            errors = process.communicate(timeout=600)[1]
        finally:
            process.kill()
    return process.returncode, errors


@pytest.mark.slow
def test_a_killed_run_is_resumed_to_the_same_bits_in_other_processes(folder, tmp_path):
    recipe = [
        "run", "--model", "shallow_cnn", "--data", f"folder:{folder}", "--image-size", 16, "--batch-size", 8,
        "--patient-pattern", r"(p\d+)_", "--test-share", 0.3, "--epochs", 3, "--replicates", 100, "--heatmaps", 1,
        "--schedule", "plateau", "--mix", "mixup", "--augment", "heavy", "--deterministic",
    ]  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ended(*recipe, "--output", whole, "--cache", tmp_path / "cache")
    other = ("--cache", tmp_path / "other")
    code, _ = killed(signal.SIGKILL, cut / "history.csv", *recipe, "--output", cut, *other)
    assert code == -signal.SIGKILL
    assert not (cut / "predictions.csv").exists()
    code, errors = killed(signal.SIGTERM, cut / "model.keras", "run", "--resume", cut, *other)
    assert code == 143, errors
    assert f"chestxray run --resume {cut}" in errors
    assert errors.rstrip().endswith("Stopped by SIGTERM.")
    ended("run", "--resume", cut, *other)
    assert not (found := differences(whole, cut)).other, found
    assert found.largest == 0, found
    assert json.loads((cut / "environment.json").read_text())["deterministic"] is True
    _, planted = shutil.copytree(whole, tmp_path / "planted"), tmp_path / "planted"
    predictions = planted / "predictions.csv"
    lines = predictions.read_text().splitlines(keepends=True)
    column = next(i for i, name in enumerate(lines[0].split(",")) if name.startswith("probability_"))
    cells = lines[1].split(",")
    cells[column] = repr(np.nextafter(float(cells[column]), 1.0).item())
    predictions.write_text("".join([lines[0], ",".join(cells), *lines[2:]]))
    assert 0 < differences(whole, planted).largest < 1e-6, "the comparison sees the last bit"
