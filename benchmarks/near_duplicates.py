"""How often distinct radiographs are taken for one, how often edited copies are found, how long it
takes and what memory.

    python benchmarks/near_duplicates.py FOLDER [--patient-pattern REGEX] [--image-size 224] [--images 14000]

FOLDER holds real radiographs of one view, in class folders, with patients in the file names: pairs
of different patients show different films. The highest correlations among them are printed with the
files' names, since some patients have two numbers. Time and memory are those of the whole audit
after decoding, on noise with the spectrum of a radiograph, 256 pixels.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from chestxray import near_duplicates
from chestxray.audit import audit
from chestxray.decoded import decode, readable
from chestxray.index import Index
from chestxray.plugin import SourceOptions
from chestxray.sources import folder

KERMANY = r"(test/)?.*(person\d+|IM-\d+)"
SIDE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="real radiographs of one view")
    parser.add_argument("--patient-pattern", default=KERMANY)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--edited", type=int, default=300, help="radiographs that are edited")
    parser.add_argument("--images", type=int, default=14_000, help="images of the test of time and memory")
    parser.add_argument("--cost-of", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.cost_of:
        print(json.dumps(cost(chosen.cost_of)))
        return
    with tempfile.TemporaryDirectory() as cache:
        index = folder.load(
            str(chosen.folder), SourceOptions(cache=Path(cache), patient_pattern=chosen.patient_pattern)
        )
        decoded = decode(index, (chosen.image_size,) * 2, "stretch", Path(cache))
        index = readable(index, decoded, 1.0)
        result = false_alarms(index, decoded.pixels) | {"recall": recall(index, decoded.pixels, chosen.edited)}
    few = chosen.images // 10
    # A process each: a process never gives its peak back.
    result["cost"] = [
        json.loads(
            subprocess.run(
                [sys.executable, __file__, str(chosen.folder), "--cost-of", str(count)],
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for count in (few, chosen.images)
    ]  # fmt: skip
    print(json.dumps(result, indent=2))


def false_alarms(index: Index, pixels: np.ndarray) -> dict:
    """Of all pairs of different pixels and different known patients, those taken for one film."""
    rows = index.rows[index.rows["unreadable"] == ""].drop_duplicates("pixel_hash")
    patient = (rows["source"] + "\0" + rows["patient"]).where(rows["patient"] != "")
    each = patient.value_counts().to_numpy()
    known = int(each.sum())
    pairs = (known * (known - 1) - int((each * (each - 1)).sum())) // 2
    at = near_duplicates.CONFIRMED if pixels.shape[1] >= near_duplicates.SMALL else near_duplicates.CONFIRMED_SMALL
    start = time.perf_counter()
    found = near_duplicates.pairs(pixels, rows.index.to_numpy(), least=0.0)
    seconds = time.perf_counter() - start
    first, second = (patient.reindex(found[side]).to_numpy() for side in ("first", "second"))
    told = (first != second) & (found["correlation"] > 0)
    different = found[told & ~(patient.reindex(found["first"]).isna().to_numpy())]
    different = different.sort_values("correlation", ascending=False)
    names = rows["path"].map(lambda path: Path(path).name)
    flagged = int((different["correlation"] >= at).sum())
    return {
        "films": len(rows),
        "pairs_of_different_patients": pairs,
        "candidates": len(found),
        "flagged": flagged,
        # The rule of three, where none is flagged; else a normal bound.
        "rate_upper_95": (3.0 if not flagged else flagged + 1.645 * flagged**0.5) / pairs,
        "seconds": round(seconds, 1),
        "highest": [
            (round(float(row.correlation), 3), names[row.first], names[row.second])
            for row in different.head(5).itertuples()
        ],
        "flagged_of_one_patient": int(((first == second) & (found["correlation"] >= at)).sum()),
    }


def recall(index: Index, pixels: np.ndarray, count: int) -> dict[str, float]:
    """Share of edited copies that are found among the radiographs and all their copies of one kind."""
    rows = index.rows[index.rows["unreadable"] == ""].drop_duplicates("pixel_hash").index.to_numpy()
    chosen = np.random.default_rng(0).choice(rows, min(count, len(rows)), replace=False)
    own = np.stack([pixels[row] for row in chosen])
    found = {}
    for name, edit in EDITS.items():
        both = np.concatenate([own, [edit(image) for image in own]])
        pairs = near_duplicates.pairs(both, np.arange(len(both)))
        found[name] = float((pairs["second"] == pairs["first"] + len(own)).sum() / len(own))
    return found


def jpeg(image: np.ndarray, quality: int = 50) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer) as reread:
        return np.asarray(reread)


def resized(image: np.ndarray, share: float) -> np.ndarray:
    small = Image.fromarray(image).resize((round(image.shape[1] * share), round(image.shape[0] * share)))
    return np.asarray(small.resize(image.shape[::-1]))


def cropped(image: np.ndarray, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    height, width = image.shape
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=box))


def toned(image: np.ndarray, factor: float, offset: float, gamma: float = 1.0) -> np.ndarray:
    return np.clip(255 * (image / 255) ** gamma * factor + offset, 0, 255).astype(np.uint8)


EDITS = {
    "jpeg_quality_50": jpeg,
    "resize_90": lambda image: resized(image, 0.9),
    "resize_40": lambda image: resized(image, 0.4),
    "crop_3_each_side": lambda image: cropped(image, 0.03, 0.03, 0.03, 0.03),
    "crop_3_two_sides": lambda image: cropped(image, 0.03, 0.03, 0, 0),
    "crop_5_each_side": lambda image: cropped(image, 0.05, 0.05, 0.05, 0.05),
    "brighter": lambda image: toned(image, 1.3, 20),
    "less_contrast": lambda image: toned(image, 0.6, 50),
    "gamma": lambda image: toned(image, 1, 0, 0.6),
    "crop_brighter_jpeg": lambda image: jpeg(toned(cropped(image, 0.03, 0.03, 0.03, 0.03), 1.2, 0)),
}


def cost(count: int) -> dict[str, float]:
    """Seconds and peak memory in MB of the audit of `count` images, beside the peak before it.

    Both peaks include the pages of the mapped pixels, which the system takes back when it needs to.
    """
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "pixels.npy"
        pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, SIDE, SIDE))
        rng = np.random.default_rng(0)
        shape = 1 / np.maximum(np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")), 2e-3)
        for row in range(count):
            noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * shape**1.5, s=(SIDE, SIDE))
            pixels[row] = np.clip(128 + 40 * noise / noise.std(), 0, 255)
        pixels.flush()
        del pixels
        records = [
            {"path": f"/{row:06d}.png", "label": "ab"[row % 2], "patient": str(row // 2), "unreadable": "",
             "pixel_hash": str(row), "file_hash": str(row), "split": ("train", "test")[row % 10 > 7],
             "format": "PNG", "mode": "L"}
            for row in range(count)
        ]  # fmt: skip
        index = Index.from_records(records, name="noise")
        sizes = np.random.default_rng(1).integers(200, 3000, (2, count))
        index = index.replace(index.rows.assign(width=sizes[0], height=sizes[1]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        start = time.perf_counter()
        audit(near_duplicates.mark(index, np.load(path, mmap_mode="r")))
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"images": count, "seconds": round(seconds, 1), "peak_mb": peak, "peak_mb_before": before}


if __name__ == "__main__":
    main()
