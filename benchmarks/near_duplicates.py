"""Near-duplicate search: false matches of distinct radiographs, recall of edited copies, time and memory.

    python benchmarks/near_duplicates.py FOLDER [--patient-pattern REGEX] [--image-size 224] [--images 5000 20000]

FOLDER holds real radiographs of one view, in class folders, with patients in the file names: pairs
of different patients are distinct films. The highest correlations among them are printed with the file
names, since some patients have two numbers.

Time and memory are measured on synthetic films of 64 pixels, drawn from the principal components of those in
FOLDER with normal weights, 10 in 1,000 of them with an edited copy; `--plain` also compares every film with
every other, as a reference for what the search by cells finds.
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
from PIL import Image, ImageDraw, ImageFont, ImageOps

from chestxray.data import near_duplicates, neighbours
from chestxray.data.decoded import decode, readable
from chestxray.data.grouping import patient_keys
from chestxray.data.image_registration import SIDE
from chestxray.data.index import Index
from chestxray.data.sources import folder
from chestxray.plugin import SourceOptions

KERMANY = r"(test/)?.*(person\d+|IM-\d+)"
COMPONENTS = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="real radiographs of one view")
    parser.add_argument("--patient-pattern", default=KERMANY)
    parser.add_argument("--label-pattern")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--edited", type=int, default=300, help="radiographs that are edited")
    parser.add_argument("--images", type=int, nargs="*", default=[], help="numbers of films of the test of cost")
    parser.add_argument("--plain", action="store_true", help="cost and recall of the quadratic search as well")
    parser.add_argument("--cost-of", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.cost_of:
        print(json.dumps(cost(np.load(chosen.cost_of, mmap_mode="r"), plain=chosen.plain)))
        return
    with tempfile.TemporaryDirectory() as cache:
        options = SourceOptions(
            cache=Path(cache), patient_pattern=chosen.patient_pattern, label_pattern=chosen.label_pattern
        )
        index = folder.load(str(chosen.folder), options)
        decoded = decode(index, (chosen.image_size,) * 2, "stretch", Path(cache))
        index = readable(index, decoded, 1.0)
        result = false_alarms(index, decoded.pixels) | {"recall": recall(index, decoded.pixels, chosen.edited)}
        result["cost"] = []
        for count in chosen.images:
            path = Path(cache) / "synthetic.npy"
            synthetic(decoded.pixels, count, path)
            # One process each, since the recorded peak memory of a process never falls.
            for plain in (False, True) if chosen.plain else (False,):
                command = [sys.executable, __file__, ".", "--cost-of", str(path), *(["--plain"] if plain else [])]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                result["cost"].append(json.loads(done.stdout))
    print(json.dumps(result, indent=2))


def false_alarms(index: Index, pixels: np.ndarray) -> dict:
    """Return the matches among pairs of different pixels and patients; an unknown patient counts as different."""
    rows = index.rows[index.rows["unreadable"] == ""].drop_duplicates("pixel_hash")
    patient = patient_keys(rows)
    each = patient.value_counts().to_numpy()
    pairs = (len(rows) * (len(rows) - 1) - int((each * (each - 1)).sum())) // 2
    at, advised = near_duplicates.confirmed(pixels), near_duplicates.advised(pixels)
    start = time.process_time()
    found = near_duplicates.pairs(pixels, rows.index.to_numpy(), least=-1.0)
    seconds = time.process_time() - start
    first, second = (patient.reindex(found[side]).to_numpy() for side in ("first", "second"))
    told = first != second
    different = found[told].sort_values("correlation", ascending=False)
    names = rows["path"].map(lambda path: Path(path).name)
    flagged = int((different["correlation"] >= at).sum())
    wrong = told & (found["correlation"] >= at).to_numpy()
    return {
        "films": len(rows),
        "pairs_of_different_patients": pairs,
        "candidates": len(found),
        "flagged": flagged,
        "patients": len(each),
        # Pairs share films, and films share patients, so patients with a false match are counted.
        "patients_upper_95": upper(np.unique([first[wrong], second[wrong]]).size, len(each)),
        "look_alikes": int((different["correlation"] >= advised).sum()) - flagged,
        "processor_seconds": round(seconds, 1),
        "highest": [
            (round(float(row.correlation), 3), names[row.first], names[row.second])
            for row in different.head(5).itertuples()
        ],
        "flagged_of_one_patient": int(((first == second) & (found["correlation"] >= at)).sum()),
    }


def upper(count: int, of: int) -> float:
    """Return the upper limit of a one-sided 95% interval of a proportion (Clopper and Pearson 1934)."""
    from scipy import stats

    return 1.0 if count == of else float(stats.beta.ppf(0.95, count + 1, of - count))


def recall(index: Index, pixels: np.ndarray, count: int) -> dict[str, float]:
    """Return, by edit, the proportion of edited copies found among the radiographs and all copies of that edit."""
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


def padded(image: np.ndarray, share: float = 0.9) -> np.ndarray:
    height, width = image.shape
    small = Image.fromarray(image).resize((round(share * width), round(share * height)), Image.Resampling.BILINEAR)
    whole = Image.new("L", (width, height))
    whole.paste(small, ((width - small.width) // 2, (height - small.height) // 2))
    return np.asarray(whole)


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))


def with_text(image: np.ndarray) -> np.ndarray:
    changed = Image.fromarray(image)
    draw, side = ImageDraw.Draw(changed), image.shape[1]
    draw.text((0.03 * side,) * 2, "PORTABLE AP 14:32", fill=255, font=ImageFont.load_default(size=0.07 * side))
    draw.text((0.8 * side, 0.85 * side), "L", fill=255, font=ImageFont.load_default(size=0.12 * side))
    return np.asarray(changed)


EDITS = {
    "jpeg_quality_50": jpeg,
    "resize_90": lambda image: resized(image, 0.9),
    "resize_40": lambda image: resized(image, 0.4),
    "crop_3_each_side": lambda image: cropped(image, 0.03, 0.03, 0.03, 0.03),
    "crop_3_two_sides": lambda image: cropped(image, 0.03, 0.03, 0, 0),
    "crop_5_each_side": lambda image: cropped(image, 0.05, 0.05, 0.05, 0.05),
    "crop_5_two_sides": lambda image: cropped(image, 0.05, 0.05, 0, 0),
    "crop_8_each_side": lambda image: cropped(image, 0.08, 0.08, 0.08, 0.08),
    "pad_to_90": padded,
    "pad_to_85": lambda image: padded(image, 0.85),
    "brighter": lambda image: toned(image, 1.3, 20),
    "less_contrast": lambda image: toned(image, 0.6, 50),
    "gamma": lambda image: toned(image, 1, 0, 0.6),
    "equalised": lambda image: np.asarray(ImageOps.equalize(Image.fromarray(image))),
    "inverted": lambda image: 255 - image,
    "mirrored": lambda image: image[:, ::-1],
    "upside_down": lambda image: image[::-1],
    "turned_2": lambda image: turned(image, 2),
    "turned_5": lambda image: turned(image, 5),
    "turned_-5": lambda image: turned(image, -5),
    "turned_90": lambda image: np.rot90(image),
    "text": with_text,
    "crop_brighter_jpeg": lambda image: jpeg(toned(cropped(image, 0.03, 0.03, 0.03, 0.03), 1.2, 0)),
    "mirrored_inverted": lambda image: 255 - image[:, ::-1],
    "mirrored_turned_3_jpeg": lambda image: jpeg(turned(np.ascontiguousarray(image[:, ::-1]), 3)),
    "turned_3_crop_3": lambda image: cropped(turned(image, 3), 0.03, 0.03, 0.03, 0.03),
    "pad_to_90_inverted": lambda image: 255 - padded(image),
}
#: The edits of the copies among the synthetic films.
PLANTED = ("crop_3_two_sides", "crop_5_each_side", "pad_to_90", "brighter", "equalised", "inverted", "mirrored",
           "turned_5", "text", "mirrored_turned_3_jpeg")  # fmt: skip


def synthetic(pixels: np.ndarray, count: int, path: Path) -> None:
    """Write synthetic films to `path`, uint8 (count, SIDE, SIDE); the last 1 in 100 are edited copies of the first."""
    rng = np.random.default_rng(0)
    some = rng.permutation(len(pixels))[: 2 * COMPONENTS]
    real = np.stack([Image.fromarray(pixels[row]).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for row in some])
    flat = real.reshape(len(real), -1).astype(np.float32)
    mean = flat.mean(axis=0)
    _, sizes, shapes = np.linalg.svd(flat - mean, full_matrices=False)
    shapes = shapes[:COMPONENTS] * (sizes[:COMPONENTS, None] / np.sqrt(len(flat)))
    films = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, SIDE, SIDE))
    copies = count // 100
    for start in range(0, count - copies, 1_000):
        part = films[start : min(start + 1_000, count - copies)]
        weights = rng.standard_normal((len(part), len(shapes)), dtype=np.float32)
        part[:] = np.clip(mean + weights @ shapes, 0, 255).reshape(part.shape)
    for number in range(copies):
        films[count - copies + number] = EDITS[PLANTED[number % len(PLANTED)]](films[number])


def cost(pixels: np.ndarray, *, plain: bool) -> dict[str, float]:
    """Return seconds and peak memory in MB of a search among synthetic films, and the peak before it."""
    if plain:
        neighbours.EVERY = len(pixels)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    start, used = time.perf_counter(), time.process_time()
    vectors = near_duplicates._described((pixels, np.arange(len(pixels))))
    described = time.process_time()
    candidates = near_duplicates._candidates(vectors)
    looked_up = time.process_time()
    films = (pixels, np.arange(len(pixels)))
    found = near_duplicates._confirmed(candidates, films, films, None)
    seconds, done = time.perf_counter() - start, time.process_time()
    copies = len(pixels) // 100
    planted = found["second"] - found["first"] == len(pixels) - copies
    candidate = candidates["second"] - candidates["first"] == len(pixels) - copies
    return {
        "films": len(pixels),
        "plain": plain,
        "candidates": len(candidates),
        "copies_among_candidates": round(float(candidate.sum()) / copies, 4),
        "copies_found": round(float(planted.sum()) / copies, 4),
        "others_found": int((~planted).sum()),
        "seconds": round(seconds, 1),
        "processor_seconds": round(done - used, 1),
        "describing": round(described - used, 1),
        "looking_up": round(looked_up - described, 1),
        "comparing": round(done - looked_up, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peak_mb_before": before,
    }


if __name__ == "__main__":
    main()
