"""Manifests in all their forms, and archives of arrays."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from chestxray.data.sources import manifest, npz
from chestxray.plugin import SourceOptions
from fuzz.mutation import mutated


def prepare(folder: Path, _: contextlib.ExitStack) -> Callable[[random.Random], None]:
    """A case that loads one changed table, or one changed archive."""
    for number in range(4):
        Image.new("L", (8, 6), 40 * number).save(folder / f"{number}.png")
    rows = {
        "path": [f"{number}.png" for number in range(4)],
        "label": ["sick", "clear"] * 2,
        "patient": ["a", "b", "c", "d"],
        "split": ["train", "val", "test", "train"],
        "age": ["4", "", "90", "x"],
    }
    tables = _tables(pd.DataFrame(rows))
    archive = _archive()
    options = (
        {}, {"where": "label=sick"}, {"label_column": "age"}, {"split_column": ""}, {"keep": "age"}, {"root": "."},
        {"label_column": "age", "uncertain": "drop"},
    )  # fmt: skip

    cache = folder / "cache"
    # What is refused before it is changed would never be looked into.
    for suffix, content in tables:
        (folder / f"a{suffix}").write_bytes(content)
        manifest.load(str(folder / f"a{suffix}"), SourceOptions(cache=cache))
    (folder / "a.npz").write_bytes(archive)
    npz.load(str(folder / "a.npz"), SourceOptions(cache=cache))

    def case(rng: random.Random) -> None:
        pattern = rng.choice((None, None, r"(\d)", "(a+)+$"))
        given = SourceOptions(cache=cache, extra=rng.choice(options), patient_pattern=pattern)
        try:
            if rng.random() < 0.3:
                (folder / "a.npz").write_bytes(mutated(rng, archive))
                npz.load(str(folder / "a.npz"), SourceOptions(cache=cache))
                return
            suffix, content = rng.choice(tables)
            (folder / f"a{suffix}").write_bytes(_changed(rng, suffix, content))
            manifest.load(str(folder / f"a{suffix}"), given)
        finally:
            shutil.rmtree(cache, ignore_errors=True)

    return case


def _changed(rng: random.Random, suffix: str, content: bytes) -> bytes:
    # Within what is packed too, of which hardly a change would be left.
    if suffix.endswith(".gz") and rng.random() < 0.7:
        return gzip.compress(mutated(rng, gzip.decompress(content)), 1)
    return mutated(rng, content)


def _tables(table: pd.DataFrame) -> list[tuple[str, bytes]]:
    text = table.to_csv(index=False)
    made = [
        (".csv", text.encode()),
        (".csv", text.replace("\n", "\r\n").encode("utf-16")),
        (".csv", b"\xef\xbb\xbf" + text.replace(",", ";").encode()),
        (".tsv", table.to_csv(index=False, sep="\t").encode()),
        (".csv.gz", gzip.compress(text.encode())),
    ]
    with contextlib.suppress(ImportError):
        buffer = io.BytesIO()
        table.to_excel(buffer, index=False)
        made.append((".xlsx", buffer.getvalue()))
    return made


def _archive() -> bytes:
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    parts = {}
    for name in ("train", "val"):
        parts[f"{name}_images"] = rng.integers(0, 256, (3, 5, 4), dtype=np.uint8)
        parts[f"{name}_labels"] = np.array([[0], [1], [1]])
    np.savez(buffer, **parts, names=np.array(["clear", "sick"]))
    return buffer.getvalue()
