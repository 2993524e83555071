"""Image files below folders: one walk for the folders that are trained on and those that are predicted."""

from __future__ import annotations

import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chestxray.data.images.reading import SUFFIXES, UNREAD_SUFFIXES
from chestxray.errors import DataError, InputError
from chestxray.storage.files import ABSENT, refusal

log = logging.getLogger(__name__)


def walk(
    root: Path,
    enter: Callable[[str, str], bool],
    unlisted: Callable[[OSError], None],
    again: Callable[[str], None] = lambda inner: None,
) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each folder below `root`: its path, its path below `root` (``""`` for `root`), and the names of its
    files, sorted. Hidden files and folders are left out; links are followed, but never in a circle.

    Args:
        root: where the walk begins.
        enter: says of a folder's path below `root` and the name of a folder in it whether to go on there.
        unlisted: receives the error of each folder that cannot be listed.
        again: receives the path below `root` of each folder that was visited before under another name.
    """
    seen: set[tuple[int, int]] = set()
    for folder, children, names in os.walk(root, onerror=unlisted, followlinks=True):
        inner = "" if folder == str(root) else os.path.relpath(folder, root).replace(os.sep, "/")
        status = os.stat(folder)  # noqa: PTH116 - os.walk gives text
        if (status.st_dev, status.st_ino) in seen:
            again(inner)
            children.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        children[:] = [name for name in sorted(children) if not name.startswith(".") and enter(inner, name)]
        yield folder, inner, sorted(name for name in names if not name.startswith("."))


def listed(paths: Iterable[Path], *, recursive: bool = False) -> list[str]:
    """Return the files among `paths` and the image files in the folders among them, those of a folder sorted.

    In a folder, hidden files are skipped, and so are files without an image suffix, which are counted in the log;
    a file without any suffix is taken if it has DICOM's magic number. Images in formats that are not supported
    (such as GIF) and folders that cannot be listed are among the results, so that reading them reports the reason.
    With `recursive`, folders below are searched too, except hidden ones, ``__MACOSX`` and cyclic links. No file is
    returned twice.

    Raises:
        InputError: a path that does not exist or cannot be reached.
        DataError: a folder without images.
    """
    paths = list(paths)
    if missing := [(path, reason) for path in paths if (reason := refusal(path))]:
        more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        path, reason = missing[0]
        what = "No such file or folder" if reason in ABSENT else f"Cannot be reached ({reason})"
        raise InputError(f"{what}: {path}{more}.")
    found: dict[str, None] = {}
    search = _Search(recursive)
    for path in paths:
        if not path.is_dir():
            found[str(path)] = None
            continue
        inside = list(search.images(path))
        if not inside:
            hint = "" if recursive else " Folders below it are searched with --recursive."
            raise DataError(f"No images in {path}. Looked for files ending in {' '.join(sorted(SUFFIXES))}.{hint}")
        found.update(dict.fromkeys(inside))
    search.say()
    return list(found)


@dataclass
class _Search:
    """Searches folders for images, and counts what is skipped."""

    recursive: bool
    passed_over: Counter[str] = field(default_factory=Counter)
    not_searched: int = 0
    unlisted: list[OSError] = field(default_factory=list)

    def images(self, root: Path) -> Iterator[str]:
        """Yield the image files in `root`, and the folders that cannot be listed."""
        refused: list[OSError] = []
        for folder, _, names in walk(root, self._enter, refused.append):
            for name in names:
                path = Path(folder, name)
                suffix = path.suffix.lower()
                if suffix in SUFFIXES or suffix in UNREAD_SUFFIXES or (not suffix and _may_be_dicom(path)):
                    yield str(path)
                else:
                    self.passed_over[suffix or "(none)"] += 1
        self.unlisted += refused
        yield from (str(error.filename) for error in refused)

    def _enter(self, inner: str, name: str) -> bool:
        wanted = name != "__MACOSX"
        self.not_searched += wanted and not self.recursive
        return wanted and self.recursive

    def say(self) -> None:
        """Log what was skipped."""
        for error in self.unlisted[:20]:
            log.warning("Cannot be listed: %s: %s", error.filename, error.strerror)
        if len(self.unlisted) > 20:
            log.warning("... and %s more folders that cannot be listed.", f"{len(self.unlisted) - 20:,}")
        if self.passed_over:
            kinds = ", ".join(f"{number:,} {suffix}" for suffix, number in self.passed_over.most_common())
            log.info("Skipped, not images by their suffix: %s.", kinds)
        if self.not_searched:
            log.info("Folders below that are not searched without --recursive: %s.", f"{self.not_searched:,}")


def _may_be_dicom(path: Path) -> bool:
    """Return whether a file has DICOM's magic number; True where it cannot be read, so that reading says why."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return True
