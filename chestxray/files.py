"""Files written so that a killed program leaves the old one or the new one, never a part."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chestxray.errors import OutputError

#: What `refusal` says of a path that does not exist.
ABSENT = (os.strerror(errno.ENOENT), os.strerror(errno.ENOTDIR))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there becomes `path` at the end.

    The temporary name ends as `path` does, since many writers look at that. If the block raises,
    nothing is left behind.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".part-", suffix=f"-{path.name}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with explained(path):
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` at once. Raises as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` at once, as UTF-8. Raises as `replacing`."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON; not-a-number is refused rather than written as invalid JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write at `path` into an `OutputError`."""
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
    """Why the operating system does not let `path` be reached, such as ``Permission denied``; ``""`` where it does.

    `Path.exists` and its siblings say no to some of these and raise others.
    """
    try:
        os.stat(path)  # noqa: PTH116 - as above
    except (OSError, ValueError) as error:
        return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
    return ""


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
