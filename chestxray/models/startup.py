"""Starts TensorFlow and Keras with oneDNN, and without the lines they print about themselves."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from chestxray.errors import require

#: Lines that TensorFlow's libraries print while they are loaded, before any setting can silence them.
_NOISE = re.compile(
    rb"^(WARNING: All log messages before absl|[IWE]\d{4} |To enable the following instructions"
    rb"|\d{4}-\d\d-\d\d .*(cuda|oneDNN|cpu_feature_guard))"
)


def require_tensorflow(what: str) -> None:
    """Raises `MissingPackageError`, which says that `what` needs them, unless TensorFlow and Keras are installed."""
    require(what, "tensorflow", "keras")


def start() -> None:
    """Import tensorflow and keras. Their greetings are dropped, whatever else they print is passed on.

    oneDNN's kernels are on unless the environment variable ``TF_ENABLE_ONEDNN_OPTS`` says otherwise: by itself
    TensorFlow uses them only on processors with AVX-512 VNNI or AMX, although with AVX2 they train 1.4 to 1.7 times
    as fast. Sums are taken in another order, so that results may differ in their last bits.

    Raises:
        MissingPackageError: they are not installed.
    """
    require_tensorflow("A Keras model")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:  # it looks once, when it is imported
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with quiet():
        import keras  # noqa: F401
        import tensorflow as tf

        # The search for devices has greetings of its own.
        tf.config.list_logical_devices()


@contextmanager
def quiet() -> Iterator[None]:
    """Drop TensorFlow's log lines within the block, which is kept short: whatever else is printed appears at its end.

    File descriptor 2 itself is caught: the lines come from C++, past Python's sys.stderr.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                if not _NOISE.match(line):
                    os.write(2, line)
