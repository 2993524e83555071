"""What the tests share: tiny images on disk, a tiny architecture, the folder of real data."""

import logging
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import numpy as np
import pytest
from PIL import Image

from made import tiny_plugin

# The same examples in every run, however busy the machine: a test that fails has failed for a reason.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or fills the cache of whoever runs it."""
    monkeypatch.setenv("CHESTXRAY_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def own_log():
    """What a command sets of our log, as with ``--quiet``, is not what the next test finds."""
    logger = logging.getLogger("chestxray")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.propagate, logger.handlers[:] = before[1:]


@pytest.fixture
def real_data():
    """The folder of real radiographs."""
    folder = os.environ.get("CHESTXRAY_REAL_DATA")
    if not folder:
        pytest.skip("CHESTXRAY_REAL_DATA is not set: no real radiographs to test on")
    return Path(folder).resolve(strict=True)


@pytest.fixture
def draw():
    """A function that writes a grey image whose pixels depend on its number alone."""

    def write(path: Path, number: int, size=(20, 24)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def folder(tmp_path, draw):
    """A folder of two classes, twelve patients each, two images a patient."""
    root = tmp_path / "xrays"
    for k, label in enumerate(("normal", "pneumonia")):
        for patient in range(12):
            for n in range(2):
                draw(root / label / f"p{k}{patient:02d}_{n}.png", 1000 * k + 10 * patient + n)
    return root


@pytest.fixture
def tiny():
    """An architecture that is built and trained in a moment."""
    return tiny_plugin()
