"""Reads weight files of Keras networks, layer by layer, in any of their formats.

Shapes are known on opening; an array is read only when it is asked for, so a file that declares
huge arrays costs nothing. Nothing is unpickled and no model is deserialised.
"""

from __future__ import annotations

import errno
import io
import itertools
import math
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chestxray.errors import WeightsError, first_line
from chestxray.storage.files import check_size

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".weights.h5", ".h5", ".keras", ".safetensors")
#: Bytes of a file: four times the largest network that Keras has weights for.
MOST = 8_000_000_000
#: Groups of an HDF5 file that are looked into. The deepest network that Keras has weights for has 5,000.
_MOST_GROUPS = 100_000
#: Bytes that HDF5 may unpack at once beyond the array that is read.
_CHUNK = 64_000_000

Shapes = Mapping[str, tuple[int, ...]]
Convert = Callable[[Mapping[str, Any], Shapes], Mapping[str, Any]]


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, not read yet."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class StoredLayer:
    """The arrays that a file keeps for one layer.

    - ``name``: the layer's name when the file was written; ``""`` where the format did not keep it.
    - ``kind``: the layer's class in snake case (Keras 3), ``""`` where the format does not tell
      (Keras 2). Layers of one kind come in the order of ``model.layers``. None (safetensors): only
      names tell which layer is meant.
    - ``arrays``: by ``"vars/0"`` or ``"sublayer/vars/0"`` (Keras 3), ``"0"`` (Keras 2: the place in
      ``layer.weights``) or ``"kernel"`` (safetensors).
    """

    name: str
    kind: str | None
    arrays: Mapping[str, StoredArray]


@contextmanager
def opened(path: Path, convert: Convert | None, names: Collection[str], shapes: Shapes) -> Iterator[list[StoredLayer]]:
    """Yield the layers in the file, those of one kind in the order in which they were written.

    `convert` is used on a safetensors file that does not hold the layers called `names`; it receives `shapes`,
    {"layer/variable": shape} of the model.

    Raises:
        WeightsError: no such file, no such format, or a broken file; also where an array that is
            read inside the block cannot be.
    """
    _require_file(path)
    from safetensors import SafetensorError

    with ExitStack() as stack:
        # A file that is cut short or forged fails in many ways, inside three libraries.
        try:
            layers = _layers(path, convert, names, shapes, stack)
        except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError) as error:
            raise _broken(path, error) from error
        except (ValueError, SafetensorError, zipfile.BadZipFile) as error:
            raise _broken(path, error) from error
        try:
            yield layers
        except (OSError, SafetensorError) as error:
            raise _broken(path, error) from error


def _require_file(path: Path) -> None:
    try:
        check_size(path, MOST)
    except OSError as error:
        reasons: dict[int | None, str] = {errno.EISDIR: "it is a folder", errno.ENOENT: "no such file"}
        reason = reasons.get(error.errno, error.strerror or str(error))
        raise WeightsError(f"Cannot read weights from {path}: {reason}.") from error
    if not path.name.lower().endswith(SUFFIXES):
        raise WeightsError(
            f"Cannot read weights from {path}: the name must end in {', '.join(SUFFIXES[:-1])} "
            f"or {SUFFIXES[-1]}. Received: {path.suffix or 'no suffix'}."
        )


def _broken(path: Path, error: Exception) -> WeightsError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return WeightsError(f"Cannot read weights from {path}: it is cut short, or not what its name says ({reason}).")


def _layers(
    path: Path, convert: Convert | None, names: Collection[str], shapes: Shapes, stack: ExitStack
) -> list[StoredLayer]:
    import h5py

    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _safetensors_layers(path, convert, names, shapes)
    file = stack.enter_context(h5py.File(_archived(path) if suffix == ".keras" else path, "r"))
    if "layer_names" not in file.attrs and isinstance(file.get("model_weights"), h5py.Group):
        file = file["model_weights"]
    legacy = "layer_names" in file.attrs or "layer_names0" in file.attrs
    layers = _keras2_layers(file) if legacy else list(_keras3_layers(file))
    if not layers:
        raise ValueError("no layers of a Keras model in it")
    return layers


