"""The folder that a new run is written to: its name, and what it may already contain."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chestxray.errors import OutputError
from chestxray.runs.run_folder import RECIPE, is_run
from chestxray.storage import locks
from chestxray.storage.files import explained

#: Locked by the process that runs or resumes in a folder.
LOCK = "run.lock"
#: Holds what is written until it is whole, see `whole`.
PARTIAL = ".partial"


def default_folder(model: str, data: str) -> Path:
    """Return ``runs/<time>-<model>-<data>`` below the working directory."""
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{slug(model, data)}"


def slug(*parts: str) -> str:
    """Return a short folder name made of the last parts of names and addresses.

    >>> slug("vgg16", "folder:/a/b/kermany")
    'vgg16-kermany'
    """
    names = [re.split(r"[/\\]", part.rstrip("/\\"))[-1] for part in parts]
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(names)).strip("-.")[:80]


def create(folder: Path, *, overwrite: bool) -> bool:
    """Create the folder of a new run, and return whether it is new (False: it was empty or holds an older run).

    With `overwrite`, the files of an older run are kept until `clear` is called.

    Raises:
        OutputError: it exists and is not empty (without `overwrite`, or it is not a run), or cannot be written.
    """
    if folder.exists():
        if not folder.is_dir():
            raise OutputError(f"The output {folder} is a file; it must be a folder.")
        if all(item.name in (LOCK, PARTIAL) for item in folder.iterdir()):
            return False
        if not is_run(folder):
            raise OutputError(f"The output folder {folder} exists and is not a run; choose another with --output.")
        if not overwrite:
            raise OutputError(
                f"The output folder {folder} exists. Allowed: another --output, --overwrite to replace that run, "
                "or --resume to go on with it."
            )
        return False
    with explained(folder):
        try:
            folder.mkdir(parents=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(f"The output folder {folder} cannot be made: a part of its path is a file.") from error
    return True


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from running or resuming in `folder` within the block.

    Raises:
        OutputError: another process is at work there, or the folder cannot be written.
    """
    busy = f"Another process is at work in {folder}. Allowed: to wait for its end, or another --output."
    with locks.exclusive(folder / LOCK, folder, busy, keep=False):
        yield


@contextmanager
def whole(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder to write a run to, whose files take the place of those in `folder` at the end of the block.

    Where the block raises, `folder` stays as it was, or is not made. What a process that is killed leaves, the next one
    replaces.

    Raises:
        OutputError: as `create` and `alone`.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    create(folder, overwrite=overwrite)
    place = folder / PARTIAL
    try:
        with alone(folder), explained(folder):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            try:
                yield place
                clear(folder, keep=PARTIAL)
                for item in sorted(place.iterdir(), key=lambda item: item.name != RECIPE):
                    item.replace(folder / item.name)
            finally:
                shutil.rmtree(place, ignore_errors=True)
    except BaseException:
        for path in missing:
            with suppress(OSError):  # it has content
                path.rmdir()
        raise


def clear(folder: Path, keep: str = LOCK) -> None:
    """Delete the files of an older run in `folder`, but for `keep`. To be called when the new run is about to write its
    first.

    The recipe goes last: what a process that is killed leaves is still a run, which `create` lets be overwritten.
    """
    for item in sorted(folder.iterdir(), key=lambda item: item.name == RECIPE):
        if item.name in (LOCK, keep):
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()
