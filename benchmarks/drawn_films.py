"""Draws a small film for each row of a table, so that a set of hundreds of thousands of images can be measured.

    python -m benchmarks.drawn_films TABLE FOLDER [--column "Image Index"] [--side 16] [--rows N]

TABLE is one of labels, such as NIH's ``Data_Entry_2017_v2020.csv.gz``; FOLDER gets a copy of it and, in ``images``,
a PNG file for each name in it. Films are noise with the spectrum of radiographs (amplitudes that fall with the
frequency to the power 1.5), each drawn from its own name: none shows anything, and no two are alike.
"""

from __future__ import annotations

import argparse
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--column", default="Image Index", help="heading of the names of the files")
    parser.add_argument("--side", type=int, default=16, help="pixels")
    parser.add_argument("--rows", type=int, help="only the first so many")
    chosen = parser.parse_args()
    table = pd.read_csv(chosen.table, dtype=str, keep_default_na=False).head(chosen.rows)
    images = chosen.folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for name in table[chosen.column]:
        Image.fromarray(film(name, chosen.side)).save(images / name, format="PNG", compress_level=1)
    if chosen.rows:
        table.to_csv(chosen.folder / chosen.table.name, index=False)
    else:
        shutil.copy2(chosen.table, chosen.folder)
    print(f"{len(table):,} films of {chosen.side} pixels: {images}")


def film(name: str, side: int) -> np.ndarray:
    """Return the film of that name, uint8 (side, side)."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    down, right = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    amplitude = np.maximum(np.hypot(down, right), 1 / side) ** -1.5
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * amplitude, s=(side, side))
    field = (field - field.mean()) / field.std()
    return np.clip(128 + 50 * field, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
