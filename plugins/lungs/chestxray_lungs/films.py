"""Films with known lungs, for training: the Montgomery County set, and drawn phantoms."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from chestxray.data.sources.phantom.drawing import draw
from chestxray.data.sources.phantom.findings import FINDINGS
from chestxray.errors import InputError

#: Height and width in pixels that films are kept at: larger than the network's input, for crops.
KEPT = 192
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Films:
    """``pixels`` uint8 and ``lungs`` bool, both (n, KEPT, KEPT); ``patients``: a name of each."""

    pixels: np.ndarray
    lungs: np.ndarray
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.patients)

    def of(self, part: str) -> Films:
        """Return the films of the patients of a part: see `part_of`."""
        chosen = [i for i, patient in enumerate(self.patients) if part_of(patient) == part]
        return Films(self.pixels[chosen], self.lungs[chosen], tuple(self.patients[i] for i in chosen))


def part_of(patient: str) -> str:
    """Return the part of a patient, one of `PARTS`, by the SHA-256 of the name: about 5 in 7 are for training."""
    number = int(hashlib.sha256(patient.encode()).hexdigest(), 16) % 7
    return {0: "test", 1: "validation"}.get(number, "train")


def montgomery(folder: Path) -> Films:
    """Return the Montgomery County set in ``folder/images`` and ``folder/masks``, files of the same names.

    The name of a patient is that of the file without its ending; it ends in 0 for a normal film, 1 for tuberculosis.

    Raises:
        InputError: no such films, or one without a mask.
    """
    files = sorted((folder / "images").glob("*.png"))
    if not files:
        raise InputError(f"--montgomery must be a folder with images/*.png and masks/*.png. Received: {folder}.")
    if missing := [file.name for file in files if not (folder / "masks" / file.name).is_file()]:
        raise InputError(f"{folder / 'masks'} has no mask of {missing[0]}, of {len(missing)} films.")
    films = [_resized(Image.open(file).convert("L")) for file in files]
    masks = [_resized(Image.open(folder / "masks" / file.name).convert("L")) for file in files]
    return Films(np.stack(films), np.stack(masks) > 127, tuple(file.stem for file in files))


def phantoms(patients: Sequence[int], seed: int) -> Films:
    """Return one drawn film of each patient, of every finding in turn."""
    names = list(FINDINGS)
    drawn = [
        draw(seed=seed, patient=n, image=0, finding=names[n % len(names)], size=KEPT, marker=n % 3 == 0)
        for n in patients
    ]
    pixels = [_resized(Image.fromarray(each.pixels)) for each in drawn]
    lungs = [_resized(Image.fromarray(each.lungs.astype(np.uint8) * 255)) for each in drawn]
    return Films(np.stack(pixels), np.stack(lungs) > 127, tuple(f"phantom-{seed}-{n}" for n in patients))


def _resized(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((KEPT, KEPT), Image.Resampling.BILINEAR))
