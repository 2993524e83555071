"""A decoded set in the cache, its files changed: what comes out is what was put in, or is decoded again."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from chestxray.data.decoded import Decoded, decode
from chestxray.data.index import Index
from fuzz.mutation import mutated


def prepare(folder: Path, _: contextlib.ExitStack) -> Callable[[random.Random], None]:
    """A case that opens one changed set."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(6):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (14, 12), dtype=np.uint8)).save(path)
        records.append({"path": str(path), "label": "sick" if number % 2 else "clear"})
    index = Index.from_records(records, name="noise")

    def opened() -> Decoded:
        return decode(index, (10, 10), "stretch", folder / "cache", processes=1)

    first = opened()
    pixels, facts, place = np.array(first.pixels), first.facts.copy(), first.folder

    def case(rng: random.Random) -> None:
        files = [path for path in sorted(place.rglob("*")) if path.is_file()]
        for path in rng.sample(files, rng.choice((1, 1, min(2, len(files))))):
            if rng.random() < 0.1:
                path.unlink()
            else:
                # Written anew: what is mapped into memory keeps its bytes.
                content = path.read_bytes()
                path.unlink()
                path.write_bytes(mutated(rng, content))
        found = opened()
        assert np.array_equal(found.pixels, pixels), "other pixels than were decoded"
        assert found.facts.equals(facts), "other facts than were decoded"

    return case
