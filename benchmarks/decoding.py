"""Speed of decoding images compared with Pillow's draft mode.

Also measures whether memory grows with the number of images, and the time to index a large folder.

    python -m benchmarks.decoding [--images 200] [--rows 20000] [--files 100000]

JPEG files of 1,000 to 3,000 pixels a side are generated in a temporary folder. The ways to decode alternate over
several rounds, and the best time of each counts. On a shared machine, read the ratios of processor time
(1: as fast as Pillow alone).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from PIL import Image

from benchmarks.table import Row
from chestxray.data.decoded import decode
from chestxray.data.images import reading
from chestxray.data.sources import folder
from chestxray.plugin import SourceOptions

SIZE = (224, 224)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200, help="large JPEG files to decode")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the memory test")
    parser.add_argument("--files", type=int, default=100_000, help="files of the indexing test")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.memory_of:
        print(peak_of_decoding(chosen.within, chosen.memory_of))
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        result = {"decoding": rates(root / "large", chosen.images), "memory": memory(root / "rows", chosen.rows)}
        result["indexing"] = indexing(root / "many", chosen.files)
    print(json.dumps(result, indent=2))


def measure(count: int = 400) -> list[Row]:
    """Return rows that compare decoding with Pillow's draft mode."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        found = rates(root / "large", count)
        one, all_, ours = (found[k] for k in ("pillow_one_core", "pillow_all_cores", "decode_all_cores"))
        return [
            Row("decoding, of Pillow on one core times the cores", one * found["cores"], ours, "images/s", 0.9),
            Row("decoding, of Pillow in a pool", all_, ours, "images/s"),
            Row("decoding, processor time", 1.0, found["decode_to_pillow_cpu_time"], "x/s", 0.9),
        ]


def rates(root: Path, count: int, rounds: int = 3) -> dict[str, float]:
    """Return images per second: Pillow alone and `reading.read` in one process, then on all cores Pillow in
    a pool and `decoded.decode`; each the best of several alternating rounds."""
    paths = large_jpegs(root, count)
    cores = len(os.sched_getaffinity(0))
    some = paths[: min(60, len(paths))]
    parts = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    index = folder.load(str(root), SourceOptions(cache=root))
    pool = Parallel(n_jobs=cores)
    pool(delayed(each)(plain, part[:1]) for part in parts)  # the processes of the pool are started once
    ways = {
        "pillow_one_core": (len(some), lambda: each(plain, some)),
        "read_one_core": (len(some), lambda: each(ours, some)),
        "pillow_all_cores": (len(paths), lambda: pool(delayed(each)(plain, part) for part in parts)),
        "decode_all_cores": (len(paths), lambda: decode_anew(index, root.parent)),
    }
    best = dict.fromkeys(ways, float("inf"))
    few = index.replace(index.rows[index.rows["path"].isin([str(path) for path in some])])
    cpu = {
        "pillow": lambda: each(plain, some),
        "read": lambda: each(ours, some),
        "decode": lambda: decode_anew(few, root.parent, processes=1),
    }
    seconds = dict.fromkeys(cpu, float("inf"))
    for _ in range(rounds):
        for name, way in cpu.items():
            start = time.process_time()
            way()
            seconds[name] = min(seconds[name], time.process_time() - start)
        for name, (_, way) in ways.items():
            start = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - start)
    rate = {name: round(number / best[name], 1) for name, (number, _) in ways.items()}
    return rate | {
        "cores": cores,
        "read_to_pillow_cpu_time": round(seconds["pillow"] / seconds["read"], 3),
        "decode_to_pillow_cpu_time": round(seconds["pillow"] / seconds["decode"], 3),
        "read_to_pillow_one_core": round(rate["read_one_core"] / rate["pillow_one_core"], 3),
        "decode_to_pillow_all_cores": round(rate["decode_all_cores"] / rate["pillow_all_cores"], 3),
        "decode_to_pillow_one_core_times_cores": round(rate["decode_all_cores"] / rate["pillow_one_core"] / cores, 3),
    }


def each(way, paths) -> None:
    for path in paths:
        way(path)


def decode_anew(index, folder_: Path, processes: int | None = None) -> None:
    with tempfile.TemporaryDirectory(dir=folder_) as cache:
        decode(index, SIZE, "stretch", Path(cache), processes=processes)


def plain(path: Path) -> np.ndarray:
    """Decode in the usual way with Pillow's draft mode: the baseline."""
    with Image.open(path) as image:
        image.draft("L", SIZE[::-1])
        return np.asarray(image.convert("L").resize(SIZE[::-1], Image.Resampling.BILINEAR))


def ours(path: Path) -> np.ndarray:
    return reading.read(path, size=SIZE).pixels


def large_jpegs(root: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        side = int(rng.integers(1000, 3001))
        small = rng.integers(0, 256, (side // 24, side // 24), dtype=np.uint8)
        image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        grain = np.asarray(image, np.int16) + rng.integers(-6, 7, (side, side), dtype=np.int16)
        path = root / f"class{number % 2}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return paths


def memory(root: Path, rows: int) -> dict[str, int]:
    """Return the peak memory in MB of a process that decodes a twentieth of the rows, and of one for all rows."""
    write_many(root, rows, side=64)
    counts = {"rows_few": rows // 20, "rows_all": rows}
    return counts | {
        f"peak_mb_{name}": int(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.decoding", "--memory-of", str(n), "--within", str(root)],
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for name, n in counts.items()
    }  # fmt: skip


def peak_of_decoding(root: Path, rows: int) -> int:
    index = folder.load(str(root), SourceOptions(cache=root))
    index = index.replace(index.rows.iloc[:rows])
    with tempfile.TemporaryDirectory() as cache:
        # One process: the mapped pages of the array's file count as its memory too.
        decode(index, (64, 64), "stretch", Path(cache), processes=1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def indexing(root: Path, files: int) -> dict[str, float]:
    write_many(root, files, side=0)
    start = time.perf_counter()
    index = folder.load(str(root), SourceOptions(cache=root, patient_pattern=r"(p\d+)_"))
    return {"files": len(index), "seconds": round(time.perf_counter() - start, 2)}


def write_many(root: Path, count: int, side: int) -> None:
    """Write small PNG files, or empty files if `side` is 0, to split and class folders."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = root / ("train", "test")[number % 2] / f"class{number % 3}" / f"p{number // 4}_{number}.png"
        if number < 6:
            path.parent.mkdir(parents=True, exist_ok=True)
        if side:
            Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(path, compress_level=0)
        else:
            path.touch()


if __name__ == "__main__":
    main()
