"""Starts TensorFlow and Keras with oneDNN, and without the lines they print about themselves."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from chestxray.errors import InputError, require
from chestxray.models import backend

#: Lines that TensorFlow's libraries print while they are loaded, before any setting can silence them.
_NOISE = re.compile(
    rb"^(WARNING: All log messages before absl|[IWE]\d{4} |To enable the following instructions|\[Gloo\] "
    rb"|\d{4}-\d\d-\d\d .*(cuda|oneDNN|cpu_feature_guard))"
)


def require_tensorflow(what: str) -> None:
    """Raises `MissingPackageError`, which says that `what` needs them, unless TensorFlow and Keras are installed, and
    `InputError` where Keras is to compute with another backend.
    """
    if backend.on_jax():
        raise InputError(
            f"{what} computes with TensorFlow here; JAX is for `chestxray run`. Unset {backend.VARIABLE}. "
            f"Received: {backend.VARIABLE}=jax."
        )
    require(what, "tensorflow", "keras")


def require_backend(what: str) -> None:
    """Raises `MissingPackageError` unless Keras and the backend that it is to compute with are installed."""
    require(what, backend.chosen(), "keras")


def start() -> None:
    """Import keras and its backend. Their greetings are dropped, whatever else they print is passed on.

    oneDNN's kernels are on unless the environment variable ``TF_ENABLE_ONEDNN_OPTS`` says otherwise: by itself
    TensorFlow uses them only on processors with AVX-512 VNNI or AMX, although with AVX2 they train 1.4 to 1.7 times
    as fast. Sums are taken in another order, so that results may differ in their last bits. Memory of a GPU is taken as
    it is needed, unless ``TF_FORCE_GPU_ALLOW_GROWTH`` says otherwise.

    Raises:
        MissingPackageError: they are not installed.
    """
    require_backend("A Keras model")
    if backend.on_jax():
        import jax  # noqa: F401
        import keras

        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Else the first process takes all memory of a GPU, and a second one on it fails.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if "tensorflow" not in sys.modules:  # it looks once, when it is imported
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with quiet():
        import keras  # noqa: F401
        import tensorflow as tf

        # The search for devices has greetings of its own.
        tf.config.list_logical_devices()


def make_deterministic(seed: int) -> None:
    """Make TensorFlow use deterministic algorithms alone, from now on and until the process ends.

    To be called before a graph is built. The same program with the same data then gives the same bits on the same
    machine: kernels that add in the order in which threads come are replaced by others (or raise
    ``UnimplementedError``, where there are none), and the functions of an input pipeline are called one after the
    other. A plugin's random operations that have no seed of their own take `seed`.
    """
    import tensorflow as tf

    tf.random.set_seed(seed)
    tf.config.experimental.enable_op_determinism()


def is_deterministic() -> bool:
    """Whether `make_deterministic`, or the program itself, has made TensorFlow deterministic."""
    if sys.modules.get("tensorflow") is None:
        return False
    from tensorflow.python.framework import config

    return bool(config.is_op_determinism_enabled())


@contextmanager
def quiet(descriptor: int = 2) -> Iterator[None]:
    """Drop TensorFlow's log lines within the block, which is kept short: whatever else is printed appears at its end.

    The file descriptor itself is caught: the lines come from C++, past Python's sys.stderr.
    """
    sys.stderr.flush()
    sys.stdout.flush()
    with tempfile.TemporaryFile() as caught:
        kept = os.dup(descriptor)
        os.dup2(caught.fileno(), descriptor)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                if not _NOISE.match(line):
                    os.write(descriptor, line)
