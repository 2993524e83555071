"""`npz:PATH`: arrays in the layout of MedMNIST, ``{train,val,test}_{images,labels}``."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from chestxray.data.images.pixels import MAX_PIXELS
from chestxray.data.index import Index
from chestxray.data.sources.folder import expanded
from chestxray.data.sources.materialised import Contents, Item, converted, png
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.storage.files import ABSENT, refusal

#: Maximum size in bytes of the labels of a split, and of the names of the classes.
_MOST = 500_000_000
_MOST_CLASSES = 10_000
#: Exceptions raised for damaged archives and array headers.
_BROKEN = (
    ValueError, TypeError, LookupError, EOFError, OSError, OverflowError, SyntaxError, RuntimeError, MemoryError,
    tokenize.TokenError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def load(address: str, options: SourceOptions) -> Index:
    """Write the images of the arrays to the cache as lossless PNG files, and return their index.

    Class names come from the option ``names``, else from the file's array ``names``, else they are the
    numbers of the labels. Images are read one by one: memory does not grow with their number.

    Raises:
        InputError: no such file; fewer names than classes.
        DataError: not an npz file in this layout; several labels per image.
    """
    file = expanded(address).absolute()
    reason = refusal(file)
    if not address or reason or not file.is_file():
        explanation = "" if reason in ("", *ABSENT) else f" ({reason})"
        raise InputError(f"No file {address!r}{explanation}. npz:PATH must name a file in MedMNIST's layout.")
    try:
        with zipfile.ZipFile(file) as archive:
            splits = [name for name in _SPLITS if f"{name}_images.npy" in archive.namelist()]
            if not splits:
                raise DataError(
                    f"{file} is not in MedMNIST's layout (train_images, train_labels, ...). "
                    f"Its arrays: {', '.join(Path(name).stem for name in archive.namelist())}."
                )
            labels = {name: _labels(archive, name, file) for name in splits}
            names = _names(archive, labels, file, options.extra.get("names"))
    except _BROKEN as error:
        raise DataError(f"{file} cannot be read as an npz file: {error}.") from error
    status = file.stat()
    identity = {"path": str(file), "bytes": status.st_size, "changed": status.st_mtime_ns, "names": names}
    return converted("npz", file.stem, identity, options, lambda: Contents(_items(file, labels, names)))


def _items(file: Path, labels: dict[str, np.ndarray], names: list[str]) -> Iterator[Item]:
    try:
        with zipfile.ZipFile(file) as archive:
            for name, numbers in labels.items():
                for number, pixels in zip(numbers, _images(archive, name, len(numbers), file), strict=True):
                    yield _SPLITS[name], names[number], "", "", png(pixels)
    except _BROKEN as error:
        raise DataError(f"{file} cannot be read as an npz file: {error}.") from error


def _labels(archive: zipfile.ZipFile, name: str, file: Path) -> np.ndarray:
    if f"{name}_labels.npy" not in archive.namelist():
        raise DataError(f"{file} has {name}_images but no {name}_labels.")
    labels = _array(archive, f"{name}_labels", file)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{name}_labels of {file} must be one whole number an image. Received: shape {labels.shape}, "
            f"{labels.dtype} (several labels an image are not supported)."
        )
    return labels.astype(np.int64)


def _array(archive: zipfile.ZipFile, name: str, file: Path) -> np.ndarray:
    """Return a small array. Its size is checked first, since memory is allocated by its header."""
    with archive.open(f"{name}.npy") as raw:
        shape, _, dtype = _header(raw)
    size = math.prod(shape) * dtype.itemsize
    if not 0 <= size <= min(_MOST, archive.getinfo(f"{name}.npy").file_size):
        raise DataError(f"{name} of {file} is longer than it can be: {dtype} {shape}.")
    with archive.open(f"{name}.npy") as raw:
        return np.lib.format.read_array(raw, allow_pickle=False)


def _header(raw: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return the shape of an array, whether it is in Fortran order, and its type."""
    version = np.lib.format.read_magic(raw)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(raw)


def _names(archive: zipfile.ZipFile, labels: dict[str, np.ndarray], file: Path, asked: str | None) -> list[str]:
    every = np.concatenate(list(labels.values()))
    if len(every) == 0 or every.min() < 0:
        raise DataError(f"The labels of {file} must be numbers from 0. Received: {every.min(initial=0)}.")
    count = int(every.max()) + 1
    if count > _MOST_CLASSES:
        raise DataError(f"{file} has a label {count - 1}; at most {_MOST_CLASSES:,} classes are allowed.")
    if asked is not None:
        names = [name.strip() for name in asked.split(",")]
    elif "names.npy" in archive.namelist():
        names = [str(name) for name in np.ravel(_array(archive, "names", file))]
    else:
        names = [str(number) for number in range(count)]
    if len(names) < count:
        raise InputError(f"names must name the {count} classes of {file}. Received: {', '.join(names)}.")
    return names


def _images(archive: zipfile.ZipFile, name: str, count: int, file: Path) -> Iterator[np.ndarray]:
    with archive.open(f"{name}_images.npy") as raw:
        shape, by_column, dtype = _header(raw)
        fits = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3) and (shape[3] == 1 or dtype == np.uint8))
        if not fits or by_column or dtype not in (np.uint8, np.uint16):
            raise DataError(
                f"{name}_images of {file} must be uint8 or uint16 of shape (images, height, width), or uint8 "
                f"(images, height, width, 3). Received: {dtype} {shape}."
            )
        if shape[0] != count:
            raise DataError(f"{file} has {shape[0]} {name} images but {count} labels.")
        if shape[1] * shape[2] > MAX_PIXELS or 0 in shape[1:]:
            raise DataError(f"Images of {file} are {shape[1]}x{shape[2]} pixels; at most {MAX_PIXELS:,} are allowed.")
        size = int(np.prod(shape[1:])) * dtype.itemsize
        for _ in range(count):
            content = raw.read(size)
            if len(content) < size:
                raise DataError(f"{name}_images of {file} ends too early.")
            yield np.frombuffer(content, dtype).reshape(shape[1:])


plugin = SourcePlugin(
    load=load,
    address_help="PATH of a file in MedMNIST's layout",
    options={"names": "names of the classes in the order of their numbers, separated by commas"},
)
