"""The part that needs chestxray alone, on files as the other part writes them; the other where torch is at hand."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).parents[1]


def save(path: Path, skill: float, seed: int, images: int = 120) -> Path:
    rng = np.random.default_rng(7)
    label = rng.integers(0, 2, images // 2).repeat(2)  # two films a patient
    logits = np.random.default_rng(seed).normal(size=(images, 2)) + skill * np.eye(2)[label]
    np.savez(
        path,
        probability=(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32),
        label=label,
        patient=np.array([f"person{i // 2}" for i in range(images)]),
        classes=np.array(["NORMAL", "PNEUMONIA"]),
    )
    return path


def evaluated(*paths: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, HERE / "evaluate_probabilities.py", *paths]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_two_models_are_evaluated_and_compared(tmp_path):
    done = evaluated(save(tmp_path / "good.npz", 2.0, 0), save(tmp_path / "poor.npz", 0.2, 1))
    assert done.returncode == 0, done.stderr
    good, poor = done.stdout.split("poor\n", 1)
    value, low, high = map(float, next(line for line in good.splitlines() if line.startswith("auroc")).split()[1:])
    assert 0.8 < low < value < high <= 1
    assert "sensitivity" in poor and "clustered by patient" in poor


def test_files_of_other_images_are_refused_in_a_line(tmp_path):
    done = evaluated(save(tmp_path / "a.npz", 2.0, 0), save(tmp_path / "b.npz", 2.0, 0, images=80))
    assert done.returncode == 1
    assert done.stderr.strip() == "b is of other images than a, so that they do not compare."


def test_logits_are_refused_in_a_line(tmp_path):
    path = save(tmp_path / "a.npz", 2.0, 0)
    with np.load(path) as saved:
        np.savez(path, **(dict(saved) | {"probability": np.log(saved["probability"])}))
    done = evaluated(path)
    assert done.returncode == 1
    assert "no probabilities from 0 to 1" in done.stderr and "Traceback" not in done.stderr


def test_what_torch_saves_is_what_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    spec = importlib.util.spec_from_file_location("save_probabilities", HERE / "save_probabilities.py")
    saving = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(saving)
    for label in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "test" / label).mkdir(parents=True)
        for i in range(4):
            film = np.random.default_rng(i).integers(0, 256, (40, 40), np.uint8)
            Image.fromarray(film).save(tmp_path / "test" / label / f"person{i // 2}{label[0]}_{i}.png")
    torch.manual_seed(0)
    torch.save(saving.network(2).state_dict(), tmp_path / "weights.pt")
    saving.save(tmp_path / "weights.pt", tmp_path / "test", tmp_path / "test.npz")
    with np.load(tmp_path / "test.npz") as saved:
        assert saved["probability"].shape == (8, 2)
        assert saved["probability"].sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert evaluated(tmp_path / "test.npz").returncode == 0
