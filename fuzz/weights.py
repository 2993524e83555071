"""Files of weights: .h5 as Keras 2 and 3 write it, .keras, .safetensors, .pt in both of PyTorch's formats."""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import save

from chestxray.models.weight_files import opened
from fuzz.mutation import mutated

#: What a network would ask for; larger arrays are known by their shapes alone, and not read.
_LARGEST = 10_000_000


def prepare(folder: Path, _: contextlib.ExitStack) -> Callable[[random.Random], None]:
    """A case that opens one changed file and reads its arrays."""
    three, two = _keras3(), _keras2()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.weights.h5", three)
    tensors = save({"conv/kernel": np.ones((3, 3, 1, 4), "f4"), "conv/bias": np.ones(4, "f4")})
    files = [(".h5", two), (".weights.h5", three), (".keras", buffer.getvalue()), (".safetensors", tensors)]
    files += [(".pt", _torch_archive()), (".pth", _torch_stream())]

    # What is refused before it is changed would never be looked into.
    for suffix, content in files:
        (folder / f"a{suffix}").write_bytes(content)
        _read(folder / f"a{suffix}", None)

    def case(rng: random.Random) -> None:
        suffix, content = rng.choice(files)
        path = folder / f"a{suffix}"
        path.write_bytes(mutated(rng, content, rng.choice(files)[1]))
        _read(path, rng.choice((None, _converted)))

    return case


def _converted(tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return dict(tensors)


def _read(path: Path, convert: Any) -> None:
    with opened(path, convert, ("conv",), {}) as layers:
        for layer in layers:
            for array in layer.arrays.values():
                if np.prod([float(side) for side in array.shape]) < _LARGEST:
                    array.read()


def _keras3() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for key in ("conv2d", "conv2d_1", "dense"):
            group = file.create_group(f"layers/{key}/vars")
            group.attrs["name"] = key
            group.create_dataset("0", data=np.ones((3, 3, 1, 4), "f4"), chunks=(3, 3, 1, 2), compression="gzip")
            group.create_dataset("1", data=np.ones(4, "f4"))
        file.create_group("layers/functional/layers/dense/vars")["0"] = np.ones(4, "f4")
    return buffer.getvalue()


def _keras2() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = [b"conv", b"dense"]
        for name in ("conv", "dense"):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
            group[f"{name}/kernel:0"] = np.ones((3, 3, 1, 4), "f4")
            group[f"{name}/bias:0"] = np.ones(4, "f4")
    return buffer.getvalue()


def _torch_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", _TORCH_PICKLE)
        archive.writestr("a/data/0", np.ones(36, "f4").tobytes())
    return buffer.getvalue()


def _torch_stream() -> bytes:
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    pickles = b"".join(pickle.dumps(value, protocol=2) for value in head) + _TORCH_PICKLE
    return pickles + pickle.dumps(["0"], protocol=2) + (36).to_bytes(8, "little") + np.ones(36, "f4").tobytes()


#: {"conv/kernel": a tensor of shape (3, 3, 1, 4), the storage "0"}, as PyTorch pickles it.
_TORCH_PICKLE = (
    b"\x80\x02}X\x0b\x00\x00\x00conv/kernelctorch._utils\n_rebuild_tensor_v2\n("
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK$tQ"
    b"K\x00(K\x03K\x03K\x01K\x04t(K\x0cK\x04K\x04K\x01t\x89ccollections\nOrderedDict\n)RtRs."
)
