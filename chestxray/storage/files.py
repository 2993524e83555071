"""Atomic writing, so that a killed program leaves the old file or the new one, never a part; safe reading."""

import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chestxray.errors import OutputError

#: What `refusal` returns for a path that does not exist.
ABSENT = (os.strerror(errno.ENOENT), os.strerror(errno.ENOTDIR))

#: How the names of files begin that are being written.
_PART = ".part-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there replaces `path` at the end of the block.

    The temporary name has the same ending as `path`, since many writers choose a format by it. If the
    block raises, the temporary file is deleted.

    Raises:
        OutputError: the disk is full, the folder cannot be written, or `path` is a pipe or device.
    """
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_PART, suffix=f"-{path.name}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with explained(path):
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Delete what a killed program left below `folder` of files that it was writing; nobody may be writing there."""
    for part in folder.rglob(f"{_PART}*"):
        part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically. Raises as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8. Raises as `replacing`."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` atomically, as JSON. Raises as `replacing`, and ValueError for NaN and infinity,
    which JSON does not have.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise `OutputError` in place of the operating system's errors if `path` cannot be written in the block."""
    try:
        yield
    except OSError as error:
        reasons: dict[int | None, str] = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EACCES: "permission denied",
            errno.EROFS: "the file system is read-only",
        }
        if error.errno not in reasons:
            raise
        raise OutputError(f"Cannot write {path}: {reasons[error.errno]}.") from error


def refusal(path: Path) -> str:
    """Return why `path` cannot be accessed, such as ``Permission denied``; ``""`` if it can.

    `Path.exists`, `is_file` and `is_dir` return False for some of these errors and raise others.
    """
    try:
        os.stat(path)  # noqa: PTH116 - as above
    except (OSError, ValueError) as error:
        return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
    return ""


def content(path: Path, most: int) -> bytes:
    """Return the bytes of a file of at most `most` bytes; never waits for a pipe or device.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger; ``strerror`` says which.
    """
    try:
        # Checked before it is opened: some devices act when they are opened.
        _require_regular(os.stat(path).st_mode, path)  # noqa: PTH116 - Path.stat is the same
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            _require_regular(status.st_mode, path)
            # Also limits a file that grows while it is read, or that reports no size (/proc).
            found = file.read(most + 1) if status.st_size <= most else b""
            if found is None:
                raise OSError(errno.EAGAIN, "it has nothing to be read at present", str(path))
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if len(found) > most or status.st_size > most:
        raise OSError(errno.EFBIG, f"it is larger than the {most:,} bytes allowed", str(path))
    return found


def check_size(path: Path, most: int) -> None:
    """Check the size and kind of a file that a library will open. Raises as `content`."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    _require_regular(status.st_mode, path)
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"it is larger than the {most:,} bytes allowed", str(path))


def check_writable(path: Path) -> None:
    """Raise `OutputError` if `path` is a pipe, a device or a socket: writing would wait for it, or replace it."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (OSError, ValueError):
        return  # absent, or the following write reports the error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OutputError(f"Cannot write {path}: it is {_kind(mode)}; it must be a file.")


def _require_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {_kind(mode)} and no file", str(path))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "of an unknown kind")


def _open_at_once(path: str, flags: int) -> int:
    # Never blocks, even if the file was replaced by a pipe after the check, or is a system file that waits for events.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
