"""The machine as this process may use it: processors, memory, limits, text encoding, clock, folders."""

from __future__ import annotations

import contextlib
import locale
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chestxray.errors import ChestXrayError
from chestxray.storage import cache

#: Files of a folder that are counted, so that a large cache is not walked for minutes.
COUNTED = 100_000
_CGROUP = Path("/sys/fs/cgroup")


def facts() -> dict[str, Any]:
    """Return processors, memory in bytes, limits, encodings and the clock, None for what this system does not tell."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "processors_usable": _usable(),
        "avx": _avx(),
        "memory": _memory("MemTotal"),
        "memory_available": _memory("MemAvailable"),
        "memory_limit": _number(_CGROUP / "memory.max"),
        "nvidia_devices": len(list(Path("/dev").glob("nvidia[0-9]*"))),
        "limits": _limits(),
        "locale": _locale(),
        "encoding": sys.getfilesystemencoding(),
        "output_encoding": getattr(sys.stdout, "encoding", None),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "installed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_installed())),
    }


def folders(cache_folder: str | Path | None, output: str | Path | None) -> dict[str, Any]:
    """Return path, filesystem, free and used bytes of the cache, the output, temporary files and shared memory, and
    ``trouble``: why nothing can be written there, ``""`` if it can.
    """
    found = {"output": _folder(output or Path("runs")), "temporary": _folder(Path(tempfile.gettempdir()))}
    if Path("/dev/shm").is_dir():  # noqa: S108 - it is looked at, and no file of ours has its name there
        found["shared memory"] = _folder(Path("/dev/shm"))  # noqa: S108
    return {"cache": _cache(cache_folder), **found}


def _cache(chosen: str | Path | None) -> dict[str, Any]:
    if "://" in str(chosen or ""):
        return _remote(str(chosen))
    try:
        path = cache.root(chosen)
    except (ChestXrayError, OSError) as error:
        return {"path": str(chosen or ""), "filesystem": "", "trouble": str(error)}
    sizes, files = _used(path)
    return _folder(path) | {"bytes": sizes, "files": files, "files_counted_at_most": COUNTED}


def _remote(address: str) -> dict[str, Any]:
    """An address is not examined, and may hold a key."""
    return {"path": f"{address.partition('://')[0]}://...", "filesystem": "remote", "trouble": ""}


def _folder(path: str | Path) -> dict[str, Any]:
    """Of the folder, or of the nearest one above it that exists: a run makes the rest."""
    if "://" in str(path):
        return _remote(str(path))
    path = Path(path).expanduser().absolute()
    there = next((folder for folder in (path, *path.parents) if folder.is_dir()), Path(path.anchor))
    found: dict[str, Any] = {"path": str(path), "filesystem": _filesystem(there), "trouble": _trouble(path, there)}
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage(there)
        found |= {"free": usage.free, "size": usage.total}
    with contextlib.suppress(OSError, AttributeError):
        status = os.statvfs(there)
        # A filesystem that makes them as they are needed reports none at all.
        found["files_free"] = status.f_favail if status.f_files else None
    return found


def _trouble(path: Path, there: Path) -> str:
    below = next((folder for folder in (path, *path.parents) if folder.exists()), there)
    if below != there:
        return f"{below} is a file"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"chestxray")
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _used(folder: Path) -> tuple[int, int]:
    """Bytes and number of the files in `folder`, of at most `COUNTED`."""
    bytes_, files = 0, 0
    for root, _, names in os.walk(folder):
        for name in names:
            if files == COUNTED:
                return bytes_, files
            with contextlib.suppress(OSError):
                bytes_ += (Path(root) / name).lstat().st_size
            files += 1
    return bytes_, files


def _filesystem(path: Path) -> str:
    """The type of the filesystem, ``""`` where the system has no list of mounts."""
    best, kind = "", ""
    for line in _lines(Path("/proc/self/mountinfo")):
        before, _, after = line.partition(" - ")
        mount = before.split()[4].encode().decode("unicode_escape", "replace") if len(before.split()) > 4 else ""
        if mount and path.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, (after.split() or [""])[0]
    return kind


def _processor() -> str:
    names = (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _avx() -> bool | None:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    flags = next((line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("flags")), None)
    return None if flags is None else "avx" in flags.split()


def _usable() -> int:
    import joblib

    # The smallest of the processors, this process's share of them and the limit of its container.
    return int(joblib.cpu_count())


def _memory(name: str) -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    if name == "MemTotal" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _limits() -> dict[str, int | None]:
    """The soft limits of this process, None for none."""
    try:
        import resource
    except ImportError:  # Windows
        return {}
    names = {"open files": "NOFILE", "processes": "NPROC", "address space": "AS", "file size": "FSIZE", "core": "CORE"}
    kinds = {name: getattr(resource, f"RLIMIT_{kind}", None) for name, kind in names.items()}
    soft = {name: resource.getrlimit(kind)[0] for name, kind in kinds.items() if kind is not None}
    return {name: None if value == resource.RLIM_INFINITY else value for name, value in soft.items()}


def _locale() -> str:
    try:
        return ".".join(part for part in locale.getlocale() if part) or "C"
    except ValueError as error:  # LC_ALL names none that is known
        return f"unknown ({error})"


def _installed() -> float:
    """When chestxray's files were written here, in seconds: a clock that is before that is wrong."""
    import chestxray

    return Path(str(chestxray.__file__)).stat().st_mtime


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
