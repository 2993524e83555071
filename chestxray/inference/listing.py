"""Lists the image files among given paths, and names and writes their overlays."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from chestxray.data.images.reading import SUFFIXES, UNREAD_SUFFIXES
from chestxray.errors import DataError, InputError
from chestxray.explanation.overlay import overlay
from chestxray.storage.files import ABSENT, refusal, replacing

if TYPE_CHECKING:
    from chestxray.inference.answer import Answer
    from chestxray.inference.batch_prediction import Batch

log = logging.getLogger(__name__)


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


def overlay_name(path: str) -> str:
    """Return a unique file name for the overlay of the image at `path`, of letters, digits and ``._-``.

    >>> overlay_name("../a b.png")
    'a-b-5600e982328d7db5.png'
    """
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem).strip("-.")[:60]
    digest = xxhash.xxh3_64_hexdigest(path.encode("utf-8", "surrogateescape"))
    return f"{readable or 'image'}-{digest}.png"


def write_overlays(folder: Path, answers: Sequence[Answer], batch: Batch) -> list[str | None]:
    """Write the overlays of `batch` to `folder` and return their names, None for images unreadable or refused.

    Raises:
        OutputError: the folder cannot be written to.
    """
    from PIL import Image

    if batch.outputs is None or batch.outputs.maps is None:
        return [None] * len(answers)
    names: list[str | None] = []
    readable = iter(zip(batch.pixels, batch.outputs.maps, strict=True))
    for answer in answers:
        pixels, heat = (None, None) if answer.unreadable else next(readable)
        if pixels is None or heat is None or answer.refused:
            names.append(None)
            continue
        names.append(overlay_name(answer.path))
        with replacing(folder / overlay_name(answer.path)) as temporary:
            Image.fromarray(np.ascontiguousarray(overlay(pixels, heat))).save(temporary)
    return names


@dataclass
class _Search:
    """Searches folders for images, and counts what is skipped."""

    recursive: bool
    passed_over: Counter[str] = field(default_factory=Counter)
    not_searched: int = 0
    unlisted: list[OSError] = field(default_factory=list)

    def images(self, root: Path) -> Iterator[str]:
        """Yield the image files in `root`, and the folders that cannot be listed."""
        seen: set[tuple[int, int]] = set()
        refused: list[OSError] = []
        for folder, children, names in os.walk(root, onerror=refused.append, followlinks=True):
            status = os.stat(folder)  # noqa: PTH116 - os.walk gives text
            if (status.st_dev, status.st_ino) in seen:
                children.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            wanted = sorted(name for name in children if not name.startswith(".") and name != "__MACOSX")
            self.not_searched += 0 if self.recursive else len(wanted)
            children[:] = wanted if self.recursive else []
            for name in sorted(names):
                if name.startswith("."):
                    continue
                path = Path(folder, name)
                suffix = path.suffix.lower()
                if suffix in SUFFIXES or suffix in UNREAD_SUFFIXES or (not suffix and _may_be_dicom(path)):
                    yield str(path)
                else:
                    self.passed_over[suffix or "(none)"] += 1
        self.unlisted += refused
        yield from (str(error.filename) for error in refused)

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
