"""A disk that is really full: a small file system of its own, where the system allows one."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import json, sys
from pathlib import Path
from chestxray.errors import ChestXrayError
from chestxray.recipe import Recipe
from chestxray.data.sources import load_index
try:
    print(len(load_index(Recipe(data=sys.argv[1]), Path(sys.argv[2]))))
except ChestXrayError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def on_small_disk(folder, kilobytes, *command):
    mount = f'mount -t tmpfs -o size={kilobytes}k tmpfs "$0" && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, str(folder), *command], capture_output=True, text=True, check=False
    )


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("unshare") is None or on_small_disk(folder, 100, "true").returncode:
        pytest.skip("a file system of its own cannot be mounted here (that takes root)")
    return folder


def test_a_full_disk_is_one_line(disk, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (100, 64, 64), dtype=np.uint8)
    labels = (np.arange(100) % 2)[:, None]
    np.savez(tmp_path / "set.npz", train_images=images, train_labels=labels)
    command = (sys.executable, "-c", SCRIPT, f"npz:{tmp_path / 'set.npz'}", str(disk))
    done = on_small_disk(disk, 200, *command)
    name, message = json.loads(done.stdout)
    assert name == "OutputError"
    assert message.endswith("the disk is full.")
    assert message.startswith(f"Cannot write {disk}")
    assert on_small_disk(disk, 4000, *command).stdout == "100\n"
