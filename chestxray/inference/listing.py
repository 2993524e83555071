"""Image files that somebody named: which they are, and what their overlays are called."""

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
    """The files among `paths` as they are, and the image files in the folders among them, sorted.

    In a folder, hidden files are passed over, and those that are no images by their suffix, which are
    counted in the log; a file without a suffix counts where it bears DICOM's mark. Images in formats
    that are not read (such as GIF) and folders that cannot be listed stand among the files, so that
    whoever reads them says why not. With `recursive`, folders below are searched too, but hidden ones,
    ``__MACOSX`` and circles of links. No file is named twice.

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
    """A file name of its own for the overlay of the image at `path`: letters, digits, ``._-`` alone.

    >>> overlay_name("../a b.png")
    'a-b-5600e982328d7db5.png'
    """
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem).strip("-.")[:60]
    digest = xxhash.xxh3_64_hexdigest(path.encode("utf-8", "surrogateescape"))
    return f"{readable or 'image'}-{digest}.png"


def write_overlays(folder: Path, answers: Sequence[Answer], batch: Batch) -> list[str | None]:
    """Write the overlays of `batch` to `folder`; their names, None for what was unreadable or refused.

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
    """What a search of folders for images meets beside them."""

    recursive: bool
    passed_over: Counter[str] = field(default_factory=Counter)
    not_searched: int = 0
    unlisted: list[OSError] = field(default_factory=list)

    def images(self, root: Path) -> Iterator[str]:
        """The image files in `root`, and the folders that cannot be listed."""
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
        """Log what is not among the images, so that nothing is left out unsaid."""
        for error in self.unlisted[:20]:
            log.warning("Cannot be listed: %s: %s", error.filename, error.strerror)
        if len(self.unlisted) > 20:
            log.warning("... and %s more folders that cannot be listed.", f"{len(self.unlisted) - 20:,}")
        if self.passed_over:
            kinds = ", ".join(f"{number:,} {suffix}" for suffix, number in self.passed_over.most_common())
            log.info("Passed over, no images by their suffix: %s.", kinds)
        if self.not_searched:
            log.info("Folders below that are not searched without --recursive: %s.", f"{self.not_searched:,}")


def _may_be_dicom(path: Path) -> bool:
    """Whether a file bears DICOM's mark; True too where it cannot be looked at, for its reader to say why."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return True
