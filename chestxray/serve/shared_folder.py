"""The folder in which the processes of a server count: requests of clients, and what ``/metrics`` tells."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Make the folder in which the workers count requests: in memory where the platform has such a place, else among
    the temporary files. Removed at the end by the process that made it.

    Must be entered before `prometheus_client` is imported, which reads its place from the environment.
    """
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it is made by mkdtemp
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    folder, maker = Path(tempfile.mkdtemp(prefix="chestxray-serve-", dir=place)), os.getpid()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    try:
        yield folder
    finally:
        if os.getpid() == maker:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]
            shutil.rmtree(folder, ignore_errors=True)
