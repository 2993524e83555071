"""Reads the tensors of a file that ``torch.save`` wrote, without torch and without running anything in it.

Such a file is a pickle, which may call any function of the machine that loads it. Here a pickle can name tensors,
their storages and harmless containers of Python; classes of networks, which files of whole modules name, become
empty stand-ins that are never imported. Whatever else it names is refused. Both formats are read: the archive of
PyTorch 1.6 and later (zip), and the one before it (pickles, and then the storages in a row).
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: The first pickle of the format before PyTorch 1.6, and the version in the second.
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
#: Types of elements, by the class of storage that PyTorch names for them.
_TYPES = {
    "BoolStorage": "bool", "ByteStorage": "uint8", "CharStorage": "int8", "ShortStorage": "int16",
    "IntStorage": "int32", "LongStorage": "int64", "HalfStorage": "float16", "FloatStorage": "float32",
    "DoubleStorage": "float64", "BFloat16Storage": "bfloat16",
}  # fmt: skip
#: Packages whose classes are the layers of a network: a file may name them, and none is imported.
_NETWORKS = ("torch.nn.", "torchvision.models.", "torchxrayvision.")
_CONTAINERS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "Size"): tuple,
}
#: Modules of one network that are looked into; the deepest published ones have a few thousand.
_MOST_MODULES = 100_000


@dataclass(frozen=True)
class _Storage:
    key: str
    kind: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Module:
    """Stands for an object of a network's class: keeps its state and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of the file by name, as PyTorch's ``state_dict`` has them.

    The file holds a state dictionary, one under the key ``state_dict`` or ``model``, or a whole module.

    Raises:
        ValueError: not such a file, one that is cut short, or one that names anything beside tensors and networks.
        OSError: the file cannot be read.
        zipfile.BadZipFile: a damaged archive.
    """
    try:
        found, storages = _archive(path) if zipfile.is_zipfile(path) else _stream(path)
        tensors = _named(found)
        return {name: _array(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}
    except (pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    except (TypeError, RecursionError, MemoryError, NotImplementedError) as error:
        raise ValueError(f"no pickle of tensors ({error})") from error


def _archive(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """Read the format of PyTorch 1.6 and later: ``NAME/data.pkl`` and one entry ``NAME/data/KEY`` a storage."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise ValueError("its entries are compressed, which PyTorch's are not")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise ValueError("its numbers are not little-endian")
        found, storages = _unpickled(io.BytesIO(archive.read(entries["data.pkl"])))
        return found, {
            key: _elements(archive.read(entries[f"data/{key}"]), storage) for key, storage in storages.items()
        }


def _stream(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """Read the format before PyTorch 1.6: five pickles, then the number of elements and the bytes of each storage."""
    content = path.read_bytes()
    file = io.BytesIO(content)
    if _unpickled(file)[0] != _MAGIC or _unpickled(file)[0] != _PROTOCOL:
        raise ValueError("no file of torch.save")
    if not _unpickled(file)[0]["little_endian"]:
        raise ValueError("its numbers are not little-endian")
    found, storages = _unpickled(file)
    arrays, start = {}, 0
    for key in _unpickled(file)[0]:
        start = start or file.tell()
        storage = storages[key]
        length = storage.count * _type(storage).itemsize
        if int.from_bytes(content[start : start + 8], "little") != storage.count:
            raise ValueError(f"storage {key} is not of {storage.count} elements")
        arrays[key] = _elements(content[start + 8 : start + 8 + length], storage)
        start += 8 + length
    return found, arrays


def _unpickled(file: io.BytesIO) -> tuple[Any, dict[str, _Storage]]:
    """Return the object of the next pickle in `file`, and the storages that it names by their keys."""
    start, size = file.tell(), len(file.getbuffer())
    # Bytes that are no pickle, such as an archive that was cut short, may hold what Python warns about.
    with warnings.catch_warnings(action="ignore"):
        for operation, argument, _ in pickletools.genops(file):
            # A place in the memo beyond the file would have memory allocated for all places before it.
            if operation.name in ("PUT", "LONG_BINPUT") and isinstance(argument, int) and argument > size:
                raise ValueError("its pickle is not one that PyTorch writes")
        file.seek(start)
        reader = _Unpickler(file)
        return reader.load(), reader.storages


class _Unpickler(pickle.Unpickler):
    """Admits what a file of tensors needs."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        # A pickle may set attributes of whatever it names: each gets a class or function of its own.
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return lambda *arguments: _tensor(*arguments)
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if module == "torch" and name in _TYPES:
            return name
        # Trainings of the kind of MAE keep the options that they were called with in the same file.
        if f"{module}.".startswith(_NETWORKS) or (module, name) == ("argparse", "Namespace"):
            return type(name, (_Module,), {})
        raise pickle.UnpicklingError(
            f"refused: it names {module}.{name}, which loading it would run or import. Allowed: tensors and networks"
        )

    def persistent_load(self, reference: Any) -> Any:
        kind, *rest = reference
        if kind == "module":  # a class, its file and its source
            return rest[0]
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        name, key, _, count, *view = rest
        if any(view) or name not in _TYPES or not isinstance(count, int) or count < 0:
            raise pickle.UnpicklingError(f"unknown storage {key!r} of {name!r}")
        storage = _Storage(str(key), name, count)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise pickle.UnpicklingError(f"two storages are called {key!r}")
        return storage


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise pickle.UnpicklingError("a tensor without a storage, or of no size")
    return _Tensor(storage, offset, tuple(size), tuple(stride))


def _type(storage: _Storage) -> np.dtype[Any]:
    if _TYPES[storage.kind] == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(_TYPES[storage.kind]).newbyteorder("<")


def _elements(content: bytes, storage: _Storage) -> np.ndarray:
    elements = np.frombuffer(content, _type(storage)) if len(content) % _type(storage).itemsize == 0 else None
    if elements is None or len(elements) != storage.count:
        raise ValueError(f"storage {storage.key} is not of {storage.count} elements")
    return elements


def _array(tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
    """Return `tensor` as a read-only view of its storage."""
    if len(tensor.size) != len(tensor.stride):
        raise ValueError("a tensor with a stride for each of other axes")
    count = math.prod(tensor.size)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    # A tensor that repeats elements (stride 0) could be larger than any memory.
    if count > len(elements) or (count and last >= len(elements)):
        raise ValueError(f"a tensor of shape {tensor.size} does not fit its storage of {len(elements)} elements")
    steps = tuple(step * elements.itemsize for step in tensor.stride)
    return np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.size, steps, writeable=False)


def _named(found: Any) -> dict[str, _Tensor]:
    for key in ("state_dict", "model"):  # of Lightning and torchvision, and of BEiT, MAE and EVA
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    items = found.items() if isinstance(found, Mapping) else _of_module(found)
    tensors = {name: value for name, value in items if isinstance(value, _Tensor) and isinstance(name, str)}
    if not tensors:
        raise ValueError("no tensors of a network in it")
    return tensors


def _of_module(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield parameters and buffers of a module and those in it, under the names that ``state_dict`` gives them."""
    left, looked = [("", root)], 0
    while left:
        prefix, module = left.pop()
        looked += 1
        if not isinstance(module, _Module) or looked > _MOST_MODULES:
            raise ValueError("neither a dictionary of tensors nor a network")
        state = vars(module)
        for kind in ("_parameters", "_buffers"):
            yield from ((prefix + name, value) for name, value in state.get(kind, {}).items())
        left += [(f"{prefix}{name}.", child) for name, child in state.get("_modules", {}).items() if child is not None]
