"""Pipes, devices, circles of links and files of 200 GB where a file is expected: one line, and never a wait."""

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from chestxray.data.images import reading
from chestxray.data.images.pixels import UnreadableImage
from chestxray.data.sources import npz, table
from chestxray.errors import DataError, OutputError, WeightsError
from chestxray.models import weight_files
from chestxray.plugin import SourceOptions
from chestxray.storage.files import replacing

#: In a process of its own, since what waits for a pipe cannot be interrupted by the test.
PROGRAM = """
import json, sys
from pathlib import Path
from chestxray import recipe_files
from chestxray.data.images import reading
from chestxray.inference import output_file
from chestxray.models import weight_files
from chestxray.errors import ChestXrayError
from chestxray.plugin import SourceOptions
from chestxray.data.sources import manifest, npz

def weights(path):
    with weight_files.opened(Path(path), None, [], {}):
        pass

def output(path):
    with output_file.alone(Path(path)):
        pass

options = SourceOptions(cache=Path("cache"))
ways = {
    "image": lambda path: reading.read(Path(path)),
    "manifest": lambda path: manifest.load(path, options),
    "npz": lambda path: npz.load(path, options),
    "recipe": recipe_files.read,
    "weights": weights,
    "output": output,
}
told = {}
for way, path in json.load(sys.stdin):
    try:
        ways[way](path)
        told[f"{way} {path}"] = "read"
    except ChestXrayError as error:
        told[f"{way} {path}"] = str(error)
json.dump(told, sys.stdout)
"""
ODD = {
    "image": {
        "pipe": "it is a pipe and no file",
        "zero": "it is a device and no file",
        "circle": "Too many levels of symbolic links",
        "folder": "Is a directory",
        "huge.png": "it is larger than the 864,000,000 bytes allowed",
        "nul\0": "embedded null",
    },
    "manifest": {
        "pipe": "No manifest", "zero": "No manifest", "circle": "Too many levels", "huge.csv": "larger than the",
        "nul\0": "embedded null",
    },
    "npz": {
        "pipe": "No file", "zero": "No file", "circle": "Too many levels", "huge.npz": "cannot be read as an npz",
        "nul\0": "embedded null",
    },
    "recipe": {
        "pipe": "No recipe", "zero": "No recipe", "circle": "Too many levels", "huge.toml": "larger than the 1,000,000",
        "deep.toml": "nested too deep", "nul\0": "embedded null", "folder": "No recipe",
    },
    "weights": {
        "pipe.h5": "it is a pipe", "zero": "it is a device", "circle": "Too many levels", "huge.h5": "larger than the",
        "huge.keras": "larger than the", "huge.safetensors": "larger than the", "nul\0": "embedded null",
    },
    "output": {
        "pipe": "it is a pipe; it must be a file", "zero": "it is a device; it must be a file", "folder": "is a folder",
        "circle": "Too many levels",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What is said of each odd file, by "WAY NAME"."""
    root = tmp_path_factory.mktemp("odd")
    for name in ("pipe", "pipe.h5"):
        os.mkfifo(root / name)
    (root / "zero").symlink_to("/dev/zero")
    (root / "circle").symlink_to("circle")
    (root / "folder").mkdir()
    (root / "deep.toml").write_text("a = " + "[" * 50_000)
    for suffix in ("png", "csv", "npz", "toml", "h5", "keras", "safetensors"):
        with (root / f"huge.{suffix}").open("wb") as file:
            file.truncate(200_000_000_000)  # none of which is on the disk
    asked = [(way, name) for way, names in ODD.items() for name in names]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(asked),
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        timeout=200,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(("way", "name"), [(way, name) for way, names in ODD.items() for name in names])
def test_what_is_no_file_or_too_large_is_one_line(told, way, name):
    said = told[f"{way} {name}"]
    assert ODD[way][name] in said
    assert len(said.splitlines()) == 1


def test_a_file_of_the_system_that_has_no_size_is_bounded(tmp_path):
    with pytest.raises(UnreadableImage):
        reading.read(tmp_path / "absent.png")
    with pytest.raises(UnreadableImage, match="not an image"):
        reading.read(Path("/proc/self/stat"))


def test_a_device_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="it is a pipe"), replacing(tmp_path / "pipe"):
        raise AssertionError
    with pytest.raises(OutputError, match="it is a device"), replacing(Path("/dev/null")):
        raise AssertionError


def test_a_table_that_unpacks_to_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "MOST", 1_000_000)
    with gzip.open(tmp_path / "a.csv.gz", "wb") as file:
        file.write(bytes(1_000_001))
    with pytest.raises(DataError, match="unpacked it is larger than the 1,000,000 bytes"):
        table.read_table(tmp_path / "a.csv.gz")
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", bytes(1_000_001))
    with pytest.raises(DataError, match="unpacked it is larger than the 1,000,000 bytes"):
        table.read_table(tmp_path / "a.xlsx")


def test_labels_that_claim_to_be_long_take_no_memory(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("train_images.npy", header.getvalue())
        archive.writestr("train_labels.npy", header.getvalue())
    with pytest.raises(DataError, match=r"train_labels of .* is longer than it can be"):
        npz.load(str(tmp_path / "a.npz"), SourceOptions(cache=tmp_path))


def _weights(path, convert=None):
    with weight_files.opened(path, convert, [], {}) as layers:
        return [array.read() for layer in layers for array in layer.arrays.values()]


def test_groups_linked_a_billion_times_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        inner = file.create_group("last")
        for depth in range(30):
            outer = file.create_group(f"step_{depth}/layers")
            outer["a"] = outer["b"] = inner
            inner = outer.parent
        file["layers"] = inner["layers"]
    with pytest.raises(WeightsError, match="more than 100,000 layers"):
        _weights(tmp_path / "a.h5")


def test_chunks_much_larger_than_their_array_are_not_unpacked(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        # A chunk of 400 MB that is a few hundred kilobytes in the file.
        group.create_dataset("0", (4,), "f4", maxshape=(None,), chunks=(100_000_000,), compression="gzip")
    with pytest.raises(WeightsError, match="stored in chunks"):
        _weights(tmp_path / "a.h5")
