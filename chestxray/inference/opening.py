"""Opens what answers for images: a finished run's folder, an ensemble's, or an exported ONNX file.

Nothing of a run's folder is imported for an ONNX file, so that a server of one needs no pandas.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import xxhash

from chestxray.data.images.reading import MAX_PIXELS
from chestxray.inference.engine import Engine
from chestxray.models import startup


def is_onnx(path: Path) -> bool:
    """Whether `path` is a file that is named as an ONNX file is."""
    return path.suffix.lower() == ".onnx" and path.is_file()


def open_engine(path: Path, *, threads: int | None = None, seconds: float | None = None) -> Engine:
    """The engine at `path`. `threads` and `seconds` are of an ONNX file, as `OnnxEngine` takes them.

    Raises:
        InputError: no run, or no weights.
        DataError: a damaged file.
    """
    if is_onnx(path):
        from chestxray.inference.onnx_engine import OnnxEngine

        return OnnxEngine(path, threads=threads, seconds=seconds)
    return _of_runs().load_engine(path)


def max_pixels(path: Path) -> int:
    """Most pixels an image may have: as the run was given, or by default of an exported file."""
    if is_onnx(path):
        return MAX_PIXELS
    return _of_runs().max_pixels(path)


def fingerprint(path: Path, options: str = "") -> str:
    """16 digits that tell whatever answers depend on, and `options`, from those of another model."""
    if not is_onnx(path):
        return _of_runs().fingerprint(path, options)
    digest = xxhash.xxh3_64(options.encode())
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _of_runs() -> ModuleType:
    """Return what opens runs. With another backend than TensorFlow its import would end in a traceback of Keras.

    Raises:
        InputError: another backend; TensorFlow or Keras is not installed.
    """
    startup.require_tensorflow("Answering with a run")
    from chestxray.inference import keras_engine

    return keras_engine
