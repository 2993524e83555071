"""Starts TensorFlow and Keras, without their pages about themselves."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

#: What TensorFlow's libraries print while they are loaded, before any setting can silence them.
_NOISE = re.compile(
    rb"^(WARNING: All log messages before absl|[IWE]\d{4} |To enable the following instructions"
    rb"|\d{4}-\d\d-\d\d .*(cuda|oneDNN|cpu_feature_guard))"
)


def start() -> None:
    """Import tensorflow and keras. Their greetings are dropped, whatever else they print is passed on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _greetings_dropped():
        import keras  # noqa: F401
        import tensorflow as tf

        # The search for devices has greetings of its own.
        tf.config.list_logical_devices()


@contextmanager
def _greetings_dropped() -> Iterator[None]:
    """Catch file descriptor 2 itself: the greetings come from C++, past Python's sys.stderr."""
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
