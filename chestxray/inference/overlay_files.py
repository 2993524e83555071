"""Heat maps laid over their images, as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from chestxray.explanation.overlay import overlay
from chestxray.storage.files import replacing

if TYPE_CHECKING:
    from chestxray.inference.answer import Answer
    from chestxray.inference.batch_prediction import Batch


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
