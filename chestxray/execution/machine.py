"""What this machine can do at once: processors, memory, GPUs. TensorFlow is not loaded to find out."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from chestxray.execution.parts import Part

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def gpus() -> list[str]:
    """Return the names of this machine's GPUs, as in ``CUDA_VISIBLE_DEVICES``, which if set chooses among them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",") if name.strip()]
        # As CUDA reads it: whatever follows an impossible number is not visible.
        return names[: names.index("-1")] if "-1" in names else names
    listing = shutil.which("nvidia-smi")
    if listing is None:
        return []
    asked = [listing, "--query-gpu=index", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603 - no input of a user
    return found.stdout.split() if found.returncode == 0 else []


def memory() -> int:
    """Return the bytes of memory that are free, or that the container allows if these are fewer."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        # Counts the cached files too, which give way.
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limits = [text for file in _LIMITS if file.is_file() and (text := file.read_text().strip()).isdecimal()]
    return min([free, *map(int, limits)])


def workers(parts: Sequence[Part], present: Sequence[str]) -> int:
    """Return how many of `parts` to do at a time on this machine with the GPUs `present`; at least one.

    As many as there are GPUs for, or, without GPUs, as many as keep its processors busy; and no more than the free
    memory allows.
    """
    from joblib import cpu_count

    asked = max((min(part.gpus, len(present)) for part in parts), default=0)
    by_device = len(present) // asked if asked else cpu_count() // max((part.processors for part in parts), default=1)
    by_memory = memory() // max(1, max((part.memory for part in parts), default=1))
    return max(1, min(by_device, by_memory, len(parts)))