def _archived(path: Path) -> io.BytesIO:
    """The weights inside a .keras archive."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("model.weights.h5")
        # Keras stores weights uncompressed, and trained ones would hardly compress.
        if entry.file_size > 50 * path.stat().st_size:
            raise ValueError(f"model.weights.h5 unpacks to {entry.file_size} bytes")
        try:
            return io.BytesIO(archive.read(entry))
        except Exception as error:  # zipfile, zlib, bz2 and lzma have errors of their own, EOFError among them
            raise ValueError(first_line(error)) from error


def _datasets(group: h5py.Group) -> dict[str, StoredArray]:
    """All arrays below `group` by their path. Links that lead out of the file are not followed."""
    import h5py

    found: dict[str, StoredArray] = {}

    def visit(name: str, item: Any) -> None:
        # An external or virtual dataset would read other files of this machine.
        if isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:
            found[name] = StoredArray(item.shape, lambda: _read_dataset(item))

    group.visititems(visit)
    return found


def _read_dataset(dataset: h5py.Dataset) -> np.ndarray:
    # HDF5 unpacks whole chunks, which may be larger than the array that they hold.
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > 2 * dataset.nbytes + _CHUNK:
        raise OSError(f"{dataset.name} is stored in chunks of {dataset.chunks} elements")
    if dataset.attrs.get("dtype") == "bfloat16":  # which HDF5 does not know: Keras marks it so
        import ml_dtypes

        return np.array(dataset, dtype=ml_dtypes.bfloat16)
    return np.asarray(dataset)


def _keras3_layers(group: h5py.Group, count: Iterator[int] | None = None) -> Iterator[StoredLayer]:
    """Layers of a Keras 3 file, ``layers/<class>_<number>/vars/<number>``; nested models opened up."""
    count = itertools.count() if count is None else count
    layers = group.get("layers", {})
    for key in sorted(layers, key=_class_and_number):
        # Links may make one group a hundred, each of these a hundred more, and so on.
        if next(count) > _MOST_GROUPS:
            raise ValueError(f"more than {_MOST_GROUPS:,} layers")
        layer = layers[key]
        if "layers" in layer:
            yield from _keras3_layers(layer, count)
            continue
        arrays = {name: array for name, array in _datasets(layer).items() if "seed_generator" not in name}
        if arrays:
            name = layer["vars"].attrs.get("name", "") if "vars" in layer else ""
            yield StoredLayer(str(name), _class_and_number(key)[0], arrays)


def _class_and_number(key: str) -> tuple[str, int]:
    """``conv2d_12`` to ``("conv2d", 12)``, and ``conv2d`` to ``("conv2d", 0)``."""
    match = re.fullmatch(r"(.*)_(\d+)", key)
    return (match[1], int(match[2])) if match else (key, 0)


def _keras2_layers(group: h5py.Group) -> list[StoredLayer]:
    """Layers of a Keras 2 file: names in the attributes, in the order of ``model.layers``."""
    arrays = _datasets(group)
    layers = []
    listed = _strings(group, "layer_names")
    if len(set(listed)) < len(listed):
        raise ValueError("a layer is named twice")
    for name in listed:
        weight_names = _strings(group[name], "weight_names")
        if weight_names:
            own = {str(place): arrays[f"{name}/{weight}"] for place, weight in enumerate(weight_names)}
            layers.append(StoredLayer(name, "", own))
    return layers


def _strings(group: h5py.Group, name: str) -> list[str]:
    """A list of names in the attributes, which Keras 2 cut into ``name0``, ``name1``, ... when long."""
    parts = [name] if name in group.attrs else []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(f"{name}{len(parts)}")
    values = [value for part in parts for value in group.attrs[part]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _safetensors_layers(
    path: Path, convert: Convert | None, names: Collection[str], shapes: Shapes
) -> list[StoredLayer]:
    from safetensors import safe_open

    file = safe_open(path, framework="numpy")
    found = {
        key: StoredArray(tuple(file.get_slice(key).get_shape()), partial(file.get_tensor, key))
        for key in file.keys()  # noqa: SIM118 - not a mapping
    }
    if convert and not set(names) <= {key.partition("/")[0] for key in found}:
        converted = convert({key: array.read() for key, array in found.items()}, shapes)
        found = {key: StoredArray(np.shape(array), partial(np.asarray, array)) for key, array in converted.items()}
    layers: dict[str, dict[str, StoredArray]] = {}
    for key, array in found.items():
        layer, slash, variable = key.partition("/")
        if not slash:
            raise ValueError(f"arrays must be named layer/variable; received: {key}")
        layers.setdefault(layer, {})[variable] = array
    return [StoredLayer(name, None, arrays) for name, arrays in layers.items()]
